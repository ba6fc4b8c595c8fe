"""The rule of docs/data.md for ids and times at the edge of 64 bits, for every kind of source."""

import json

import numpy as np
import pandas as pd
import pytest

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.events import from_events, import_events
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError


def by_csv(folder, users, times):
    rows = [f"{user},{row},buy,{time}" for row, (user, time) in enumerate(zip(users, times, strict=True))]
    (folder / "log.csv").write_text("\n".join(["user,item,behavior,time", *rows]))
    return import_events(folder / "log.csv", target="buy", time="time", split="none")


def by_json(folder, users, times):
    rows = zip(users, range(len(users)), times, strict=True)
    lines = [json.dumps({"user": user, "item": item, "behavior": "buy", "time": time}) for user, item, time in rows]
    (folder / "log.json").write_text("\n".join(lines))
    return import_events(folder / "log.json", target="buy", time="time", split="none")


def frame(users, times):
    return pd.DataFrame({"user": users, "item": range(len(users)), "behavior": "buy", "time": times})


def by_parquet(folder, users, times):
    frame(users, times).to_parquet(folder / "log.parquet")
    return import_events(folder / "log.parquet", target="buy", time="time", split="none")


def by_frame(folder, users, times):
    return from_events(frame(users, times), target="buy", time="time", split="none")


@pytest.mark.parametrize("read", [by_csv, by_json])
@pytest.mark.parametrize("time", [-(2**63), 2**63, -(2**63) - 1, 2**64, 2**70, 10**400])
def test_times_beyond_64_bits_are_refused(tmp_path, read, time):
    with pytest.raises(DataError, match=r"is no time|of more than 64 bits, which are no times|int too large") as caught:
        read(tmp_path, [1, 2], [time, 5])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [by_parquet, by_frame])
@pytest.mark.parametrize(
    "times",
    [
        np.array([-(2**63), 5]),
        np.array([2**63, 5], np.uint64),
        np.array([np.inf, 5]),
        np.array([np.nan, 5]),
        pd.to_datetime([None, "2024-01-01"]),
        np.array(["9999-01-01", "2024-01-01"], "datetime64[us]"),
    ],
)
def test_times_that_are_none_in_typed_sources(tmp_path, read, times):
    with pytest.raises(DataError, match=r"is no time|missing values|give finite times|beyond the years 1678 to 2262"):
        read(tmp_path, [1, 2], times)


@pytest.mark.parametrize("read", [by_csv, by_json, by_parquet, by_frame])
@pytest.mark.parametrize("time", [-(2**63) + 1, 2**63 - 1, 0])
def test_the_last_times_that_are_some(tmp_path, read, time):
    ds = read(tmp_path, [1, 2], [time, 5])
    assert ds.edges["buy"].time.tolist() == [time, 5]
    assert ds.edges["buy"].time.dtype == np.int64


@pytest.mark.parametrize(
    "times", [np.array([np.nan]), np.array([np.inf]), np.array([-(2**63)]), np.array([2**63], np.uint64)]
)
def test_no_dataset_has_such_times_wherever_it_came_from(times):
    one = Vocabulary(size=1, kind="user")
    pairs = Pairs(np.array([0]), np.array([0]), times)
    with pytest.raises(DataError, match="buy of 'x': .* is no time; give seconds"):
        MultiBehaviorDataset("x", one, one, {"buy": pairs}, "buy")


@pytest.mark.parametrize(
    ("users", "ids"),
    [
        (["1.0", "1"], ["1", "1.0"]),
        (["1e3", "1000"], ["1000", "1e3"]),
        (["+1", "1"], ["+1", "1"]),
        (["007", "7"], ["007", "7"]),
        (["-0", "0"], ["-0", "0"]),
        ([2**63, 2], ["2", "9223372036854775808"]),
        ([-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        (["true", "1"], ["1", "true"]),
    ],
)
def test_ids_of_text_stay_as_they_are_written(tmp_path, users, ids):
    assert by_csv(tmp_path, users, [1, 2]).users.ids.tolist() == ids


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([1.0, 1], "mix float, int"),
        ([2**63, 2], "9223372036854775808 has more than 64 bits"),
        ([1, "1"], "mix int, str"),
        ([1.5, 2.0], r"are no whole numbers \(1.5\)"),
        ([True, False], "are bool, neither integers nor text"),
    ],
)
def test_typed_ids_that_could_fall_together_are_refused(tmp_path, users, message):
    for read in (by_json, by_frame):
        with pytest.raises(DataError, match=message):
            read(tmp_path, pd.Series(users, dtype=object) if read is by_frame else users, [1, 2])


@pytest.mark.parametrize("read", [by_parquet, by_frame])
def test_typed_ids_at_the_edge(tmp_path, read):
    assert read(tmp_path, np.array([1.0, 2.0]), [1, 2]).users.ids.tolist() == [1, 2]
    with pytest.raises(DataError, match="has more than 64 bits; turn all of them into text"):
        read(tmp_path, np.array([2**63, 2], np.uint64), [1, 2])
    with pytest.raises(DataError, match="are no whole numbers"):
        read(tmp_path, np.array([2.0**53, 2.0]), [1, 2])
