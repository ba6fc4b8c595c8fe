"""The benchmark of the two-stage model says what the model says, and ranks no test pairs that nobody asked for."""

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from mbgraph import evaluate
from mbgraph.data.splits import merge_split
from mbgraph.models import TwoStage

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "twostage.py"


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("row", "options"),
    [("default", {}), ("mlp", {"head": "mlp"}), ("mlp of 2 more labels", {"head": "mlp", "head_labels": 2})],
)
def test_a_row_is_what_the_model_says(small, small_folder, tmp_path, monkeypatch, row, options):
    run(monkeypatch, small_folder, "--no-ablation", "--head-labels", 2, "--test", row, "-o", tmp_path)
    model = TwoStage(small.graph, small.target, behaviors=small.behaviors, rng=0, **options)
    told = model.learn(small)
    own, other = (
        next(each for each in read(tmp_path / "twostage.csv") if each["protocol"] == name) for name in ("P1", "P2")
    )
    for name in ("HR@10", "NDCG@10"):
        assert float(own[f"labels {name}"]) == pytest.approx(told["cross_fitted"][name], abs=1e-4)
        for group, word in (("all", ""), ("visited", "visited "), ("unvisited", "unvisited ")):
            found = evaluate(model, small, k=(10,)).groups[group]["metrics"][name]
            assert float(own[f"test {word}{name}"]) == pytest.approx(found, abs=1e-4)
        new = evaluate(model, small, mask="all-behaviors", k=(10,)).groups["unvisited"]["metrics"][name]
        assert float(own[f"test discovery {name}"]) == pytest.approx(new, abs=1e-4)
    merged = merge_split(small, "valid")
    later = evaluate(model.scorer(merged.graph), merged, k=(10,)).metrics["HR@10"]
    assert float(other["test HR@10"]) == pytest.approx(later, abs=1e-4)


def test_the_row_that_labels_choose_is_ranked(small_folder, tmp_path, monkeypatch):
    run(monkeypatch, small_folder, "--test", "best", "--seeds", 3, "-o", tmp_path)
    labels, tested = read(tmp_path / "twostage_labels.csv"), read(tmp_path / "twostage.csv")
    candidates = [each for each in labels if "without" not in each["evidence"] and "alone" not in each["evidence"]]
    best = max(candidates, key=lambda each: float(each["labels NDCG@10"]))
    assert {each["evidence"] for each in tested} == {best["evidence"]}
    assert not any(name.startswith("test") for name in labels[0])
    assert {f"without {kind}" for kind in ("patterns", "counts", "paths", "kernel", "user")} <= {
        each["evidence"] for each in labels
    }
    assert all(str(tmp_path) not in each["command"] and "--seeds 3" in each["command"] for each in tested)
    assert np.isfinite([float(each["labels loss"]) for each in labels]).all()


def test_noise_is_in_the_data(small_folder, tmp_path, monkeypatch):
    for noise in ("0.0", "0.5"):
        run(
            monkeypatch,
            small_folder,
            "--no-ablation",
            "--no-mlp",
            "--test",
            "default",
            "--noise",
            noise,
            "-o",
            tmp_path,
        )
    clean, noisy = (next(r for r in read(tmp_path / "twostage.csv") if r["noise"] == noise) for noise in ("0.0", "0.5"))
    assert clean["labels loss"] < noisy["labels loss"]
