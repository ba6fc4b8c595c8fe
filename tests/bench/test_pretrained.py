"""MB-CGCN from trained tables: what is trained on the first behavior alone is what it starts from."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

import mbgraph as mb
from mbgraph.bench.report import read_rows

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "pretrained.py"


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_row_for_trained_and_for_random_tables(small_folder, tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    for pretrain in (2, 0):
        call(monkeypatch, small_folder, "--pretrain", pretrain, "--epochs", 2, "--seed", 1, "--threads", 1, "-o", out)
    trained, random = read_rows(out)
    assert (trained["tables"], random["tables"]) == ("after 2 epochs on view", "random")
    assert trained["epochs"] == random["epochs"] == "2"
    assert trained["command"].endswith("--pretrain 2 --epochs 2 --seed 1")
    assert trained["valid HR@10"] != random["valid HR@10"]


def test_the_tables_know_the_first_behavior_only(small):
    made = runpy.run_path(str(SCRIPT))["trained_on_first"](small, 2, 3, 5)
    others = small.replace(edges={**small.edges, "buy": small.edges["cart"]}, splits={})
    again = runpy.run_path(str(SCRIPT))["trained_on_first"](others, 2, 3, 5)
    model = mb.models.LightGCN(small.graph, "view", rng=5, num_layers=2)
    for one, other, start in zip(made, again, model.tables, strict=True):
        assert torch.equal(one, other)
        assert one.shape == start.shape
        with pytest.raises(AssertionError):
            torch.testing.assert_close(one, start)
