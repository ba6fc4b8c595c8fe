import csv

import pytest
from click.testing import CliRunner

from mbgraph.bench import speed
from mbgraph.cli.main import cli

PART = speed.Part("training epoch, float32 rows", "shop", "s", 2.0, 16.0, 0.5, "8x", 5)
SHARE = {"dataset": "shop", "rows": "float32", "part": "Adam", "ms": 1.5, "share": 0.02}
GROWTH = {"edges": 3_000, "users": 30, "seconds per step": 0.01}


@pytest.fixture
def measured(monkeypatch):
    """Replace what takes minutes; keep the names that were asked for."""
    asked = []
    monkeypatch.setattr(speed, "measure", lambda name, settings, notify: asked.append((name, settings)) or [PART])
    monkeypatch.setattr(speed, "step_shares", lambda name: [SHARE])
    monkeypatch.setattr(speed, "scaling", lambda sizes, users: asked.append((*sizes, users)) or [GROWTH])
    return asked


def run(*arguments):
    result = CliRunner().invoke(cli, ["bench", "speed", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_speed_writes_a_file_per_table(measured, tmp_path):
    shown = run("shop", "--quick", "-o", str(tmp_path)).stdout
    assert "8" in shown
    rows = list(csv.DictReader((tmp_path / "speed.csv").open(encoding="utf-8")))
    assert rows[0]["ratio"] == "8.0"
    assert rows[0]["times floor"] == "4.0"
    assert rows[0]["threads"].isdigit()
    assert [row["part"] for row in csv.DictReader((tmp_path / "speed_step.csv").open(encoding="utf-8"))] == ["Adam"]
    growth = list(csv.DictReader((tmp_path / "speed_growth.csv").open(encoding="utf-8")))
    assert len(growth) == len(speed.Settings.quick().edges)


def test_parts_can_be_chosen(measured, tmp_path):
    run("shop", "--part", "growth", "--quick")
    assert measured == [(edges, 0) for edges in speed.Settings.quick().edges]
    measured.clear()
    run("--part", "growth")
    assert measured[-1] == (20_000_000, 1_000_000)
    measured.clear()
    run("--part", "datasets")
    assert measured == [("demo", speed.Settings())]
