"""The script for a card that is at hand for minutes: its parts, and that it ends early where there is no card."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_checks.sh"
pytestmark = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("timeout"), reason="needs a POSIX shell with timeout"
)


def run(tmp_path, python, *datasets):
    """Run it with a stand-in for Python, which notes what it is asked to do."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\necho "$@" | head -n 1 >> {tmp_path}/asked\n{python}\n', encoding="utf-8")
    stand_in.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stand_in), "PIP_FLAGS": "--no-index"}
    done = subprocess.run(
        ["sh", str(SCRIPT), str(tmp_path / "out"), *datasets],
        capture_output=True, text=True, check=False, env=environment, timeout=60,
    )  # fmt: skip
    asked = tmp_path / "asked"
    return done, asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []


def test_all_parts_run_in_order(tmp_path):
    done, asked = run(tmp_path, "exit 0", "taobao15k", "beibei")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in asked if line.startswith("-m")] == [
        "-m pytest -q -p no:cacheprovider tests/_kernels/test_blocks.py",
        f"-m mbgraph bench speed taobao15k beibei --device cuda --part datasets -o {tmp_path}/out",
        "-m pytest -q -p no:cacheprovider -m cuda -n 8 tests/test_conformance.py",
        f"-m mbgraph bench speed --device cuda --part growth -o {tmp_path}/out",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "card.log", "kernels.log", "speed.log", "tests.log", "growth.log"
    }  # fmt: skip


def test_a_part_that_fails_does_not_stop_the_others(tmp_path):
    done, asked = run(tmp_path, 'case "$*" in *test_blocks*) exit 3;; esac')
    assert done.returncode == 1
    assert "== kernels ended with 3" in done.stdout
    assert asked[-1].startswith("-m mbgraph bench speed --device cuda --part growth")


def test_without_a_card_nothing_else_runs(tmp_path):
    done, asked = run(tmp_path, 'case "$*" in *cuda*) exit 1;; esac')
    assert done.returncode == 1
    assert "no card, or no package" in done.stdout
    assert not any("pytest" in line for line in asked)


def test_what_is_missing_is_installed_with_the_flags_given(tmp_path):
    done, asked = run(tmp_path, '[ "$1" = - ] && echo "click>=8.2 rich"; exit 0')
    assert done.returncode == 0
    assert "-m pip install --no-index click>=8.2 rich" in asked
    assert "where to write" in subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, check=False).stderr
