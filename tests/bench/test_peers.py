"""The driver of the comparison with RecBole; RecBole itself is not needed."""

import importlib.util
import sys

import pytest

from mbgraph.errors import UsageError
from mbgraph.files import shipped


@pytest.fixture
def peers(monkeypatch):
    path = shipped("benchmarks") / "speed" / "peers.py"
    spec = importlib.util.spec_from_file_location("mbgraph_peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_peer_reads_the_pairs_we_train_on(peers, tiny, tmp_path):
    peers.write_target(tiny, tmp_path, "tiny")
    for part, pairs in (("train", tiny.edges[tiny.target]), ("valid", tiny.valid), ("test", tiny.test)):
        header, *lines = (tmp_path / "tiny" / f"tiny.{part}.inter").read_text(encoding="utf-8").splitlines()
        assert header == "user_id:token\titem_id:token"
        expected = list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))
        assert [tuple(map(int, line.split("\t"))) for line in lines] == expected


def test_an_environment_that_is_none_is_told_how_to_become_one(peers, tmp_path):
    with pytest.raises(UsageError, match=r"does not start: No such file.*pip install recbole==1.2.1"):
        peers.run_peer(str(tmp_path / "python"), tmp_path, "tiny", 1, 1, 1)


def test_an_environment_without_recbole_is_told_what_to_install(peers, tmp_path):
    if importlib.util.find_spec("recbole") is not None:
        pytest.skip("RecBole is installed here")
    with pytest.raises(UsageError, match="has no RecBole; pip install recbole==1.2.1"):
        peers.run_peer(sys.executable, tmp_path, "tiny", 1, 1, 1)


def fake_peer(edges):
    def run(python, folder, name, threads, epochs, evaluations):
        assert (folder / name / f"{name}.train.inter").is_file()
        return {
            "epochs": [1.0, 3.0],
            "evaluations": [5.0],
            "train_edges": edges,
            "users": 5,
            "items": 4,
            "test": {"hit@10": 0.5},
            "versions": {"recbole": "1.2.1", "torch": "2.13.0", "numpy": "1.26.4"},
        }

    return run


def test_rows_hold_medians_of_both(peers, small, monkeypatch):
    edges = len(small.edges[small.target])
    monkeypatch.setattr(peers, "run_peer", fake_peer(edges))
    epoch, ranking = peers.compare(small, "python", 1, turns=2)
    assert (epoch["RecBole"], ranking["RecBole"]) == (2.0, 5.0)
    assert (epoch["repeats"], ranking["repeats"], epoch["edges"]) == (4, 2, edges)
    rounded = 0.00005 / epoch["ours"]  # the row shows four decimals of a time that may be a few milliseconds
    assert epoch["ratio"] == pytest.approx(2.0 / epoch["ours"], rel=0.01 + rounded)
    assert (epoch["users ours"], epoch["users RecBole"]) == (small.num_users, 5)


def test_another_number_of_edges_is_no_comparison(peers, small, monkeypatch):
    edges = len(small.edges[small.target])
    monkeypatch.setattr(peers, "run_peer", fake_peer(edges - 1))
    with pytest.raises(peers.RunError, match=f"RecBole trains on {edges - 1} edges, we on {edges}"):
        peers.compare(small, "python", 1, turns=1)
