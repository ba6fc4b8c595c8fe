"""The demo, shortened: models and anchors, two tables, and the order of things that the data was made for."""

import json

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "runs"
    done = CliRunner().invoke(cli, ["demo", "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_model_is_reported_for_every_group(result):
    assert set(result["models"]) == {"rmbrec", "lightgcn", "lightgcn-union", "conversion", "popularity"}
    for groups in result["models"].values():
        assert set(groups) == {"all", "visited", "unvisited"}
        assert groups["visited"]["share"] + groups["unvisited"]["share"] == pytest.approx(1)


def test_learning_beats_popularity_and_auxiliaries_beat_none(result):
    ndcg = {name: groups["all"]["NDCG@10"] for name, groups in result["models"].items()}
    assert ndcg["rmbrec"] > 1.2 * ndcg["lightgcn"] > 2 * ndcg["popularity"]
    # the training-free anchor re-surfaces: best on visited pairs, nothing on the others
    visited = {name: groups["visited"]["HR@10"] for name, groups in result["models"].items()}
    assert max(visited, key=visited.get) == "conversion"
    assert result["models"]["conversion"]["unvisited"]["HR@10"] < result["models"]["rmbrec"]["unvisited"]["HR@10"]


def test_three_users_get_five_items_each(result):
    assert [len(entry["items"]) for entry in result["recommendations"]] == [5, 5, 5]
    assert [entry["user"] for entry in result["recommendations"]] == ["u0001", "u0002", "u0003"]
    assert set(result["runs"]) == set(result["models"])


def test_the_picture_loads_nothing_from_elsewhere(tmp_path):
    from mbgraph.cli.common import make_table
    from mbgraph.cli.demo import _draw

    _draw([make_table("title", ["model", "HR@10"], [["rmbrec", 0.25]])], tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "rmbrec" in text
    assert "@font-face" not in text
    assert "url(http" not in text
