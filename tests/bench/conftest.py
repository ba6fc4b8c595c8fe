"""A study on a tiny dataset, and a fit that only pretends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mbgraph.bench.sources import facts_of, source
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study

STUDY = """\
title = "Who is best"
question = "Which one?"
datasets = ["{data}"]
seeds = [1, 2]
metrics = ["HR@10", "NDCG@10"]
subject = "full"

[base]
model = "rmbrec"
training = {{ epochs = 2 }}

[[rows]]
name = "full"

[[rows]]
name = "w/o {{behavior}}"
drop_each = "auxiliary"

[[rows]]
name = "conversion"
model = "conversion"
role = "anchor"
"""


@pytest.fixture(autouse=True)
def fresh():
    """Forget datasets that earlier tests read."""
    source.cache_clear()
    facts_of.cache_clear()


@pytest.fixture
def text(small_folder) -> str:
    """The study as a file has it."""
    return STUDY.format(data=small_folder.as_posix())


@pytest.fixture
def write(tmp_path):
    """Write a study and return its path."""

    def written(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.fixture
def study(text, write) -> Study:
    return Study.load(write(text))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


class FakeFit:
    """Writes the outcome of a run without training; keeps what it was asked for."""

    def __init__(self, value=lambda config: 0.5):
        self.value, self.asked = value, []

    def __call__(self, config, directory, callbacks):
        self.asked.append((config, directory, callbacks))
        directory.mkdir(parents=True, exist_ok=True)
        values = {"HR@10": float(self.value(config)), "NDCG@10": float(self.value(config)) / 2}
        group = {"metrics": values, "share": 1.0, "pairs": 10, "users": 10}
        outcome = {
            "epochs": 4,
            "best_epoch": 3,
            "seconds_per_epoch": 2.0,
            "peak_memory_mb": 300.0,
            "interrupted": False,
            "users_evaluated": 10,
            "details": {"test": {"groups": {"all": group, "visited": group, "unvisited": group}}},
        }
        (directory / "config.toml").write_text("")
        (directory / "test.json").write_text(json.dumps(outcome))
        return outcome


@pytest.fixture
def fake() -> FakeFit:
    return FakeFit()
