import math
import re
from fractions import Fraction
from time import tzset

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.splits import (
    assign_loo,
    assign_ratio,
    assign_temporal,
    hold_out,
    merge_split,
    not_later,
    parse_protocol,
    split_pairs,
    temporal_cuts,
)
from mbgraph.errors import DataError, UnknownNameError, UsageError

USERS, ITEMS = 5, 8
CELLS = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), min_size=1, unique=True)


def to_pairs(cells, times=None):
    users, items = np.array(cells, np.int64).reshape(-1, 2).T
    return Pairs(users, items, None if times is None else np.array(times))


def cells_of(pairs):
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


@st.composite
def timed(draw):
    cells = draw(CELLS)
    return cells, draw(st.lists(st.integers(0, 5), min_size=len(cells), max_size=len(cells)))


@given(timed())
def test_leave_one_out_against_loops(made):
    cells, times = made
    part = assign_loo(np.array([user for user, _ in cells]), np.array(times))
    for user in range(USERS):
        mine = sorted((place for place in range(len(cells)) if cells[place][0] == user), key=lambda at: times[at])
        wanted = {1: [0], 2: [0, 2]}.get(len(mine), [0] * (len(mine) - 2) + [1, 2])[: len(mine)]
        assert part[mine].tolist() == wanted


@given(timed(), st.sampled_from([(0.7, 0.2, 0.1), (0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (0.9, 0.1, 0.0), (1.0, 0.0, 0.0)]))
def test_ratio_against_loops(made, shares):
    cells, times = made
    part = assign_ratio(np.array([user for user, _ in cells]), np.array(times), shares)
    for user in range(USERS):
        mine = sorted((place for place in range(len(cells)) if cells[place][0] == user), key=lambda at: times[at])
        train = math.floor(shares[0] * len(mine) + 1e-9)
        valid = min(math.ceil(shares[1] * len(mine) - 1e-9), len(mine) - train)
        if shares[2] == 0:
            valid = len(mine) - train
        assert part[mine].tolist() == [0] * train + [1] * valid + [2] * (len(mine) - train - valid)


@pytest.mark.parametrize(
    ("n", "wanted"), [(1, (0, 1, 0)), (2, (1, 1, 0)), (3, (2, 1, 0)), (4, (2, 1, 1)), (10, (7, 2, 1))]
)
def test_ratio_rounds_like_the_published_tmall(n, wanted):
    part = assign_ratio(np.zeros(n, np.int64), np.arange(n), (0.7, 0.2, 0.1))
    assert tuple(np.bincount(part, minlength=3)) == wanted


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 1000))
@example(29, 31, 100)  # .29 x 100 is 28.999999999999996
@example(55, 7, 100)  # .07 x 100 is 7.000000000000001
def test_ratio_counts_as_exact_fractions_do(train, valid, n):
    valid = min(valid, 99 - train)
    part = assign_ratio(np.zeros(n, np.int64), np.arange(n), (train / 100, valid / 100, (100 - train - valid) / 100))
    in_train = math.floor(Fraction(train, 100) * n)
    in_valid = min(math.ceil(Fraction(valid, 100) * n), n - in_train)
    assert np.bincount(part, minlength=3).tolist() == [in_train, in_valid, n - in_train - in_valid]


def test_ratio_of_a_hundred_pairs_by_its_text():
    train, held, _ = split_pairs(to_pairs([(0, item) for item in range(100)]), "ratio:.29,.31,.40")
    assert (len(train), len(held["valid"]), len(held["test"])) == (29, 31, 40)


@pytest.mark.parametrize("protocol", ["loo", "random", "ratio:0.5,0.25,0.25"])
@given(cells=CELLS, seed=st.integers(0, 3), shuffle=st.randoms())
def test_random_splits_depend_on_the_set_only(protocol, cells, seed, shuffle):
    other = list(cells)
    shuffle.shuffle(other)
    train, held, record = split_pairs(to_pairs(cells), protocol, rng=seed)
    again, held_again, _ = split_pairs(to_pairs(other), protocol, rng=seed)
    assert set(cells_of(train)) == set(cells_of(again))
    assert {name: set(cells_of(part)) for name, part in held.items()} == {
        name: set(cells_of(part)) for name, part in held_again.items()
    }
    assert record["by"] == "random"
    assert record["seed"] == seed
    assert sorted(cells) == sorted(cells_of(train) + [cell for part in held.values() for cell in cells_of(part)])


