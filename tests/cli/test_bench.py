import csv
import json

import pytest
from click.testing import CliRunner

from mbgraph.bench import costs, machine, speed
from mbgraph.cli.main import cli

PART = speed.Part("training epoch, float32 rows", "shop", "s", 2.0, 16.0, 0.5, "8x", 5)
SHARE = {"dataset": "shop", "rows": "float32", "part": "Adam", "ms": 1.5, "share": 0.02}
BANDWIDTH, RATE = 20e9, 90e9


@pytest.fixture
def measured(monkeypatch):
    """Replace what takes minutes and what measures the machine; keep the names that were asked for."""
    asked = []

    def run_apart(shapes, bandwidth, rate):
        assert (bandwidth, rate) == (BANDWIDTH, RATE)  # floors are those of this machine
        asked.extend(shapes)
        return [row(shape) for shape in shapes]

    monkeypatch.setattr(machine, "copy_bandwidth", lambda: BANDWIDTH)
    monkeypatch.setattr(machine, "gemm_rate", lambda: RATE)
    monkeypatch.setattr(speed, "measure", lambda name, settings, notify: asked.append((name, settings)) or [PART])
    monkeypatch.setattr(speed, "step_shares", lambda name: [SHARE])
    monkeypatch.setattr(costs, "run_apart", run_apart)
    return asked


def row(shape):
    """Return what a generated graph might have taken."""
    users, items = shape.config().num_users, shape.config().num_items
    size = round((80 * shape.edges + 3_000 * (users + items)) / 2**20 + 400)
    return {
        "edges": shape.edges,
        "users": users,
        "items": items,
        "block users": shape.block_users,
        "batch": 2048 if shape.batch == "auto" else shape.batch,
        "ms per step": 9.5,
        "peak MiB": size,
    }


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
    quick = speed.Settings.quick()
    assert [int(row["edges"]) for row in growth] == [*quick.edges] + [quick.crowd[0]] * 3
    assert [int(row["batch"]) for row in growth] == [1024] * 4 + [2048] * 2
    memory = list(csv.DictReader((tmp_path / "speed_memory.csv").open(encoding="utf-8")))
    assert len(memory) == 1
    assert float(memory[0]["bytes per edge"]) == pytest.approx(80, rel=0.05)
    varied = list(csv.DictReader((tmp_path / "speed_costs.csv").open(encoding="utf-8")))
    assert [row["varied"] for row in varied] == [name for name, _ in costs.varying(quick)]


def test_parts_can_be_chosen(measured):
    run("shop", "--part", "growth", "--quick")
    assert measured == costs.growing(speed.Settings.quick())
    measured.clear()
    run("--part", "growth")
    assert measured[-1] == costs.Shape(20_000_000, 1_000_000, batch="auto", block_users=1)
    measured.clear()
    run("--part", "datasets")
    assert measured == [("demo", speed.Settings())]
    measured.clear()
    run("--part", "costs")
    assert measured == [shape for _, shape in costs.varying(speed.Settings())]


def test_json_holds_every_table_and_the_machine(measured):
    made = json.loads(run("shop", "--quick", "--json").stdout)
    assert set(made) == {"machine", "parts", "step", "growth", "memory", "costs"}
    assert made["parts"][0]["ours"] == 2.0
    assert made["machine"]["threads"] > 0


def test_tables_show_shares_as_percent_and_counts_with_commas(measured):
    shown = run("shop", "--quick").stdout
    assert "2%" in shown
    assert "1,000,000" in shown
