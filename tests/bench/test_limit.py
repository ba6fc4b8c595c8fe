"""A limit per run: a training that takes too long is judged as it stands, marked, and can go on."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mbgraph import run as runs
from mbgraph.bench.grids import accuracy_grid
from mbgraph.bench.jobs import expand
from mbgraph.bench.perform import Limit, fit_or_resume, is_finished, perform
from mbgraph.bench.results import gather
from mbgraph.bench.runner import execute, run
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study
from mbgraph.bench.tables import latex
from mbgraph.cli.main import cli


@pytest.fixture
def study(text, write):
    return Study.load(write(text.replace("epochs = 2", "epochs = 3").replace("[1, 2]", "[1]")))


def job_of(study):
    return expand(study)[0]


def test_a_run_is_cut_off_after_its_epoch_and_judged_as_it_stands(study, store, tmp_path):
    """As one that was asked for so many epochs; the mark says after how long."""
    job = job_of(study)
    done = perform(job, store, limit=1e-9)
    assert done.status == "done"
    assert store.cut(done.address) == 1e-9
    outcome = store.outcome(done.address)
    assert (outcome["epochs"], store.epochs(done.address)) == (1, 1)
    short = runs.fit(job.config.replace(training={**job.config.training, "epochs": 1}), tmp_path / "short")
    assert outcome["test"] == short["test"]
    assert runs.Run.load(store.run(done.address)).config.training_options.epochs == 1


@pytest.mark.parametrize("limit", [None, 1e-9, 1e-10])
def test_what_was_cut_off_is_finished_for_all_but_a_longer_limit(study, store, limit):
    job = job_of(study)
    address = perform(job, store, limit=1e-9).address
    assert is_finished(store, address, limit)
    assert perform(job, store, limit=limit).status == "found"
    assert not is_finished(store, address, 1.0)
    assert not is_finished(store, None)


def test_a_longer_limit_goes_on_to_the_figures_of_one_go(study, store, tmp_path):
    job, whole = job_of(study), Store(tmp_path / "whole")
    address = perform(job, store, limit=1e-9).address
    assert perform(job, store, limit=1e-8).status == "done"
    assert (store.cut(address), store.outcome(address)["epochs"]) == (1e-8, 2)
    assert perform(job, store, limit=3600).status == "done"
    perform(job, whole)
    assert store.cut(address) is None
    for name in ("epochs", "best_epoch", "valid", "test"):
        assert store.outcome(address)[name] == whole.outcome(address)[name]


def test_a_kill_between_the_mark_and_the_verdict_loses_neither(study, store):
    job, calls = job_of(study), []

    def killed(config, directory, callbacks):
        calls.append(callbacks)
        if len(calls) == 2:  # the one that judges
            raise SystemExit
        return fit_or_resume(config, directory, callbacks)

    with pytest.raises(SystemExit):
        perform(job, store, limit=1e-9, fit=killed)
    address = store.address(job)
    assert store.status(address) == "partial"
    assert perform(job, store, limit=1e-9).status == "done"
    assert store.cut(address) == 1e-9
    assert store.outcome(address)["epochs"] == 2  # the next call trains before it looks at the clock


def test_a_training_that_is_over_is_not_cut_off(study, store):
    one = Study.model_validate({**study.model_dump(), "base": {**study.base.model_dump(), "training": {"epochs": 1}}})
    done = perform(job_of(one), store, limit=1e-9)
    assert store.cut(done.address) is None


def test_time_counts_over_all_calls():
    class Trainer:
        records = [{"seconds": {"train": 2.0, "valid": 1.0}}] * 3
        is_over = False

    Limit(9.1).on_epoch_end(Trainer, {})
    limit = Limit(9.0)
    with pytest.raises(KeyboardInterrupt):
        limit.on_epoch_end(Trainer, {})
    assert limit.is_reached


@pytest.mark.parametrize("processes", [1, 2])
def test_tables_and_files_mark_what_was_cut_off(study, store, processes):
    jobs = expand(study)
    assert not execute(jobs, store, limit=1e-9, processes=processes)
    found = gather(study, study.datasets, jobs, store)
    grid = accuracy_grid(found, study.datasets[0])
    runs_of = {row[0].text: row[1].text for row in grid.rows}
    assert runs_of["full"] == "1/1†"
    assert runs_of["conversion"] == "1/1"
    assert "†: a training was cut off: full (seed 1) after 1.67e-11 min, 1 of 3 epochs; " in grid.caption
    assert r"1/1$\dagger$" in latex(found)
    frame = found.to_frame()
    assert set(frame[frame.row == "full"].cut_s) == {1e-9}
    assert frame[frame.row == "conversion"].cut_s.isna().all()
    assert set(found.summary().query("row == 'full'").cut) == {1}
    assert "†" not in accuracy_grid(run(study, store, limit=3600), study.datasets[0]).caption


def test_the_command(study, write, text, store):
    path = str(write(text.replace("epochs = 2", "epochs = 3").replace("[1, 2]", "[1]")))
    address = perform(job_of(study), store, limit=1e-9).address

    def call(*options):
        made = CliRunner().invoke(cli, ["bench", path, "--store", str(store.path), *options])
        assert made.exit_code == 0, made.output
        return made.stdout

    assert "4 of 4 runs are left" in call("--dry-run", "--limit", "1h")
    assert "3 of 4 runs are left" in call("--dry-run")
    told = json.loads(call("--limit", "1h", "--json"))
    assert told["runs"] == {"done": 4}
    assert {cell["cut"] for cell in told["cells"]} == {0}
    assert store.cut(address) is None
