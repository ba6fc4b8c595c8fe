"""What is measured on a card, on the CPU: the ways of a step, their numbers, and random graphs."""

import csv
import json

import pytest
import torch
from click.testing import CliRunner

from mbgraph import _kernels
from mbgraph._kernels import Plain
from mbgraph.bench import card
from mbgraph.bench.speed import Settings
from mbgraph.cli.main import cli
from mbgraph.errors import RunError

SETTINGS = Settings(repeats=1)


def test_every_way_is_a_row_of_the_same_training(monkeypatch):
    monkeypatch.setattr(card, "_WARM", 1)
    told = []
    rows = list(card.measure_card("demo", "cpu", SETTINGS, told.append))
    assert told == ["demo: auto", "demo: triton", "demo: triton, recorded"]
    assert [(row["backend"], row["recorded"]) for row in rows] == [("auto", False), ("triton", False), ("triton", True)]
    reasons = [row["not recorded because"] for row in rows]
    assert reasons == ["nobody asked for it"] * 2 + ["there are no graphs of kernels on cpu"]
    assert len({row["loss"] for row in rows}) == 1
    assert all(row["ms per step"] > 0 and row["s per epoch"] > 0 and row["full ranking, s"] > 0 for row in rows)
    assert all(row["kernel ms"] is None and row["peak MiB"] is None and row["replayed"] == 0 for row in rows)


def test_a_random_graph_is_read_as_a_matrix(monkeypatch):
    seen = []

    class Seen(Plain):
        def forward(self, matrix, *arguments):
            seen.append((matrix.num_users, matrix.num_items, matrix.count, len(matrix.columns)))
            super().forward(matrix, *arguments)

    monkeypatch.setattr(_kernels, "block_kernels", lambda device: Seen())
    row = card.measure_growth(3000, 200, 100, "cpu", repeats=1, width=8)
    assert (row["pairs"], row["users"], row["items"], row["behaviors"]) == (3000, 200, 100, 3)
    assert row["ms per step"] > 0
    assert set(seen) == {(200, 100, 3, 6000)}
    assert len(seen) == 2 * 3, "two layers in the first step, the warm one and the timed one"


def test_a_graph_that_does_not_fit_is_one_line(monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(card, "propagate_each", full)
    monkeypatch.setattr(card, "device_name", lambda device: "a small card")
    with pytest.raises(RunError, match="300 pairs does not fit on a small card; measure a smaller one"):
        card.measure_growth(300, 20, 10, "cpu")


@pytest.fixture
def on_card(monkeypatch):
    """A card that measures nothing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(card, "device_name", lambda device: "Card X")
    row = {"dataset": "shop", "backend": "auto", "recorded": False, "ms per step": 1.25}
    monkeypatch.setattr(card, "measure_card", lambda name, device, *rest: iter([{**row, "dataset": name}]))

    def growth(pairs, users, items, device):
        if pairs > 100_000_000:
            raise RunError("it does not fit", "measure a smaller one")
        return {"pairs": pairs, "ms per step": 2.5}

    monkeypatch.setattr(card, "measure_growth", growth)


def test_the_command_writes_the_card_s_name_beside_every_row(on_card, tmp_path):
    made = CliRunner().invoke(cli, ["bench", "speed", "shop", "--device", "cuda", "-o", str(tmp_path)])
    assert made.exit_code == 0, made.output
    assert "warning: it does not fit" in made.stderr
    rows = list(csv.DictReader((tmp_path / "speed_card.csv").open(encoding="utf-8")))
    assert [(row["dataset"], row["device"], row["ms per step"]) for row in rows] == [("shop", "Card X", "1.25")]
    grown = list(csv.DictReader((tmp_path / "speed_card_growth.csv").open(encoding="utf-8")))
    assert [row["pairs"] for row in grown] == ["30000000", "100000000"]


def test_the_command_prints_or_gives_json(on_card):
    made = CliRunner().invoke(cli, ["bench", "speed", "--device", "cuda", "--quick", "--json"])
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert found["machine"]["device"] == "Card X"
    assert [row["dataset"] for row in found["card"]] == ["demo"]
    assert [row["pairs"] for row in found["card_growth"]] == [30_000_000]
    shown = CliRunner().invoke(cli, ["bench", "speed", "--device", "cuda", "--part", "datasets"])
    assert "Card X" in shown.output


def test_without_a_card_it_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = CliRunner().invoke(cli, ["bench", "speed", "--device", "cuda"])
    assert made.exit_code != 0
    assert "no CUDA device is available" in made.output
