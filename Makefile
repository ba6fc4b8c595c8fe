# Everything from a fresh machine: Python 3.10 to 3.13 and make are enough.
#
#   make demo       train on the embedded data and print two tables
#   make test       the test suite without the slow tests
#   make test-all   the whole test suite
#   make check      formatting, lint, types
#   make dist       build sdist and wheel, check them, and try both in an empty environment
#   make mutate     wrong changes of FILES="mbgraph/data/splits.py .." that no test notices (docs/testing.md)
#   make fuzz       hostile files for an hour (SECONDS=60 for a minute), and what came of them (docs/security.md)
#   make clean      remove the environment and caches
#
# pip uses your own configuration. On Linux the default build of torch brings CUDA libraries of several gigabytes; point
# pip at the CPU build first (docs/start.md) or pass options: make demo PIP_FLAGS="--find-links DIR".

# 3.11 and 3.12 first: DGL has wheels for them and current releases of everything else.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.10 || \
	command -v python3)
PIP_FLAGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
# The tests run in two processes of one thread each, in half the time; WORKERS=0 is one process.
WORKERS ?= 2
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check dist mutate fuzz clean

help:
	@sed -n 's/^#   //p' Makefile

# The stamp is newer than pyproject.toml once everything is installed: later calls go straight to work.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install it or run: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "error: $(PYTHON) is not Python 3.10 to 3.13; run: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[dev,fast]"
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/mbgraph demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist worksteal

test-all: $(STAMP)
	$(BIN)/python -m pytest -q --hypothesis-profile=explore

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dist: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dist]"
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python .ci/try_dist.py dist --pip-flags="$(PIP_FLAGS)"

mutate: $(STAMP)
	$(BIN)/python tests/mutation/mutate.py $(ROUND) $(FILES)

SECONDS ?= 3600
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS) --seed $(or $(SEED),0)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find mbgraph tests -type d -name __pycache__ -prune -exec rm -rf {} +
