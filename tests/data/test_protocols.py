"""Named protocols against loops over users; nothing is lost, invented or shared between parts."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.events import from_events
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.protocols import apply_protocol
from mbgraph.data.splits import temporal_cuts
from mbgraph.errors import DataError, UnknownNameError, UsageError

USERS, ITEMS = 5, 6


@st.composite
def datasets(draw, timed=True):
    """Small data whose target pairs are spread over train, valid and test; times repeat now and then."""
    cells = draw(
        st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), min_size=3, max_size=25, unique=True)
    )
    times = draw(st.lists(st.integers(0, 9), min_size=len(cells), max_size=len(cells)))
    parts = draw(st.lists(st.sampled_from(["train", "valid", "test"]), min_size=len(cells), max_size=len(cells)))
    parts[0] = "train"
    views = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=9))
    views = list({(user, item): (user, item, moment) for user, item, moment in views}.values())

    def pairs(rows):
        user, item, moment = np.array(rows, np.int64).reshape(-1, 3).T
        return Pairs(user, item, moment if timed else None)

    rows = [(*cell, moment) for cell, moment in zip(cells, times, strict=True)]
    chosen = {name: [row for row, part in zip(rows, parts, strict=True) if part == name] for name in set(parts)}
    return MultiBehaviorDataset(
        "small",
        Vocabulary(size=USERS, kind="user"),
        Vocabulary(size=ITEMS, kind="item"),
        {"view": pairs(views), "buy": pairs(chosen["train"])},
        "buy",
        {name: pairs(chosen[name]) for name in ("valid", "test") if name in chosen},
    )


def cells(pairs):
    moments = [None] * len(pairs) if pairs.time is None else pairs.time.tolist()
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), moments, strict=True))


def pool(ds):
    return [*cells(ds.edges["buy"]), *cells(ds.valid), *cells(ds.test)]


@given(datasets())
def test_loo_is_the_last_pair_of_every_user(ds):
    made = apply_protocol(ds, "loo")
    by_user = defaultdict(list)
    for place, cell in enumerate(pool(ds)):
        by_user[cell[0]].append((cell[2], place, cell))
    valid, test = set(), set()
    for rows in by_user.values():
        ordered = [cell for _, _, cell in sorted(rows)]
        if len(ordered) >= 2:
            test.add(ordered[-1])
        if len(ordered) >= 3:
            valid.add(ordered[-2])
    assert set(cells(made.test)) == test
    assert set(cells(made.valid)) == valid
    assert sorted(pool(made)) == sorted(pool(ds))
    assert made.edges["view"] is ds.edges["view"]


@given(datasets(timed=False), st.integers(0, 5))
def test_without_times_the_order_is_random_by_the_seed(ds, seed):
    first, again = apply_protocol(ds, "loo", rng=seed), apply_protocol(ds, "loo", rng=seed)
    assert cells(first.test) == cells(again.test)
    assert sorted(cell[:2] for cell in pool(first)) == sorted(cell[:2] for cell in pool(ds))
    assert first.metadata["splits"][-1]["seed"] == seed
    assert first.metadata["splits"][-1]["by"] == "random"


@given(datasets(), st.integers(1, 9), st.integers(0, 8))
def test_temporal_cuts_everybody_at_one_moment(ds, last, first):
    protocol = f"temporal:{first},{last}" if first < last else f"temporal:{last}"
    start = first if first < last else last
    everything = pool(ds)
    train = [cell for cell in everything if cell[2] < start]
    test = [cell for cell in everything if cell[2] >= last]
    views = [cell for cell in cells(ds.edges["view"]) if cell[2] < start]
    if not (train and test and views):
        with pytest.raises(DataError):
            apply_protocol(ds, protocol)
        return
    made = apply_protocol(ds, protocol)
    assert cells(made.edges["buy"]) == train
    assert cells(made.test) == test
    assert cells(made.valid) == [cell for cell in everything if start <= cell[2] < last]
    assert cells(made.edges["view"]) == views
    assert made.metadata["splits"][-1]["later_auxiliary"] == len(ds.edges["view"]) - len(views)


@given(datasets())
def test_ratio_counts(ds):
    if all(sum(cell[0] == user for cell in pool(ds)) < 2 for user in range(USERS)):
        with pytest.raises(DataError, match="has no edges"):
            apply_protocol(ds, "ratio:0.5,0.25,0.25")
        return
    made = apply_protocol(ds, "ratio:0.5,0.25,0.25")
    for user in range(USERS):
        n = sum(cell[0] == user for cell in pool(ds))
        train = int(0.5 * n)
        valid = min(int(np.ceil(0.25 * n)), n - train)
        assert [int((part.user == user).sum()) for part in (made.edges["buy"], made.valid, made.test)] == [
            train, valid, n - train - valid
        ]  # fmt: skip


def test_paper_changes_nothing(tiny):
    assert apply_protocol(tiny, "paper") is tiny


def test_dates_find_the_clock_of_the_data():
    day = 1_714_521_600  # 2024-05-01
    for unit in (1, 10**3, 10**6, 10**9):
        assert temporal_cuts(["2024-05-01"], np.array([day * unit, day * unit + 5])) == [day * unit]
    assert temporal_cuts(["2024-05-01T02:00:00+02:00"], np.array([day])) == [day]
    with pytest.raises(UsageError, match="the times of this data are no dates"):
        temporal_cuts(["2024-05-01"], np.array([3, 4]))


def test_logs_are_cut_the_same_way():
    import pandas as pd

    log = pd.DataFrame(
        {
            "user": [1, 1, 2, 2],
            "item": [1, 2, 1, 2],
            "behavior": ["buy"] * 4,
            "time": pd.to_datetime(["2024-04-01", "2024-05-02", "2024-04-30", "2024-05-01"]),
        }
    )
    ds = from_events(log, time="time", target="buy", split="temporal:2024-05-01")
    assert sorted(zip(ds.test.user.tolist(), ds.test.item.tolist(), strict=True)) == [(0, 1), (1, 1)]
    assert ds.counts == {"buy": 2, "test": 2}


def test_errors_name_the_remedy(tiny):
    with pytest.raises(UnknownNameError, match="unknown protocol 'papr'; did you mean 'paper'"):
        apply_protocol(tiny, "papr")
    with pytest.raises(UsageError, match="write it as temporal:2024-05-01"):
        apply_protocol(tiny, "temporal:")
    with pytest.raises(UsageError, match="do not ascend; give the one for validation first"):
        apply_protocol(tiny, "temporal:700,500")
    with pytest.raises(UsageError, match="cannot read the cut 'May'"):
        apply_protocol(tiny, "temporal:May")
    with pytest.raises(DataError, match=r"leaves no test pair \(times run from 400 to 830\); move the cut"):
        apply_protocol(tiny, "temporal:9000")
    untimed = tiny.replace(edges={name: Pairs(part.user, part.item) for name, part in tiny.edges.items()})
    with pytest.raises(UsageError, match="needs times"):
        apply_protocol(untimed, "temporal:500")
