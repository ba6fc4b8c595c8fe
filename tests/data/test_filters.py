"""Filters against loops over dictionaries."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data import filters
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.events import from_events, import_events
from mbgraph.data.filters import Filter, filter_dataset, in_window, kept_pairs
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UnknownNameError, UsageError

triples = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.sampled_from(["view", "cart", "buy"])), max_size=60, unique=True
)
rules = st.builds(
    Filter,
    min_user=st.integers(1, 3),
    min_item=st.integers(0, 3),
    of=st.sampled_from(["target", "all"]),
    core=st.booleans(),
)


def too_few(rows, rule):
    """Return the users and items that a look at the rows would leave out."""
    few = []
    for place, least in ((0, rule.min_user), (1, rule.min_item)):
        for node in sorted({row[place] for row in rows}):
            mine = [row for row in rows if row[place] == node and (rule.of == "all" or row[2] == "buy")]
            if len(mine) < least:
                few.append((place, node))
    return few


def naive(rows, rule):
    """One look, or for a core one user or item left out at a time, whichever comes first, until all have enough."""
    if not rule.core:
        few = too_few(rows, rule)
        return [row for row in rows if not any(row[place] == node for place, node in few)]
    rows = list(rows)
    while few := too_few(rows, rule):
        place, node = few[len(rows) % len(few)]  # any order must give the same
        rows = [row for row in rows if row[place] != node]
    return rows


def kept(rows, rule):
    user, item = (np.array([row[place] for row in rows], np.int64) for place in (0, 1))
    counted = np.array([row[2] == "buy" for row in rows], bool) if rule.of == "target" else None
    found = kept_pairs(user, item, counted, 7, 6, rule)
    return [row for row, keep in zip(rows, found.pairs, strict=True) if keep], found.rounds


@given(triples, rules, st.integers(1, 70))
def test_against_a_naive_loop(rows, rule, block):
    wanted = naive(rows, rule)
    before, filters.BLOCK = filters.BLOCK, block
    try:
        if not wanted:
            with pytest.raises(DataError, match=r"the filter \(.*\) leaves nothing; ask for fewer pairs"):
                kept(rows, rule)
            return
        found, rounds = kept(rows, rule)
    finally:
        filters.BLOCK = before
    assert found == wanted
    assert rounds == 1 or rule.core
    if rule.core:
        assert not too_few(found, rule)


def test_a_core_takes_rounds_where_one_look_does_not():
    """A chain: user 0 has one item, whose other user then has too few, and so on."""
    rows = [(0, 0, "buy"), *((u, u + k, "buy") for u in range(1, 4) for k in (-1, 0)), (4, 4, "buy"), (4, 5, "buy")]
    rows += [(5, 4, "buy"), (5, 5, "buy")]
    once, rounds = kept(rows, Filter(min_user=2, min_item=2))
    assert rounds == 1
    assert {row[0] for row in once} == {1, 2, 3, 4, 5}
    core, rounds = kept(rows, Filter(min_user=2, min_item=2, core=True))
    assert {row[0] for row in core} == {4, 5}
    assert rounds == 5  # the fifth finds nothing


def as_log(rows, times):
    frame = pd.DataFrame(rows, columns=["user", "item", "behavior"])
    return frame.assign(time=times)


@given(triples, rules, st.integers(0, 3))
def test_from_events_filters_before_the_split(rows, rule, low):
    """The same as filtering the rows first: the window, then the earliest of each pair, then the counts."""
    rows = [*rows, (0, 0, "buy"), (0, 1, "buy"), (0, 0, "buy")]
    times = [place % 5 for place in range(len(rows))]
    window = Filter(**{**vars(rule), "window": f"{low}.."})
    inside = [(row, time) for row, time in zip(rows, times, strict=True) if time >= low]
    first = {}
    for row, time in inside:
        first[row] = min(time, first.get(row, time))
    wanted = naive(list(first), rule)
    options = {"target": "buy", "time": "time", "split": "loo"}
    if not any(row[2] == "buy" for row in wanted):
        with pytest.raises(DataError, match="leaves nothing|lies in the window|has no edges"):
            from_events(as_log(rows, times), filter=window, **options)
        return
    behaviors = sorted({row[2] for row in rows} - {"buy"} - {row[2] for row in wanted})
    if behaviors:
        with pytest.raises(DataError, match=f"'{behaviors[0]}'.* has no edges|'{behaviors[-1]}'.* has no edges"):
            from_events(as_log(rows, times), filter=window, **options)
        return
    plain = from_events(as_log(wanted, [first[row] for row in wanted]), **options)
    found = from_events(as_log(rows, times), filter=window, **options)
    for ds in (plain, found):
        assert sorted(ds.users.ids.tolist()) == sorted({row[0] for row in wanted})
    cells = {
        name: sorted(zip(ds.users[pairs.user].tolist(), ds.items[pairs.item].tolist(), strict=True))
        for ds in (found,)
        for name, pairs in (*ds.edges.items(), *ds.splits.items())
    }
    assert sorted(cell for name in cells for cell in cells[name]) == sorted(row[:2] for row in wanted)
    act = found.metadata["filters"][0]
    assert act["events_left_out"] == len(rows) - len(inside)
    assert sum(act["pairs_left_out"].values()) == len(first) - len(wanted)
    assert act["users_left_out"] == len({row[0] for row in rows}) - len({row[0] for row in wanted})
    assert act["items_left_out"] == len({row[1] for row in rows}) - len({row[1] for row in wanted})
    assert ("rounds" in act) == rule.core


@given(triples, rules)
def test_a_dataset_is_filtered_as_its_rows_are(rows, rule):
    base = [(0, 0, "view"), (0, 1, "cart"), (0, 0, "buy"), (0, 1, "buy"), (0, 2, "buy")]
    rows = list(dict.fromkeys([*base, *rows]))
    ds = from_events(as_log(rows, range(len(rows))), target="buy", time="time")
    wanted = naive(rows, rule)
    trained = set(zip(ds.users[ds.edges["buy"].user].tolist(), ds.items[ds.edges["buy"].item].tolist(), strict=True))
    left = {row[2] for row in wanted if row[2] != "buy" or row[:2] in trained}  # held-out pairs alone are no behavior
    if left != set(ds.edges):
        with pytest.raises(DataError, match="leaves no pair of|leaves nothing"):
            filter_dataset(ds, rule)
        return
    found = filter_dataset(ds, rule)
    got = [
        (user, item, "buy" if name in ds.splits else name)
        for name, pairs in (*found.edges.items(), *found.splits.items())
        for user, item in zip(found.users[pairs.user].tolist(), found.items[pairs.item].tolist(), strict=True)
    ]
    assert sorted(got) == sorted(wanted)
    assert found.users.ids.tolist() == sorted({row[0] for row in wanted})
    assert found.items.ids.tolist() == sorted({row[1] for row in wanted})
    act = found.metadata["filters"][-1]
    assert act["users_left_out"] == ds.num_users - found.num_users
    assert sum(act["pairs_left_out"].values()) == len(rows) - len(wanted)


def test_row_numbers_stay_their_own_ids_where_they_can():
    users = Vocabulary(size=4, kind="user")
    assert users.subset(np.array([0, 1])).is_identity
    assert users.subset(np.array([1, 3])).ids.tolist() == [1, 3]
    assert Vocabulary(["a", "b"], kind="user").subset(np.array([1])).ids.tolist() == ["b"]


def test_no_filter_changes_nothing(tiny):
    assert filter_dataset(tiny, Filter()) is tiny
    with_all = filter_dataset(tiny, Filter(min_user=1, of="all"))
    assert with_all.users.ids.tolist() == ["u0", "u1", "u2", "u3", "u4"]
    assert tiny.num_users == 6


def test_windows_of_a_dataset(tiny):
    found = filter_dataset(tiny, Filter(window="..830"))
    assert found.counts == {**tiny.counts, "test": 4}
    cut = filter_dataset(tiny, Filter(window="0..600"))
    assert cut.counts == {"view": 9, "cart": 4, "buy": 5, "valid": 1}
    assert cut.metadata["filters"] == [
        {
            "act": "filter",
            "window": "0..600",
            "users_left_out": 1,
            "items_left_out": 1,
            "pairs_left_out": {"valid": 1, "test": 4},
        }
    ]
    bare = tiny.replace(edges={**tiny.edges, "cart": Pairs(tiny.edges["cart"].user, tiny.edges["cart"].item)})
    with pytest.raises(UsageError, match="a window needs times, and cart of 'tiny' has none; leave the window out"):
        filter_dataset(bare, Filter(window="0..1"))
    with pytest.raises(DataError, match=r"filter \(events of 900..\) leaves no pair of 'view'; ask for less"):
        filter_dataset(tiny, Filter(window="900.."))


DAY = 86_400
SECONDS = np.array([1511539200, 1511539200 + DAY - 1, 1511539200 + DAY, 1511539200 + 2 * DAY])  # from 2017-11-24 16:00


@pytest.mark.parametrize("unit", [1, 10**3, 10**9])
@pytest.mark.parametrize(
    ("window", "inside"),
    [
        ("2017-11-24..2017-11-24", [True, False, False, False]),
        ("2017-11-25..2017-11-25", [False, True, True, False]),
        ("2017-11-25..", [False, True, True, True]),
        ("..2017-11-25", [True, True, True, False]),
        ("2017-11-25T00:00+08:00..2017-11-25T23:59:59+08:00", [True, True, False, False]),
    ],
)
def test_windows_of_dates(window, inside, unit):
    assert in_window(SECONDS * unit, window).tolist() == inside


def test_windows_of_numbers_hold_both_ends():
    times = np.array([1, 2, 3, 4])
    assert in_window(times, "2..3").tolist() == [False, True, True, False]
    assert in_window(times, "2.5..").tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Filter(window="2017-11-25"), "cannot read the window '2017-11-25'; write A..B, such as"),
        (lambda: Filter(window=".."), "cannot read the window"),
        (lambda: Filter(window="nan..3"), "cannot read the window"),
        (lambda: Filter(window="soon..later"), "cannot read the window"),
        (lambda: in_window(np.array([1, 2]), "3..1"), "ends of '3..1' do not ascend; write the earlier one first"),
        (lambda: in_window(np.array([1, 2]), "2017-11-25.."), "the times of this data are no dates"),
        (lambda: Filter(min_user=-1), "min_user and min_item are not negative, got -1 and 0"),
        (lambda: Filter(core=True), r"core needs numbers to reach; pass min_user or min_item \(--min-user"),
        (lambda: Filter(of="targets"), "unknown pairs to count 'targets'; did you mean 'target'"),
    ],
)
def test_what_cannot_be_asked_for(make, message):
    with pytest.raises((UsageError, UnknownNameError), match=message):
        make()


def test_a_window_of_a_log_needs_times():
    with pytest.raises(UsageError, match="a window needs times; name the time column"):
        from_events(pd.DataFrame({"user": [1]}), target="buy", filter=Filter(window="1..2"))


def test_in_words():
    assert Filter(min_user=5, min_item=3, of="all").told() == "users with 5 and items with 3 all pairs"
    assert Filter(min_item=3, core=True, window="1..").told() == (
        "events of 1..; items with 3 target pairs, again until nothing changes"
    )
    assert Filter(min_user=2, min_item=2, core=True).told() == "2-core of target pairs"


def test_pieces_of_a_file_are_filtered_as_the_whole(tmp_path):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "user": rng.integers(0, 40, 600),
            "item": rng.integers(0, 30, 600),
            "behavior": rng.choice(["view", "buy"], 600),
            "time": rng.integers(0, 100, 600),
        }
    )
    frame.to_csv(tmp_path / "log.csv", index=False)
    options = {"target": "buy", "time": "time", "filter": Filter(5, 5, core=True, window="3..95")}
    whole = from_events(frame, **options)
    assert 0 < whole.num_users < 40
    for size in (7, 1000):
        ds = import_events(tmp_path / "log.csv", chunk_rows=size, **options)
        assert ds.content_hash() == whole.content_hash()
        assert ds.metadata == whole.metadata


def test_a_filtered_dataset_is_checked(tiny):
    assert isinstance(filter_dataset(tiny, Filter(min_item=2)), MultiBehaviorDataset)
