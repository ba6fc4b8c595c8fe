"""Two runs that differ in a penalty, side by side: their own records, in the epochs that were diagnosed."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from mbgraph import run as runs
from mbgraph.bench.report import read_rows
from mbgraph.config import FitConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "penalty.py"


def test_a_row_for_every_diagnosed_epoch(small_folder, tmp_path, monkeypatch):
    shared = {
        "dataset": str(small_folder),
        "variant": "official",
        "seed": 1,
        "training": {"epochs": 4, "diagnose_every": 2},
    }
    without = [{"name": "rex", "weight": 0.0}]
    runs.fit(FitConfig(**shared, regularizers=without), tmp_path / "without")
    runs.fit(FitConfig(**shared, regularizers=[*without, {"name": "irmv1"}]), tmp_path / "with")
    words = [SCRIPT, tmp_path / "without", tmp_path / "with", "irmv1", "-o", tmp_path / "penalty.csv"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = read_rows(tmp_path / "penalty.csv")
    assert [row["epoch"] for row in rows] == ["1", "3"]
    alone, beside = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("without", "with")
    )
    for row, epoch in zip(rows, (0, 2), strict=True):
        told = {
            "main without": alone[epoch]["terms"]["main"],
            "main with": beside[epoch]["terms"]["main"],
            "valid HR@10 without": alone[epoch]["valid"]["HR@10"],
            "valid HR@10 with": beside[epoch]["valid"]["HR@10"],
            "penalty": beside[epoch]["terms"]["irmv1"],
            "gradient of penalty": beside[epoch]["gradient_norms"]["irmv1"],
        }
        for name, value in told.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6), name
    assert rows[1]["main with"] != rows[1]["main without"]
