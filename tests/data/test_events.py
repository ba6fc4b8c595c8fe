import gzip
import math
import uuid

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.events import from_events
from mbgraph.data.formats.events import read_events
from mbgraph.errors import DataError, UnknownNameError, UsageError

BEHAVIORS = ("view", "cart", "buy")


def log(*rows, columns=("user", "item", "behavior", "time")):
    return pd.DataFrame(list(rows), columns=list(columns)[: len(rows[0])])


SHOP = log(
    ("ann", "tea", "view", 1),
    ("ann", "tea", "buy", 5),
    ("ann", "mug", "buy", 2),
    ("ann", "pot", "buy", 9),
    ("bob", "tea", "buy", 3),
    ("bob", "mug", "view", 4),
    ("bob", "tea", "buy", 1),
    ("cem", "cup", "view", 7),
)


@st.composite
def logs(draw):
    kind = draw(st.sampled_from(["int", "str"]))
    user = st.integers(-3, 3) if kind == "int" else st.sampled_from(["ann", "Bob", "", "é", "007", "7"])
    row = st.tuples(user, st.integers(0, 5), st.sampled_from(BEHAVIORS), st.integers(0, 6))
    return [*draw(st.lists(row, max_size=40)), (3 if kind == "int" else "ann", 2, "buy", 3)]


def ids_of(ds, pairs):
    """Return the pairs in original ids."""
    return list(zip(ds.users[pairs.user].tolist(), ds.items[pairs.item].tolist(), strict=True))


def naive(rows, ratio=None):
    """Dedupe and split with dictionaries: behavior or split -> [(user, item, time)] in the order of the rows."""
    earliest = {}
    for place, (user, item, behavior, time) in enumerate(rows):
        key = (user, item, behavior)
        if key not in earliest or time < earliest[key][0]:
            earliest[key] = (time, place)
    parts = {}
    mine = {}
    for (user, item, behavior), (time, place) in earliest.items():
        if behavior == "buy":
            mine.setdefault(user, []).append((time, place, user, item))
        else:
            parts.setdefault(behavior, []).append((place, user, item, time))
    for pairs in mine.values():
        pairs.sort()
        n = len(pairs)
        if ratio is None:
            train, valid = (n, 0) if n == 1 else (1, 0) if n == 2 else (n - 2, 1)
        else:
            train = math.floor(ratio[0] * n + 1e-9)
            valid = min(math.ceil(ratio[1] * n - 1e-9), n - train)
        for number, (time, place, user, item) in enumerate(pairs):
            part = "buy" if number < train else "valid" if number < train + valid else "test"
            parts.setdefault(part, []).append((place, user, item, time))
    return {part: [pair[1:] for pair in sorted(pairs)] for part, pairs in parts.items()}


def parts_of(ds):
    return {
        name: [(*cell, time) for cell, time in zip(ids_of(ds, pairs), pairs.time.tolist(), strict=True)]
        for name, pairs in (*ds.edges.items(), *ds.splits.items())
    }


@given(logs(), st.sampled_from([None, (0.7, 0.2, 0.1), (0.5, 0.3, 0.2)]))
def test_against_dictionaries(rows, ratio):
    wanted = naive(rows, ratio)
    split = "loo" if ratio is None else "ratio:{},{},{}".format(*ratio)
    if "buy" not in wanted:
        with pytest.raises(DataError, match="target behavior 'buy' of 'events' has no edges"):
            from_events(log(*rows), time="time", target="buy", split=split)
        return
    ds = from_events(log(*rows), time="time", target="buy", split=split)
    assert parts_of(ds) == wanted
    assert ds.users.ids.tolist() == sorted({row[0] for row in rows})
    assert ds.items.ids.tolist() == sorted({row[1] for row in rows})
    facts = ds.metadata["import"]
    assert facts["repeated_events"] == len(rows) - sum(map(len, wanted.values()))
    buyers = {row[0] for row in rows if row[2] == "buy"}
    held = {user for part in ("valid", "test") for user, _, _ in wanted.get(part, [])}
    assert facts["users_in_no_split"] == len({row[0] for row in rows} - buyers)
    assert facts["users_without_held_out"] == len({row[0] for row in rows} - held)


