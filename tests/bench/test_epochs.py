"""The look at every epoch of a training: its figures are those of the run, and its risks those of a loop by hand."""

import csv
import math
import runpy
import sys
from pathlib import Path

import pytest

from mbgraph import run as runs
from mbgraph.config import FitConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "epochs.py"


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def watched(small_folder, tmp_path, monkeypatch):
    words = [small_folder, "--epochs", 4, "--every", 4, "--seed", 3, "-o", tmp_path]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return read(tmp_path / "epochs.csv"), read(tmp_path / "epochs_summary.csv")


def test_the_chosen_epoch_is_the_one_that_a_fit_keeps(watched, small_folder, tmp_path):
    epochs, (summary,) = watched
    config = FitConfig(dataset=str(small_folder), variant="official", seed=3, training={"epochs": 4})
    told = runs.fit(config, tmp_path / "run")
    assert int(summary["chosen epoch"]) == told["best_epoch"]
    for name in ("HR@10", "NDCG@10"):
        assert float(summary[f"chosen {name}"]) == pytest.approx(told["test"][name], abs=1e-6)
    assert [int(row["epoch"]) for row in epochs] == [1, 2, 3, 4]
    assert float(summary["best HR@10"]) == max(float(row["test HR@10"]) for row in epochs)
    gain = float(summary["best HR@10"]) / float(summary["chosen HR@10"]) - 1
    assert float(summary["gain"]) == pytest.approx(gain, abs=1e-4)


def test_a_padded_row_counts_ln_2(watched, small):
    epochs, (summary,) = watched
    for row in (epochs[0], epochs[3]):
        for behavior in small.behaviors:
            lacking = 1 - len(set(small.edges[behavior].user.tolist())) / small.num_users
            padded = float(row[f"padded {behavior}"])
            assert padded == pytest.approx(lacking, abs=1e-6)
            mixed = padded * math.log(2) + (1 - padded) * float(row[f"real risk {behavior}"])
            assert float(row[f"risk {behavior}"]) == pytest.approx(mixed, rel=1e-4)
            assert summary[f"first risk {behavior}"] == epochs[0][f"risk {behavior}"]
            assert summary[f"last real risk {behavior}"] == epochs[3][f"real risk {behavior}"]
    assert any(float(epochs[0][f"padded {behavior}"]) > 0 for behavior in small.behaviors)
    assert not epochs[1][f"risk {small.target}"]


@pytest.mark.parametrize(("valid", "chosen"), [([0.0, 0.2, 0.2], 2), ([None, None, None], 3)])
def test_an_epoch_without_a_hit_is_not_the_chosen_one(valid, chosen):
    summary = runpy.run_path(str(SCRIPT))["summary"]
    looked = {"padded buy": 0.0, "risk buy": 0.5, "real risk buy": 0.5}
    rows = [
        {"epoch": epoch, "valid HR@10": value, "test HR@10": 0.1 * epoch, "test NDCG@10": 0.05, **looked}
        for epoch, value in enumerate(valid, 1)
    ]
    told = summary(rows)
    assert (told["chosen epoch"], told["best epoch"]) == (chosen, 3)
