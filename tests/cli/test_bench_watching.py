"""What is told while a study runs."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from mbgraph.bench.jobs import Cell, Job
from mbgraph.bench.runner import Event
from mbgraph.bench.sources import Recipe
from mbgraph.bench.store import Store
from mbgraph.cli.bench.watching import Watch
from mbgraph.config import FitConfig


@pytest.fixture
def jobs():
    return [
        Job(Cell("demo", row), FitConfig(seed=1, training={"epochs": 5}), Recipe("demo")) for row in ("a", "b", "c")
    ]


def told(console):
    return console.file.getvalue().splitlines()


def test_a_pipe_gets_a_line_per_run(jobs, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    with Watch(console, Store(tmp_path / "store"), jobs) as watch:
        for job, what, error in ((jobs[0], "found", ""), (jobs[1], "failed", "no luck"), (jobs[2], "busy", "")):
            if what != "found":
                watch(Event(job, "started"))
            watch(Event(job, what, error))
        watch(Event(jobs[2], "started"))
        watch(Event(jobs[2], "busy"))
        watch(Event(jobs[2], "started"))
        watch(Event(jobs[2], "done"))
    lines = told(console)
    assert lines[0] == "x demo: b, seed 1: failed: no luck (2/3)"
    assert lines[1] == "o demo: c, seed 1: another suite is at it (2/3)"
    assert lines[2].startswith("+ demo: c, seed 1: done, 0 s (3/3)")
    assert len(lines) == 3  # of what another suite is at one line


def test_remaining_time_comes_from_the_store_and_the_pace(jobs, tmp_path):
    store = Store(tmp_path / "store")
    store.open()
    store.describe("x" * 64, jobs[0])
    store.run("x" * 64).mkdir(parents=True)
    outcome = {"epochs": 5, "seconds_per_epoch": 60.0, "peak_memory_mb": 1.0}
    (store.run("x" * 64) / "test.json").write_text(json.dumps(outcome))
    watch = Watch(Console(file=io.StringIO(), width=200), store, jobs)
    assert watch._remaining() == ", about 15 min left"
    watch(Event(jobs[0], "found"))
    assert watch._remaining() == ", about 10 min left"
    watch.measured, watch.expected = 600.0, 300.0  # twice as slow as measured before
    assert watch._remaining() == ", about 20 min left"
    for job in jobs[:2]:
        watch(Event(job, "started"))
    assert watch._remaining() == ", about 10 min left"  # two at a time


def test_a_terminal_shows_epochs_as_they_end(jobs, tmp_path, monkeypatch):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    store = Store(tmp_path / "store")
    monkeypatch.setattr(Store, "address", lambda self, job, make=True: "run")
    store.run("run").mkdir(parents=True)
    (store.run("run") / "metrics.jsonl").write_text("{}\n{}\n")
    with Watch(console, store, jobs) as watch:
        watch(Event(jobs[0], "started"))
        shown = Console(file=io.StringIO(), width=200)
        shown.print(watch)
    assert "2/5" in shown.file.getvalue()
    assert "0 of 3 runs" in shown.file.getvalue()