@given(logs(), st.integers(0, 3), st.randoms())
def test_without_times_the_order_of_rows_does_not_matter(rows, seed, shuffle):
    ds = from_events(log(*rows), target="buy", rng=seed)
    other = list(rows)
    shuffle.shuffle(other)
    assert from_events(log(*other), target="buy", rng=seed).content_hash() == ds.content_hash()
    buys = {row[:2] for row in rows if row[2] == "buy"}
    kept = [cell for pairs in (ds.edges["buy"], *ds.splits.values()) for cell in ids_of(ds, pairs)]
    assert sorted(kept) == sorted(buys)
    assert ds.metadata["splits"] == [
        {"act": "split", "protocol": "loo", "by": "random", "seed": seed, "cutoff": "none"}
    ]


def test_by_hand():
    ds = from_events(SHOP, time="time", target="buy", name="shop")
    assert repr(ds) == "MultiBehaviorDataset('shop', 3 users, 4 items, view=3, buy=3, test=1)".replace(
        "buy=3, test=1", "buy=2, valid=1, test=1"
    )
    assert ids_of(ds, ds.test) == [("ann", "pot")]
    assert ids_of(ds, ds.valid) == [("ann", "tea")]
    assert ids_of(ds, ds.edges["buy"]) == [("ann", "mug"), ("bob", "tea")]
    assert ds.edges["buy"].time.tolist() == [2, 1]
    assert ds.metadata["import"] == {
        "events": 8,
        "events_of_other_behaviors": 0,
        "repeated_events": 1,
        "users_in_no_split": 1,
        "users_without_held_out": 2,
    }


def test_users_and_items_without_train_edges_are_nodes():
    ds = from_events(SHOP, time="time", target="buy")
    graph = ds.graph
    assert (graph.num_nodes("user"), graph.num_nodes("item")) == (3, 4)
    pot = int(ds.items.index_of(["pot"])[0])
    assert [int(graph.in_degrees(pot, etype=behavior)) for behavior in ds.behaviors] == [0, 0]


def test_ties_fall_back_to_the_order_of_rows():
    rows = [("u", item, "buy", 7) for item in ("c", "a", "b")]
    ds = from_events(log(*rows), time="time", target="buy")
    assert ids_of(ds, ds.test) == [("u", "b")]
    assert ids_of(ds, ds.valid) == [("u", "a")]


def test_behaviors_choose_and_order():
    frame = log(
        *[("u", item, "view", 1) for item in range(5)], ("u", 1, "cart", 2), ("u", 2, "buy", 3), ("v", 9, "scroll", 1)
    )
    assert from_events(frame, target="buy").behaviors == ("view", "cart", "scroll", "buy")
    ds = from_events(frame, target="buy", behaviors=["buy", "cart"])
    assert ds.behaviors == ("buy", "cart")
    assert ds.metadata["import"]["events_of_other_behaviors"] == 6
    assert (ds.users.ids.tolist(), ds.items.ids.tolist()) == (["u"], [1, 2])


def test_behaviors_may_be_numbers():
    ds = from_events(log(("u", 1, 0), ("u", 2, 3), ("u", 3, 3)), target=3)
    assert (ds.target, ds.behaviors) == ("3", ("0", "3"))


def test_given_split():
    frame = log(
        ("u", 1, "buy", "train"),
        ("u", 2, "buy", "valid"),
        ("u", 3, "buy", "test"),
        ("u", 1, "view", None),
        ("u", 2, "view", "train"),
        ("u", 3, "view", "test"),
        columns=("user", "item", "behavior", "part"),
    )
    for split in ("given", "auto"):
        ds = from_events(frame, target="buy", split=split, split_column="part")
        assert ds.counts == {"view": 2, "buy": 1, "valid": 1, "test": 1}
        assert ids_of(ds, ds.test) == [("u", 3)]
        assert ds.metadata["import"]["held_out_auxiliary"] == 1
        assert ds.metadata["splits"][0]["protocol"] == "given"
    with pytest.raises(UnknownNameError, match=r"unknown split in column 'part': 'trian'; did you mean 'train'?"):
        from_events(frame.replace("train", "trian"), target="buy", split="given", split_column="part")
    with pytest.raises(DataError, match="column 'part' has 1 missing values, the first in row 2; drop or fill"):
        from_events(frame.replace("valid", None), target="buy", split="given", split_column="part")


