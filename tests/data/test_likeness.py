"""What makes splits unlike, by hand and against a loop."""

import numpy as np
import pytest

from mbgraph.data.interactions import Pairs
from mbgraph.data.likeness import SplitStructure, split_structure, unlike_test


def test_structure_by_hand(tiny):
    # u0 i1 is visited, u1 i3 is not; i1 and i3 are bought once each
    assert split_structure(tiny, "valid") == SplitStructure(visited=0.5, popularity=1.0)
    # of u0 i2, u2 i3, u2 i0, u3 i1 only u2 i3 is visited; their items have 1, 1, 2, 1 train buys
    assert split_structure(tiny, "test") == SplitStructure(visited=0.25, popularity=1.0)


def cells(pairs):
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


def touched(ds):
    return {cell for behavior in ds.auxiliary for cell in cells(ds.edges[behavior])}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_structure_is_that_of_a_loop(small, split):
    known, pairs = touched(small), cells(small.splits[split])
    buys = [sum(item == other for other in small.edges["buy"].item) for _, item in pairs]
    found = split_structure(small, split)
    assert found.visited == pytest.approx(np.mean([pair in known for pair in pairs]))
    assert found.popularity == np.median(buys)


def test_one_behavior_has_no_visited_pairs(small):
    bare = small.replace(edges={"buy": small.edges["buy"]})
    assert split_structure(bare, "test").visited == 0.0


def test_alike_and_missing_splits_are_no_news(small):
    assert unlike_test(small) is None
    assert unlike_test(small.replace(splits={"test": small.test})) is None
    assert unlike_test(small.replace(splits={"valid": small.valid})) is None


def picked(pairs, rows):
    return Pairs(pairs.user[rows], pairs.item[rows])


@pytest.mark.parametrize(("visited", "told"), [(6, False), (4, False), (7, True), (3, True)])
def test_visited_shares_more_than_ten_points_apart(small, visited, told):
    known = touched(small)
    is_visited = {name: np.array([cell in known for cell in cells(small.splits[name])]) for name in ("valid", "test")}

    def split(name, count):
        rows = np.r_[np.flatnonzero(is_visited[name])[:count], np.flatnonzero(~is_visited[name])[: 10 - count]]
        return picked(small.splits[name], rows)

    line = unlike_test(small.replace(splits={"valid": split("valid", visited), "test": split("test", 5)}))
    assert (line is not None and f"{visited}0% of its pairs are visited, 50% of test's" in line) == told


def test_median_popularities_more_than_twice_apart(small):
    buys = np.bincount(small.edges["buy"].item, minlength=small.num_items)
    rare = picked(small.test, buys[small.test.item] <= np.median(buys[small.test.item]) / 3)
    line = unlike_test(small.replace(splits={"valid": small.valid, "test": rare}))
    assert f"its median item has {np.median(buys[small.valid.item]):,.0f} train buy users" in line
    assert f"test's {np.median(buys[rare.item]):,.0f}" in line
