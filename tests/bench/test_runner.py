"""Running a study: only what is missing, whatever happened before; a failure is a cell, never a lost table."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mbgraph.bench import identity
from mbgraph.bench import perform as performing
from mbgraph.bench.estimates import Estimates
from mbgraph.bench.jobs import expand
from mbgraph.bench.perform import Deadline, perform
from mbgraph.bench.results import gather
from mbgraph.bench.runner import _perform_apart, execute, plan, run
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study
from mbgraph.errors import RunError

REPOSITORY = Path(__file__).resolve().parents[2]


def results_of(study, jobs, store):
    return gather(study, study.datasets, jobs, store)


def test_a_second_call_computes_nothing(study, store, fake):
    jobs = expand(study)
    assert not execute(jobs, store, fit=fake)
    assert len(fake.asked) == len(jobs) == 7
    events = []
    assert not execute(jobs, store, fit=fake, on_event=events.append)
    assert len(fake.asked) == 7
    assert [event.what for event in events] == ["found"] * 7
    assert results_of(study, jobs, store).counts == {"done": 7}


def test_one_run_serves_every_cell_that_is_the_same(text, write, store, fake):
    study = Study.load(write(text + '\n[[rows]]\nname = "again"\nregularizers = [{ name = "rex", weight = 1.0 }]\n'))
    jobs = expand(study)
    execute(jobs, store, fit=fake)
    assert len(fake.asked) == 7
    assert results_of(study, jobs, store).counts == {"done": 9}


def test_a_new_seed_or_option_is_all_that_is_computed(text, write, store, fake):
    execute(expand(Study.load(write(text))), store, fit=fake)
    fake.asked.clear()
    execute(expand(Study.load(write(text.replace("[1, 2]", "[1, 2, 3]")))), store, fit=fake)
    assert [config.seed for config, *_ in fake.asked] == [3, 3, 3]


def test_noise_data_are_what_the_run_is_given(text, write, store, fake):
    study = Study.load(write(text + "\n[noise]\nadd = [0.5]\nseeds = [7]\n"))
    execute([job for job in expand(study, seeds=[1]) if job.cell.row == "full"], store, fit=fake)
    from mbgraph.data.catalog import load_dataset

    clean, noisy = (load_dataset(config.dataset) for config, *_ in fake.asked)
    assert noisy.counts["view"] == 1.5 * clean.counts["view"]
    assert noisy.metadata["perturbation"]["seed"] == 7


def test_a_failed_run_is_a_marked_cell_and_is_tried_again(study, store, fake):
    jobs, events = expand(study), []

    def fit(config, directory, callbacks):
        if config.seed == 2:
            raise ValueError("out of\nluck")
        return fake(config, directory, callbacks)

    assert not execute(jobs, store, fit=fit, on_event=events.append)
    found = results_of(study, jobs, store)
    assert found.counts == {"done": 4, "failed": 3}
    assert found.cells[0].error == "ValueError: out of luck"
    assert found.cells[0].measured("HR@10").n == 1
    assert [event.error for event in events if event.what == "failed"] == ["ValueError: out of luck"] * 3
    frame = found.to_frame()
    assert set(frame[frame.status == "failed"]["error"]) == {"ValueError: out of luck"}
    assert not execute(jobs, store, fit=fake)
    assert results_of(study, jobs, store).counts == {"done": 7}


def test_a_model_that_the_data_do_not_allow_is_a_marked_cell(text, write, store, fake):
    study = Study.load(write(text + '\n[[rows]]\nname = "broken"\nprotocol = "temporal:2100-01-01"\n'))
    jobs = expand(study, seeds=[1])
    execute(jobs, store, fit=fake)
    broken = next(each for each in results_of(study, jobs, store).cells if each.cell.row == "broken")
    assert (broken.runs[0].status, broken.runs[0].address) == ("failed", None)
    assert "2100-01-01" in broken.error


def test_the_budget_ends_between_epochs_and_every_cell_has_a_first(study, store, fake):
    jobs = expand(study)
    assert execute(jobs, store, budget=-1.0, fit=fake)
    assert fake.asked == []

    def fit(config, directory, callbacks):
        if len(fake.asked) == 5:
            raise KeyboardInterrupt
        return fake(config, directory, callbacks)

    assert execute(jobs, store, fit=fit)
    found = results_of(study, jobs, store)
    assert all(each.runs[0].status == "done" for each in found.cells)
    assert found.counts == {"done": 5, "missing": 2}


def test_a_deadline_stops_a_training_after_its_epoch():
    deadline = Deadline(time.time() + 60)
    deadline.on_epoch_end(None, {})
    with pytest.raises(KeyboardInterrupt):
        Deadline(time.time() - 1).on_epoch_end(None, {})


def test_a_training_that_the_budget_stopped_goes_on_to_the_same_figures(text, write, store, tmp_path):
    study = Study.load(write(text.replace("epochs = 2", "epochs = 4")))
    job = expand(study, seeds=[1])[0]
    stopped = perform(job, store, moment=time.time() - 1)
    assert (stopped.status, stopped.interrupted, store.epochs(stopped.address)) == ("stopped", False, 1)
    assert store.status(stopped.address) == "partial"
    assert perform(job, store).status == "done"
    whole = Store(tmp_path / "whole")
    assert perform(job, whole).status == "done"
    first, second = (each.outcome(stopped.address) for each in (store, whole))
    assert first["test"] == second["test"]
    assert first["epochs"] == second["epochs"] == 4


def test_a_run_that_never_said_what_it_is_begins_anew(study, store):
    job = expand(study, seeds=[1])[-1]
    address = store.address(job)
    store.open()
    store.run(address).mkdir(parents=True)
    (store.run(address) / "half").write_text("")
    assert perform(job, store).status == "done"
    assert not (store.run(address) / "half").exists()


def test_a_full_disk_ends_the_suite_in_one_line(study, store, fake):
    def fit(config, directory, callbacks):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"the disk of .* is full; free some space and start again: what is finished"):
        execute(expand(study), store, fit=fit)
    execute(expand(study), store, fit=fake)
    assert results_of(study, expand(study), store).counts == {"done": 7}


def test_two_suites_on_one_store_do_each_run_once(study, store, fake):
    """Both wait for what the other is at, and both end with everything."""
    jobs, asked, held = expand(study), [], threading.Lock()

    def fit(config, directory, callbacks):
        with held:
            asked.append((directory.name, threading.get_ident()))
        time.sleep(0.05)
        return fake(config, directory, callbacks)

    performing.perform(jobs[0], store, fit=fake)  # the data are read before two threads begin
    ended = []
    suites = [
        threading.Thread(target=lambda: ended.append(execute(jobs, Store(store.path), fit=fit))) for _ in range(2)
    ]
    for suite in suites:
        suite.start()
    for suite in suites:
        suite.join(60)
    assert ended == [False, False]
    names = [name for name, _ in asked]
    assert len(names) == len(set(names)) == 6
    assert results_of(study, jobs, store).counts == {"done": 7}
    assert not list((store.path / "locks").glob("*.holder"))


CHILD = """\
import sys
from mbgraph.bench.runner import execute
from mbgraph.bench.jobs import expand
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study
execute(expand(Study.load(sys.argv[1]), seeds=[1])[:1], Store(sys.argv[2]))
"""


def test_kill_9_loses_at_most_the_epoch_at_hand(text, write, store, tmp_path):
    epochs = 120
    path = write(text.replace("epochs = 2", f"epochs = {epochs}, patience = {epochs}"))
    job = expand(Study.load(path), seeds=[1])[0]
    log = store.run(store.address(job)) / "metrics.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(store.path)], env=environment)
    try:
        end = time.time() + 120
        while time.time() < end and child.poll() is None and store.epochs(store.address(job)) < 3:
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    seen = store.epochs(store.address(job))
    assert 3 <= seen < epochs, "the child ended before it could be killed"
    assert store.status(store.address(job)) == "partial"
    kept = json.loads(log.read_text().splitlines()[seen - 1])
    assert perform(job, store).status == "done"  # its lock is stale
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == epochs
    assert records[seen - 1]["terms"] == kept["terms"]
    assert records[seen - 1]["seconds"] == kept["seconds"]  # not trained again
    whole = Store(tmp_path / "whole")
    assert perform(job, whole).status == "done"
    assert whole.outcome(whole.address(job))["test"] == store.outcome(store.address(job))["test"]


POOL = """
import sys
from mbgraph.bench.jobs import expand
from mbgraph.bench.runner import execute
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study