@given(logs())
def test_cutoff_leaves_out_what_came_later(rows):
    ds = from_events(log(*rows), time="time", target="buy")
    first = {}
    for part in ds.splits:
        for user, _, time in parts_of(ds)[part]:
            first[user] = min(time, first.get(user, time))
    wanted = {
        name: [pair for pair in pairs if pair[2] <= first.get(pair[0], math.inf)] if name in ("view", "cart") else pairs
        for name, pairs in parts_of(ds).items()
    }
    if not all(wanted.values()):
        with pytest.raises(DataError, match="has no edges; leave it out"):
            from_events(log(*rows), time="time", target="buy", cutoff="target")
        return
    cut = from_events(log(*rows), time="time", target="buy", cutoff="target")
    assert parts_of(cut) == wanted
    dropped = sum(map(len, parts_of(ds).values())) - sum(map(len, wanted.values()))
    assert cut.metadata["import"].get("later_auxiliary", 0) == dropped
    assert cut.metadata["splits"][0]["cutoff"] == "target"


UUIDS = [uuid.UUID(int=n) for n in (9, 2)]


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (np.array([30, 4], np.int32), [4, 30]),
        (np.array([30, 4], np.uint64), [4, 30]),
        (pd.array([30, 4], "Int64"), [4, 30]),
        (np.array([30, 4], object), [4, 30]),
        (np.array([30.0, 4.0]), [4, 30]),
        (np.array([30.0, 4.0], object), [4, 30]),
        (["30", "4"], ["30", "4"]),
        (pd.array(["é", "z"], "string"), ["z", "é"]),
        (pd.Categorical(["b", "a"], categories=["z", "b", "a"]), ["a", "b"]),
        (pd.Categorical([30, 4]), [4, 30]),
        (UUIDS, sorted(map(str, UUIDS))),
        ([2**62, -5], [-5, 2**62]),
    ],
)
def test_id_types(values, ids):
    frame = pd.DataFrame({"user": values, "item": [1, 2], "behavior": "buy"})
    ds = from_events(frame, target="buy")
    assert ds.users.ids.tolist() == ids
    wanted = [str(value) if isinstance(ids[0], str) else int(value) for value in values]
    assert ds.users[ds.edges["buy"].user].tolist() == wanted


def test_ids_that_are_row_numbers_need_no_list():
    assert from_events(log((1, 7, "buy"), (0, 8, "buy")), target="buy").users.is_identity
    assert not from_events(log((1, 7, "buy"), (2, 8, "buy")), target="buy").users.is_identity


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([3, 1], np.array([3, 1])),
        (np.array([3, 1], np.int32), np.array([3, 1], np.int32)),
        (pd.array([3, 1], "Int32"), np.array([3, 1])),
        ([2.5, 0.5], np.array([2.5, 0.5])),
        (["2.5", "10"], np.array([2.5, 10.0])),
        (["20", "3"], np.array([20, 3])),
        (["1970-01-01 00:00:02", "1970-01-01"], np.array([2 * 10**9, 0])),
        (["1970-01-01T01:00:00+01:00", "1970-01-01T00:00:01Z"], np.array([0, 10**9])),
        (["1970-01-01 00:00:02 UTC", "1970-01-01 00:00:01 UTC"], np.array([2 * 10**9, 10**9])),
        (pd.to_datetime(["1970-01-03", "1970-01-01"]), np.array([2 * 86_400 * 10**9, 0])),
        (
            pd.to_datetime(["1970-01-01 01:00", "1970-01-01 02:00"]).tz_localize("Europe/Paris"),
            np.array([0, 3600 * 10**9]),
        ),
        ([pd.Timestamp(5), pd.Timestamp(4)], np.array([5, 4])),
    ],
)
def test_times(values, wanted):
    frame = pd.DataFrame({"user": "u", "item": [1, 2], "behavior": "buy", "time": values})
    ds = from_events(frame, time="time", target="buy", split="none")
    assert ds.edges["buy"].time.tolist() == wanted.tolist()
    assert ds.edges["buy"].time.dtype == wanted.dtype


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.inf], "column 'time' is inf in row 2; give finite times"),
        ([True, False], "column 'time' is true or false, not a time"),
        (
            ["2024-01-31", "yesterday"],
            "column 'time' is 'yesterday' in row 2, which is no time; write numbers, or dates as",
        ),
        (["31/01/2024", "01/02/2024"], "column 'time' is '31/01/2024' in row 1, which is no time"),
        ([1, None], "column 'time' has 1 missing values, the first in row 2"),
        (pd.to_timedelta([1, 2]), r"column 'time'.* no"),
    ],
)
def test_bad_times(values, message):
    frame = pd.DataFrame({"user": "u", "item": [1, 2], "behavior": "buy", "time": values})
    with pytest.raises(DataError, match=message):
        from_events(frame, time="time", target="buy")


