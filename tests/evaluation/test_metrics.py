"""Metrics against a naive loop over ranked lists, and the worked example."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.errors import UsageError
from mbgraph.evaluation.metrics import METRICS, per_user_metrics, usable_cutoffs


def naive(ranked, truth, k):
    """Metrics of one user from the ranked list itself."""
    top = ranked[:k]
    hits = [item in truth for item in top]
    best = min(k, len(truth))
    return {
        f"HR@{k}": float(any(hits)),
        f"NDCG@{k}": sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
        / sum(1 / math.log2(place + 2) for place in range(best)),
        f"Recall@{k}": sum(hits) / len(truth),
        f"Precision@{k}": sum(hits) / k,
        f"MRR@{k}": next((1 / (place + 1) for place, hit in enumerate(hits) if hit), 0.0),
        f"MAP@{k}": sum(sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit) / best,
    }


@given(st.data())
def test_against_ranked_lists(data):
    num_items = data.draw(st.integers(2, 12))
    users = data.draw(st.lists(st.sets(st.integers(0, num_items - 1), min_size=1), min_size=1, max_size=6))
    cutoffs = data.draw(st.lists(st.integers(1, num_items), min_size=1, max_size=3, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    lists = [rng.permutation(num_items).tolist() for _ in users]
    pairs = [(owner, lists[owner].index(item) + 1.0) for owner, truth in enumerate(users) for item in truth]
    rng.shuffle(pairs)
    owner, ranks = np.array(pairs).T
    found = per_user_metrics(ranks, owner.astype(np.int64), len(users), cutoffs)
    assert list(found) == [f"{metric}@{k}" for k in cutoffs for metric in METRICS]
    for row, truth in enumerate(users):
        for k in cutoffs:
            for name, value in naive(lists[row], truth, k).items():
                assert found[name][row] == pytest.approx(value), name


@pytest.mark.parametrize(("rank", "hit", "gain"), [(1, 1, 1.0), (3, 1, 0.5), (10, 1, 1 / math.log2(11)), (11, 0, 0.0)])
def test_one_hit(rank, hit, gain):
    found = per_user_metrics(np.array([float(rank)]), np.array([0]), 1, [10])
    assert found["HR@10"][0] == found["Recall@10"][0] == hit
    assert found["NDCG@10"][0] == pytest.approx(gain)
    assert found["MRR@10"][0] == found["MAP@10"][0] == pytest.approx(hit / rank)


def test_worked_example():
    """Three held-out items, hits at 1 and 3: NDCG@10 = (1 + .5) / (1 + .6309 + .5)."""
    found = per_user_metrics(np.array([40.0, 1.0, 3.0]), np.zeros(3, np.int64), 1, [10])
    assert round(float(found["NDCG@10"][0]), 4) == 0.7039
    assert found["HR@10"][0] == 1
    assert found["Recall@10"][0] == pytest.approx(2 / 3)


def test_half_ranks_count_as_misses_past_the_cut():
    found = per_user_metrics(np.array([10.0, 10.5]), np.array([0, 1]), 2, [10])
    assert found["HR@10"].tolist() == [1.0, 0.0]


def test_nobody_has_values_of_no_length():
    found = per_user_metrics(np.empty(0), np.empty(0, np.int64), 0, [1, 3])
    assert list(found) == [f"{metric}@{k}" for k in (1, 3) for metric in METRICS]
    assert {values.shape for values in found.values()} == {(0,)}


def test_cutoffs_beyond_the_catalogue_are_cut_and_each_stands_once():
    chosen = usable_cutoffs([5, np.int64(1), 20, 5, 10**30], 5)
    assert chosen == (5, 1)
    assert {type(k) for k in chosen} == {int}
    assert usable_cutoffs((10, 20), 100) == (10, 20)


@pytest.mark.parametrize(
    ("cutoffs", "message"),
    [
        ([0], r"a cut-off must be at least 1, got 0; give a list, as k=\(10, 20\)"),
        ([5, -3], "a cut-off must be at least 1, got -3"),
        ([], r"no cut-off K given; give at least one, for example k=\(10, 20\)"),
        (10, "whole numbers, got 10"),
        ([2.7], "whole numbers"),
    ],
)
def test_cutoffs(cutoffs, message):
    with pytest.raises(UsageError, match=message):
        usable_cutoffs(cutoffs, 5)