if __name__ == "__main__":
    execute(expand(Study.load(sys.argv[1]), seeds=[1, 2])[:2], Store(sys.argv[2]), processes=2, threads=2)
"""


def test_the_pool_ends_with_the_process_that_hands_out_jobs(text, write, store, tmp_path):
    path = write(text.replace("epochs = 2", "epochs = 5000, patience = 5000"))
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    jobs = expand(Study.load(path), seeds=[1, 2])[:2]
    addresses = [store.address(job) for job in jobs]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(script), str(path), str(store.path)], env=environment)
    try:
        end = time.time() + 120
        while time.time() < end and parent.poll() is None and not all(store.epochs(each) for each in addresses):
            time.sleep(0.05)
        assert all(store.epochs(each) for each in addresses), "the pool did not begin both runs"
    finally:
        parent.kill()
        parent.wait()
    end = time.time() + 60
    free: set[str] = set()
    while time.time() < end and len(free) < 2:
        for each in addresses:
            with store.lock(each) as mine:
                free |= {each} if mine else set()
        time.sleep(0.05)
    assert free == set(addresses), "processes of the pool train on without the one that began them"


@pytest.mark.slow
def test_processes_side_by_side_come_to_the_same(text, write, store, tmp_path):
    study = Study.load(write(text))
    alone = run(study, store, seeds=[1])
    together = run(study, tmp_path / "other", seeds=[1], jobs=2, threads=2)
    assert together.counts == alone.counts == {"done": 4}
    columns = ["row", "metric", "mean"]
    first, second = (each.summary()[columns] for each in (alone, together))
    assert first["row"].tolist() == second["row"].tolist()
    assert first["mean"].tolist() == pytest.approx(second["mean"].tolist(), abs=0.05)


def test_estimates_are_medians_of_what_was_measured(study, store, fake):
    jobs = expand(study)
    assert Estimates(store).of(jobs[0]).seconds is None
    assert Estimates(store).total(jobs) == (0, 7)
    execute(jobs[:1], store, fit=fake)
    known = Estimates(store)
    assert known.of(jobs[1]).seconds == 2 * 2.0  # its two epochs, each as long as those measured
    assert known.of(jobs[1]).memory_mb == 300.0
    assert known.total(jobs) == (6 * 4.0, 1)  # nothing is known of the anchor


def test_plan_names_what_is_missing(data_home):
    made = plan(Study.load("table3"))
    assert made.datasets == ("demo-low", "demo-high")
    assert any(
        note.startswith("taobao is not on disk; get it with: mbgraph data download taobao") for note in made.notes
    )
    assert plan(Study.load("table3"), is_quick=True).datasets == ("demo",)


def test_ctrl_c_between_two_jobs_keeps_what_is_done(study, store, fake):
    def interrupt(event):
        if event.what == "done":
            raise KeyboardInterrupt

    assert execute(expand(study), store, fit=fake, on_event=interrupt)
    assert results_of(study, expand(study), store).counts == {"done": 1, "missing": 6}


def test_files_that_change_meanwhile_do_not_move_the_runs(study, store, fake, monkeypatch):
    """The process computes with what it has loaded, and files its runs under that."""
    jobs = expand(study)

    def fit(config, directory, callbacks):
        monkeypatch.setattr(identity, "_files", lambda names: ())  # as if every file were another now
        return fake(config, directory, callbacks)

    execute(jobs, store, fit=fit)
    assert results_of(study, jobs, store).counts == {"done": 7}
    assert len(fake.asked) == 7


def test_a_process_with_other_source_is_refused(study, store):
    with pytest.raises(RunError, match="the source of mbgraph changed while the suite ran; start again"):
        _perform_apart(expand(study)[0], store, float("inf"), None, 1, None, "other")