def with_column(name, values):
    return SHOP.assign(**{name: pd.Series([*values, *SHOP[name][len(values) :]], dtype=object)})


@pytest.mark.parametrize(
    ("frame", "options", "error", "message"),
    [
        (SHOP, {"user": "usr"}, UnknownNameError, r"unknown column 'usr'; did you mean 'user'\?"),
        (SHOP, {"time": "item"}, UsageError, "column 'item' is named for two purposes"),
        (pd.concat([SHOP, SHOP[["user"]]], axis=1), {}, DataError, "has 2 columns called 'user'; rename all but one"),
        (SHOP.iloc[:0], {}, DataError, "the event log is empty"),
        (SHOP.to_dict("list"), {}, UsageError, "an event log is a pandas DataFrame, not dict"),
        (
            with_column("user", ["ann", None, None]),
            {},
            DataError,
            "column 'user' has 2 missing values, the first in row 2; drop or fill those rows",
        ),
        (
            with_column("behavior", [np.nan]),
            {},
            DataError,
            "column 'behavior' has 1 missing values, the first in row 1",
        ),
        (
            SHOP.assign(item=1.5),
            {},
            DataError,
            r"ids in column 'item' are no whole numbers \(1.5\); turn all of them into",
        ),
        (with_column("item", [3]), {}, DataError, "ids in column 'item' mix int, str; turn all of them into text"),
        (SHOP.assign(item=[1, True] * 4).astype({"item": object}), {}, DataError, "'item' mix bool, int"),
        (SHOP.assign(item=[1] * 7 + [True], user=1).astype(object), {}, DataError, "'item' mix bool, int"),
        (SHOP.assign(item=True), {}, DataError, "ids in column 'item' are bool, neither integers nor text"),
        (SHOP.assign(item=[[1]] * 8), {}, DataError, "ids in column 'item' are list"),
        (SHOP.assign(item=pd.Timestamp(0)), {}, DataError, "ids in column 'item' are datetime64"),
        (SHOP, {"target": "by"}, UnknownNameError, r"unknown target behavior 'by'; did you mean 'buy'\?"),
        (SHOP, {"behaviors": ["buy", "veiw"]}, UnknownNameError, r"\(it has no events\) 'veiw'; did you mean 'view'\?"),
        (SHOP, {"behaviors": ["view"]}, UsageError, "the target 'buy' is not among the behaviors to keep; add it"),
        (SHOP, {"behaviors": ["buy", "buy"]}, UsageError, "behavior 'buy' is listed twice"),
        (SHOP, {"split": "lou"}, UnknownNameError, r"unknown split protocol 'lou'; did you mean 'loo'\?"),
        (SHOP, {"split": "given"}, UsageError, "needs the column that says train, valid or test; pass split_column"),
        (SHOP, {"split": "loo", "split_column": "time"}, UsageError, "split 'loo' does not read split_column 'time'"),
        (
            SHOP,
            {"cutoff": "traget", "time": "time"},
            UnknownNameError,
            "unknown cutoff 'traget'; did you mean 'target'",
        ),
        (SHOP, {"cutoff": "target"}, UsageError, "cutoff 'target' needs times; name the time column"),
        (SHOP, {"split": "ratio:0.01,0.5,0.49"}, DataError, "target behavior 'buy' of 'events' has no edges"),
        (SHOP.replace("view", "valid"), {}, DataError, "a behavior cannot be called 'valid', which is a split"),
        (SHOP, {"rng": -1}, UsageError, "rng must be a non-negative integer"),
    ],
)
def test_bad_logs(frame, options, error, message):
    with pytest.raises(error, match=message) as caught:
        from_events(frame, **{"target": "buy", **options})
    assert "\n" not in str(caught.value)


