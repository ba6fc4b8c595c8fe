import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import write_npz
from mbgraph.data.interactions import Pairs, Vocabulary


def run(*arguments):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def test_json_contract():
    result = run("--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["users"], answer["items"]) == (2_000, 1_000)
    assert answer["counts"] == {"view": 40_000, "cart": 12_000, "buy": 8_000, "valid": 2_000, "test": 2_000}
    assert (answer["bar"], answer["dt"]) == ({"view": 0.55, "cart": 0.35}, 0.35)
    assert answer["leakage"]["overlap"] == {"train/valid": 0, "train/test": 0, "valid/test": 0}
    assert answer["leakage"]["valid_equals_test"] is False
    assert 0.6 < answer["leakage"]["visible_share"]["test"]["any"] < 0.7
    assert answer["degrees"]["buy"]["user"]["min"] >= 1


def test_tables_on_screen():
    result = run()
    assert result.exit_code == 0, result.output
    assert "data: demo (synthetic)" in result.stderr
    for words in (
        "target 'buy'",
        "40,000",
        "2.0000%",
        "BAR view",
        "0.5500",
        "Leakage",
        "valid and test share 0",
    ):
        assert words in result.stdout


def test_leaks_are_named(tmp_path):
    def pairs(*cells):
        return Pairs(*np.array(cells, np.int64).T)

    held_out = pairs((0, 1), (2, 2))
    leaky = MultiBehaviorDataset(
        "leaky",
        Vocabulary(size=4),
        Vocabulary(size=4),
        {"view": pairs((0, 0), (0, 1), (1, 1)), "buy": pairs((0, 0), (1, 1))},
        "buy",
        {"valid": held_out, "test": held_out},
    )
    write_npz(leaky, tmp_path / "leaky")
    result = run(tmp_path / "leaky")
    assert result.exit_code == 0, result.output
    for words in (
        "valid and test share 2 pairs",
        "valid and test are the same pairs",
        "test: 1 of 2 pairs (50.0%) visible in an auxiliary behavior: view 1 (50.0%)",
        "test: 1 pair with an item that has no train buy edge",
        "1 user with held-out pairs but no train buy edge",
        "1 user without a buy pair in any split",
        "every buy edge is also a view edge",
        "no train edge at all: 2 users and 2 items",
    ):
        assert words in result.stdout


def test_unknown_dataset_is_one_line():
    result = run("demmo")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1


REAL = os.environ.get("MBGRAPH_DATA")


@pytest.mark.realdata
@pytest.mark.skipif(not REAL or not (Path(REAL) / "beibei").is_dir(), reason="beibei is not in MBGRAPH_DATA")
def test_beibei_prints_table_1():
    result = run("beibei")
    for value in ("0.9756", "0.9731", "0.0244"):
        assert value in result.stdout
