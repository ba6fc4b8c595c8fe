"""The demo, shortened: models and anchors, two tables, and the order of things that the data was made for."""

import json

import pytest
from click.testing import CliRunner

from mbgraph.cli.main import cli
from mbgraph.demo import SHOWN


def demo(out, epochs=None):
    """Return what ``mbgraph demo --json`` prints, with all of its epochs or with few."""
    with pytest.MonkeyPatch.context() as patch:
        if epochs is not None:
            shown = {name: dict(chosen) for name, chosen in SHOWN.items()}
            for name in ("rmbrec", "lightgcn", "lightgcn-union"):
                shown[name]["training"] = {"epochs": epochs}
            patch.setattr("mbgraph.demo.SHOWN", shown)
        done = CliRunner().invoke(cli, ["demo", "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return demo(tmp_path_factory.mktemp("demo") / "runs", epochs=12)


def test_every_model_is_reported_for_every_group(result):
    assert set(result["models"]) == {"rmbrec", "lightgcn", "lightgcn-union", "conversion", "popularity"}
    for groups in result["models"].values():
        assert set(groups) == {"all", "visited", "unvisited"}
        assert groups["visited"]["share"] + groups["unvisited"]["share"] == pytest.approx(1)


def check_order(result, learning):
    """``learning``: how many times as good as popularity the target's own graph must be."""
    ndcg = {name: groups["all"]["NDCG@10"] for name, groups in result["models"].items()}
    assert ndcg["rmbrec"] > 1.2 * ndcg["lightgcn"]
    assert ndcg["lightgcn"] > learning * ndcg["popularity"]
    # the training-free anchor re-surfaces: best on visited pairs, nothing on the others
    visited = {name: groups["visited"]["HR@10"] for name, groups in result["models"].items()}
    assert max(visited, key=visited.get) == "conversion"
    assert result["models"]["conversion"]["unvisited"]["HR@10"] < result["models"]["rmbrec"]["unvisited"]["HR@10"]


def test_learning_beats_popularity_and_auxiliaries_beat_none(result):
    check_order(result, 1.2)


@pytest.mark.slow
def test_they_do_so_by_far_at_the_end_of_training(tmp_path):
    check_order(demo(tmp_path / "runs"), 2)


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
