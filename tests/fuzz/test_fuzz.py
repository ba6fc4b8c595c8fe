"""A minute's share of the fuzzing (`make fuzz` goes on for an hour), and that it would notice what it looks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mbgraph.cli import inspect as command
from mbgraph.errors import DataError

if sys.platform == "win32":
    pytest.skip("its alarm is one of POSIX", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent))
import harness as module
from harness import Case, Harness, cases
from mutations import Mutation
from watch import watched


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    return Harness(tmp_path_factory.mktemp("fuzz"), with_runs=False)


@settings(
    max_examples=800,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(case=cases(("data", "log"), commands=1))
def test_hostile_inputs_are_read_or_refused_in_one_line(harness, case):
    for result in harness.run(case):
        assert not result.bad, result


@pytest.fixture(scope="module")
def with_runs(tmp_path_factory):
    return Harness(tmp_path_factory.mktemp("runs"))


@settings(
    max_examples=600,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(case=cases(("run", "flag"), commands=1))
def test_runs_and_options_that_nobody_means_are_refused_in_one_line(with_runs, case):
    for result in with_runs.run(case):
        assert not result.bad, result


INSPECT = Case("data", 0.0, (Mutation("insert", 0.0, 0.0, b"\n"),), (0.0,))


def only(harness, case=INSPECT):
    (result,) = harness.run(case)
    return result


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError("x"), "traceback"), (DataError("a", "b"), "one line"), (SystemExit(3), "silent"), (None, "fine")],
)
def test_outcomes_are_told_apart(harness, monkeypatch, error, outcome):
    def load(_):
        if error is not None:
            raise error
        raise SystemExit(0)

    monkeypatch.setattr(command, "load", load)
    result = only(harness)
    assert result.outcome == outcome
    assert result.bad == (outcome in ("traceback", "silent"))


def test_a_hang_is_seen(harness, monkeypatch):
    def load(_):
        while True:
            pass

    monkeypatch.setattr(command, "load", load)
    monkeypatch.setattr(module, "SECONDS", 0.2)
    assert only(harness).outcome == "hang"


def test_writes_and_programs_are_seen(harness, monkeypatch, tmp_path):
    def load(_):
        (tmp_path / "outside").write_text("x")
        subprocess.run([sys.executable, "-c", ""], check=True)
        Path("EVIL").touch()
        raise DataError("a", "b")

    monkeypatch.setattr(command, "load", load)
    result = only(harness)
    assert result.bad
    assert {Path(path).name for path in result.outside} == {"outside"}
    assert any("Popen" in deed for deed in result.executed)
    assert any(deed.endswith("EVIL") for deed in result.executed)


def test_nothing_is_recorded_outside_the_block(tmp_path):
    with watched() as deeds:
        os.mkdir(tmp_path / "in")
    os.mkdir(tmp_path / "after")
    assert {Path(path).name for path in deeds.written} == {"in"}