def test_the_frame_is_not_changed():
    frame = SHOP.copy()
    from_events(frame, time="time", target="buy")
    pd.testing.assert_frame_equal(frame, SHOP)


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("pack", [False, True])
def test_csv(tmp_path, separator, pack):
    path = tmp_path / "events"
    text = SHOP.to_csv(index=False, sep=separator).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if pack else text)
    frame = read_events(path)
    assert frame.to_dict("list") == SHOP.to_dict("list")
    assert frame["time"].dtype == np.int64
    assert list(read_events(path, ["time", "user"]).columns) == ["time", "user"]


def test_csv_keeps_ids_apart(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(
        '\ufeffuser , item,big,quoted\n007,1.0,9223372036854775808,"a,\nb"\n7,1,9223372036854775807,c\n',
        encoding="utf-8",
    )
    frame = read_events(path)
    assert frame.to_dict("list") == {
        "user": ["007", "7"],
        "item": ["1.0", "1"],
        "big": ["9223372036854775808", "9223372036854775807"],
        "quoted": ["a,\nb", "c"],
    }


@pytest.mark.parametrize("missing", ["", "NaN", "NULL", "None", r"\N"])
def test_csv_with_missing_ids(tmp_path, missing):
    path = tmp_path / "events.csv"
    path.write_text(f"user,item,behavior\n1,1,buy\n{missing},2,buy\n3,3,buy\n")
    with pytest.raises(DataError, match="column 'user' has 1 missing values, the first in row 2"):
        from_events(read_events(path), target="buy")


def test_parquet(tmp_path):
    SHOP.set_index("user").to_parquet(tmp_path / "events.bin")
    assert read_events(tmp_path / "events.bin", ["user", "item"]).to_dict("list") == SHOP[["user", "item"]].to_dict(
        "list"
    )
    assert from_events(read_events(tmp_path / "events.bin"), time="time", target="buy").content_hash() == (
        from_events(SHOP, time="time", target="buy").content_hash()
    )


def test_csv_and_frame_give_the_same_dataset(tmp_path):
    SHOP.to_csv(tmp_path / "events.csv", index=False)
    ds = from_events(read_events(tmp_path / "events.csv"), time="time", target="buy")
    assert parts_of(ds) == parts_of(from_events(SHOP, time="time", target="buy"))


PARQUET = pd.DataFrame({"a": range(100)}).to_parquet()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*log: No such file or directory; restore the file or correct the path"),
        (b"", "log is empty; give a CSV with a header"),
        (b"user,item,behavior\n", "log holds no events; give a file with at least one row"),
        (b"a,b\n1,2\n3\n", "cannot read .*Expected 2 columns, got 1"),
        (b"a,b\n\xff\xfe,2\n", "cannot read .*log"),
        (b"a,\0b\n1,2\n", "log is neither text nor Parquet"),
        (b"\nuser,item,behavior\n1,2,buy\n", "the first line of .*log is empty; delete it"),
        (b" \t\r\n1,2,buy\r\n", "the first line of .*log is empty; delete it"),
        (PARQUET[:-20], "cannot read .*log"),
        (PARQUET[:300], "cannot read .*log"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 999, mtime=0)[:-9], "cannot read .*log"),
        (gzip.compress(b"a,b\n" * 9, mtime=0)[:11] + b"\xff" * 9, "cannot read .*log"),
        (b"a,b,a\n1,2,3\n", "log has 2 columns called 'a'; rename all but one"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_events(path)
    assert "\n" not in str(caught.value)


def test_unknown_columns_name_the_nearest_of_all(tmp_path):
    SHOP.to_csv(tmp_path / "events.csv", index=False)
    with pytest.raises(UnknownNameError, match=r"unknown column 'usr'; did you mean 'user'\?"):
        read_events(tmp_path / "events.csv", ["usr", "item"])
