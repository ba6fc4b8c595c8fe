import os
import time
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mbgraph.data.alignment import alignment, describe, leakage
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.synthetic import demo

USERS, ITEMS = 6, 5
cells = st.sets(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=USERS * ITEMS)


def as_pairs(cells, rng=None):
    rows = np.array(sorted(cells), np.int64).reshape(-1, 2)
    if rng is not None:
        rows = rng.permutation(rows)
    return Pairs(rows[:, 0], rows[:, 1])


def dataset(view, cart, buy, **splits):
    edges = {"view": view, "cart": cart, "buy": buy}
    rng = np.random.default_rng(0)
    return MultiBehaviorDataset(
        "toy",
        Vocabulary(size=USERS),
        Vocabulary(size=ITEMS),
        {name: as_pairs(cells, rng) for name, cells in edges.items() if cells},
        "buy",
        {name: as_pairs(cells, rng) for name, cells in splits.items()},
    )


@settings(deadline=None, max_examples=50)
@given(view=cells, cart=cells, buy=cells.filter(bool), valid=cells, test=cells)
def test_against_sets(view, cart, buy, valid, test):
    valid, test = valid - buy, test - buy  # the dataset refuses train pairs; valid and test may share some
    ds = dataset(view, cart, buy, valid=valid, test=test)
    found, leaks = alignment(ds), leakage(ds)
    auxiliary = {name: cells for name, cells in (("view", view), ("cart", cart)) if cells}
    for target, bar, dt in (
        (buy | valid | test, found.bar, found.dt),
        (buy, found.train_bar, found.train_dt),
    ):
        assert bar == {name: len(cells & target) / len(target) for name, cells in auxiliary.items()}
        assert dt == pytest.approx(len(target - set().union(*auxiliary.values())) / len(target))
    assert leaks.overlap == {"train/valid": 0, "train/test": 0, "valid/test": len(valid & test)}
    assert leaks.valid_equals_test == bool(valid and valid == test)
    for split, held_out in (("valid", valid), ("test", test)):
        wanted = {name: len(cells & held_out) for name, cells in auxiliary.items()}
        wanted["any"] = len(held_out & set().union(*auxiliary.values()))
        assert leaks.visible[split] == wanted
        assert leaks.visible_share[split]["any"] == wanted["any"] / max(len(held_out), 1)
        assert leaks.unseen_items[split] == sum(item not in {i for _, i in buy} for _, item in held_out)
    trained, judged = {u for u, _ in buy}, {u for u, _ in valid | test}
    assert leaks.users_in_no_split == len(set(range(USERS)) - trained - judged)
    assert leaks.users_without_train == len(judged - trained)


@settings(deadline=None, max_examples=30)
@given(view=cells, cart=cells, buy=cells.filter(bool), valid=cells, test=cells)
@example(view={(0, 0)}, cart={(0, 0)}, buy={(0, 0), (1, 1)}, valid={(2, 2)}, test={(3, 3), (4, 4)})
def test_description_against_loops(view, cart, buy, valid, test):
    valid, test = valid - buy, test - buy - valid
    ds = dataset(view, cart, buy, valid=valid, test=test)
    facts = describe(ds)
    behaviors = {name: c for name, c in (("view", view), ("cart", cart), ("buy", buy)) if c}
    assert (facts["users"], facts["items"], facts["counts"]) == (USERS, ITEMS, ds.counts)
    assert facts["target_pairs"] == len(buy) + len(valid) + len(test)
    assert facts["interactions"] == facts["target_pairs"] + len(view) + len(cart)
    for name, c in behaviors.items():
        assert facts["density"][name] == len(c) / (USERS * ITEMS)
        for side, kind, size in ((0, "user", USERS), (1, "item", ITEMS)):
            degree = [sum(cell[side] == row for cell in c) for row in range(size)]
            quantiles = dict(
                zip(("25%", "median", "75%", "95%"), np.quantile(degree, (0.25, 0.5, 0.75, 0.95)), strict=True)
            )
            wanted = {"min": min(degree), **quantiles, "max": max(degree), "mean": len(c) / size}
            assert facts["degrees"][name][kind] == pytest.approx({**wanted, "isolated": degree.count(0)})
    nested = [[a, b] for a in behaviors for b in behaviors if a != b and behaviors[a] <= behaviors[b]]
    assert sorted(facts["nested"]) == sorted(nested)
    everything = view | cart | buy
    assert facts["isolated"] == {
        "user": USERS - len({u for u, _ in everything}),
        "item": ITEMS - len({i for _, i in everything}),
    }


def test_one_pair_in_both_splits():
    leaks = leakage(dataset(set(), set(), {(0, 0)}, valid={(1, 1)}, test={(1, 1)}))
    assert leaks.valid_equals_test
    assert leaks.visible_share == {"valid": {"any": 0.0}, "test": {"any": 0.0}}
    assert leakage(dataset({(1, 1)}, set(), {(0, 0)}, test={(1, 1)})).visible_share == {
        "test": {"view": 1.0, "any": 1.0}
    }


def test_what_was_found_stays_as_it_is():
    ds = dataset({(1, 1)}, set(), {(0, 0)}, test={(1, 1)})
    for found in (alignment(ds), leakage(ds)):
        with pytest.raises(FrozenInstanceError):
            setattr(found, fields(found)[0].name, None)


def test_nothing_is_changed_and_splits_may_be_missing():
    ds = demo()
    before = ds.content_hash()
    alignment(ds), leakage(ds), describe(ds)
    assert ds.content_hash() == before
    bare = ds.replace(splits={})
    assert alignment(bare).bar == alignment(bare).train_bar
    assert (leakage(bare).overlap, leakage(bare).valid_equals_test) == ({}, False)


REAL = os.environ.get("MBGRAPH_DATA")


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="MBGRAPH_DATA is not set")
@pytest.mark.parametrize(
    ("name", "bar", "dt"),
    [
        ("beibei", {"view": 0.9756, "cart": 0.9731}, 0.0244),
        ("taobao_noview", {"cart": 0.1509}, None),
        ("tmall_noview", {"collect": 0.1009, "cart": 0.0012}, None),
        ("ijcai15", {"click": 0.8251, "fav": 0.0839, "cart": 0.0011}, 0.1608),
    ],
)
def test_table_1_of_the_paper(name, bar, dt):
    if not (Path(REAL) / name).is_dir():
        pytest.skip(f"{name} is not in $MBGRAPH_DATA")
    from mbgraph.data.catalog import load_dataset

    ds = load_dataset(name)
    start = time.perf_counter()
    found = alignment(ds)
    assert time.perf_counter() - start < 3
    assert {behavior: round(value, 4) for behavior, value in found.bar.items()} == bar
    assert dt is None or round(found.dt, 4) == dt


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="MBGRAPH_DATA is not set")
@pytest.mark.parametrize(("name", "visible"), [("taobao15k", 0.852), ("beibei", 0.657), ("ijcai15", 0.0)])
def test_share_of_test_pairs_already_visited(name, visible):
    if not (Path(REAL) / name).is_dir():
        pytest.skip(f"{name} is not in $MBGRAPH_DATA")
    from mbgraph.data.catalog import load_dataset

    assert round(leakage(load_dataset(name)).visible_share["test"]["any"], 3) == visible