def test_random_ignores_times_and_loo_reads_them():
    pairs = to_pairs([(0, item) for item in range(8)], range(8))
    train, held, record = split_pairs(pairs, "auto")
    assert held["test"].item.tolist() == [7]
    assert held["valid"].item.tolist() == [6]
    assert train.time.tolist() == [0, 1, 2, 3, 4, 5]
    assert record == {"act": "split", "protocol": "loo", "by": "time", "ties": "rows", "users_with_ties": 0}
    seen = {split_pairs(pairs, "random", rng=seed)[1]["test"].item[0] for seed in range(30)}
    assert len(seen) > 4
    assert split_pairs(pairs, "none")[1] == {}
    assert split_pairs(pairs, "random")[2] == {"act": "split", "protocol": "random", "by": "random", "seed": 0}


def test_given_parts():
    pairs = to_pairs([(0, 0), (0, 1), (1, 0)])
    train, held, record = split_pairs(pairs, "given", parts=np.array([2, 0, 0]))
    assert cells_of(held["test"]) == [(0, 0)]
    assert "valid" not in held
    assert len(train) == 2
    assert record["by"] == "given"
    with pytest.raises(UsageError, match="'given' and parts belong together"):
        split_pairs(pairs, "given")
    with pytest.raises(UsageError, match="'given' and parts belong together"):
        split_pairs(pairs, "loo", parts=np.zeros(3, np.int64))


@given(timed(), timed())
def test_not_later_against_loops(made, held):
    cells, times = made
    held_cells, held_times = held
    half = len(held_cells) // 2
    parts = [to_pairs(held_cells[:half], held_times[:half]), to_pairs(held_cells[half:], held_times[half:])]
    keep = not_later(to_pairs(cells, times), parts, USERS)
    for (user, _), time, kept in zip(cells, times, keep.tolist(), strict=True):
        limits = [limit for (other, _), limit in zip(held_cells, held_times, strict=True) if other == user]
        assert kept == (not limits or time <= min(limits))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("lou", UnknownNameError, "unknown split protocol 'lou'; did you mean 'loo'?"),
        ("loo:2", UsageError, "split protocol 'loo' takes no shares; write it as loo"),
        ("ratio", UsageError, "cannot read split 'ratio'; write it as ratio:0.7,0.2,0.1"),
        ("ratio:0.7,0.2", UsageError, "three shares that add up to 1"),
        ("ratio:0.7,0.2,0.2", UsageError, "three shares that add up to 1"),
        ("ratio:a,b,c", UsageError, "cannot read split 'ratio:a,b,c'"),
        ("ratio:0,0.5,0.5", UsageError, "cannot read split"),
        ("ratio:nan,0.5,0.5", UsageError, "cannot read split"),
        ("ratio:0.9,0.2,-0.1", UsageError, "cannot read split"),
        ("ratio:0.5,0.25,0.2500015", UsageError, "cannot read split"),
        (
            "temporal",
            UsageError,
            "cannot read split 'temporal'; write it as temporal:2024-05-01, or temporal:VALID,TEST",
        ),
        ("temporal:1,", UsageError, "cannot read split"),
        ("temporal:1,2,3", UsageError, "cannot read split"),
    ],
)
def test_unreadable_protocols(text, error, message):
    with pytest.raises(error, match=message):
        parse_protocol(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", ("none", ())),
        ("ratio:.7,.2,.1", ("ratio", (0.7, 0.2, 0.1))),
        ("ratio:1,0,0", ("ratio", (1.0, 0.0, 0.0))),
        ("ratio:0.5,0.25,0.2500008", ("ratio", (0.5, 0.25, 0.2500008))),  # shares that somebody rounded
        ("temporal:2024-05-01", ("temporal", ("2024-05-01",))),
        ("temporal:1, 2.5", ("temporal", ("1", "2.5"))),
    ],
)
def test_readable_protocols(text, wanted):
    assert parse_protocol(text) == wanted


DAY = 1_714_521_600  # 2024-05-01, in seconds


@pytest.fixture
def far_from_greenwich(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    tzset()
    yield
    monkeypatch.undo()
    tzset()


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_dates_are_moments_of_greenwich_in_the_clock_of_the_times(far_from_greenwich, unit):
    times = np.array([5, DAY * unit, DAY * unit + 7])
    assert temporal_cuts(["2024-05-01"], times) == [DAY * unit]
    assert temporal_cuts(["2024-05-01T02:00:00+01:00", "2024-05-02"], times) == [
        (DAY + 3600) * unit,
        (DAY + 86400) * unit,
    ]


@pytest.mark.parametrize(
    ("median", "unit"),
    [(10**8, 1), (7 * 10**10, 1), (10**11, 10**3), (10**14, 10**6), (10**17, 10**9), (9 * 10**19, 10**9)],
)
def test_the_clock_is_told_by_the_size_of_its_times(median, unit):
    assert temporal_cuts(["2024-05-01"], np.array([float(median)])) == [DAY * unit]


@pytest.mark.parametrize(("times", "median"), [([], "0"), ([6 * 10**7], "6e+07"), ([10.0**20], "1e+20")])
def test_times_that_are_no_dates(times, median):
    with pytest.raises(UsageError, match=re.escape(f"no dates (their median is {median}); give a number")):
        temporal_cuts(["2024-05-01"], np.array(times))


def test_numbers_are_cuts_as_they_are():
    assert temporal_cuts(["5", "7.5"], np.array([])) == [5.0, 7.5]
    for cuts in (["5", "5"], ["7", "5"]):
        with pytest.raises(UsageError, match="the cuts .*5 do not ascend; give the one for validation first"):
            temporal_cuts(cuts, np.array([]))
    with pytest.raises(UsageError, match="cannot read the cut 'May'; write a number, or a date as 2024-05-01"):
        temporal_cuts(["May"], np.array([]))


def test_moments_cut_by_hand():
    times = np.array([9, 2, 3, 6, 7, 3, 7])
    assert assign_temporal(times, [7]).tolist() == [2, 0, 0, 0, 2, 0, 2]
    assert assign_temporal(times, [3, 7]).tolist() == [2, 0, 1, 1, 2, 1, 2]
    train, held, record = split_pairs(to_pairs([(0, item) for item in range(7)], times), "temporal:3,7")
    assert [part.item.tolist() for part in (train, held["valid"], held["test"])] == [[1], [2, 3, 5], [0, 4, 6]]
    told = {"act": "split", "protocol": "temporal:3,7", "by": "time"}
    assert record == {**told, "ties": "rows", "users_with_ties": 0}


def test_moments_that_leave_nothing():
    pairs = to_pairs([(0, 0), (0, 1)], [3, 5])
    with pytest.raises(DataError, match=r"'temporal:3' leaves no train pair \(times run from 3 to 5\); move the cut"):
        split_pairs(pairs, "temporal:3")
    with pytest.raises(DataError, match=r"'temporal:6' leaves no test pair \(times run from 3 to 5\); move the cut"):
        split_pairs(pairs, "temporal:6")
    with pytest.raises(UsageError, match="split 'temporal:4' needs times; name the time column, or use another"):
        split_pairs(to_pairs([(0, 0), (0, 1)]), "temporal:4")


def toy(buys, splits=None, times=None):
    return MultiBehaviorDataset(
        "toy",
        Vocabulary(size=USERS),
        Vocabulary(size=ITEMS),
        {"view": to_pairs([(0, 0)]), "buy": to_pairs(buys, times)},
        "buy",
        splits or {},
    )


@given(CELLS, st.integers(1, 3), st.integers(0, 2), st.sampled_from(["valid", "test"]))
def test_hold_out_takes_what_it_says(cells, n, min_train, split):
    ds = toy(cells)
    degree = ds.csr("buy").degrees()
    able = degree >= n + min_train
    if not able.any():
        with pytest.raises(DataError, match=f"no user of 'toy' has {n + min_train} train pairs of 'buy'"):
            hold_out(ds, n=n, split=split, min_train=min_train)
        return
    if int(np.where(able, degree - n, degree).sum()) == 0:
        return  # nothing would be left to train on, which the dataset refuses
    held = hold_out(ds, n=n, split=split, min_train=min_train, rng=3)
    assert held.csr(split).degrees().tolist() == np.where(able, n, 0).tolist()
    assert sorted(cells_of(held.edges["buy"]) + cells_of(held.splits[split])) == sorted(cells)
    assert hold_out(ds, n=n, split=split, min_train=min_train, rng=3).content_hash() == held.content_hash()
    assert merge_split(held, split).content_hash() == ds.content_hash()
    record = {
        "act": "hold_out",
        "split": split,
        "n": n,
        "min_train": min_train,
        "pairs": n * int(able.sum()),
        "seed": 3,
    }
    assert held.metadata["splits"] == [record]
    assert "splits" not in ds.metadata


def test_hold_out_differs_by_seed_and_takes_generators():
    ds = toy([(user, item) for user in range(USERS) for item in range(ITEMS)])
    drawn = {hold_out(ds, rng=seed).content_hash() for seed in range(5)}
    assert len(drawn) == 5
    assert hold_out(ds).metadata["splits"][0] == hold_out(ds, n=1, min_train=1, rng=0).metadata["splits"][0]
    assert hold_out(toy([(0, 0), (0, 1), (1, 0)])).valid.user.tolist() == [0]  # one pair stays, and u1 has no other
    free = hold_out(ds, rng=np.random.default_rng(1))
    assert "seed" not in free.metadata["splits"][0]


def test_merge_keeps_order_and_times(tiny):
    merged = merge_split(tiny, "valid")
    assert merged.edges["buy"].user.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert merged.edges["buy"].time.tolist() == [400, 410, 420, 430, 440, 600, 610]
    assert set(merged.splits) == {"test"}
    assert merged.metadata["splits"] == [{"act": "merge_split", "split": "valid", "pairs": 2}]
    assert len(tiny.valid) == 2


def test_merge_says_that_times_are_dropped():
    merged = merge_split(toy([(0, 0), (1, 1)], {"test": to_pairs([(2, 2)])}, [5, 6]), "test")
    assert merged.edges["buy"].time is None
    assert merged.metadata["splits"][0]["times_dropped"] == 2


def test_history_grows(tiny):
    again = hold_out(merge_split(tiny, "valid"), rng=1)
    assert [record["act"] for record in again.metadata["splits"]] == ["merge_split", "hold_out"]


def test_bad_requests(tiny):
    with pytest.raises(UsageError, match="'tiny' already has valid pairs; merge them first"):
        hold_out(tiny)
    with pytest.raises(UnknownNameError, match=r"unknown split 'tset'; did you mean 'test'?"):
        hold_out(tiny, split="tset")
    with pytest.raises(UsageError, match="n must be positive"):
        hold_out(merge_split(tiny, "valid"), n=0)
    with pytest.raises(UsageError, match="min_train not negative, got 1 and -1"):
        hold_out(merge_split(tiny, "valid"), min_train=-1)
    with pytest.raises(UnknownNameError, match=r"unknown split 'vlid'; did you mean 'valid'?"):
        merge_split(tiny, "vlid")
    with pytest.raises(UsageError, match="'tiny' has no valid pairs; its splits: test"):
        merge_split(merge_split(tiny, "valid"), "valid")
    for here, there in ((None, None), ([1], None), (None, [1])):
        with pytest.raises(UsageError, match="a cutoff needs times"):
            not_later(to_pairs([(0, 0)], here), [to_pairs([(0, 1)], there)], USERS)
    shared = tiny.replace(splits={"valid": tiny.test, "test": tiny.test})
    with pytest.raises(DataError, match="4 test pairs of 'tiny' are also train pairs of 'buy'"):
        merge_split(shared, "valid")
