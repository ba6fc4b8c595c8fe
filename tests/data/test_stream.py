import gzip
import string
import uuid

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mbgraph.data import events, log_columns, log_dataset, stream
from mbgraph.data.events import from_events, import_events
from mbgraph.data.formats.events import EventFiles, read_events
from mbgraph.data.interactions import Vocabulary
from mbgraph.errors import DataError, MbgraphError, UsageError

BEHAVIORS = ("view", "cart", "buy")
QUIET = settings(deadline=None, max_examples=50)


def in_pieces(frame, size, **options):
    """Do what `from_events` does with the frame, given to it in pieces."""
    log = stream.EventLog(
        "user",
        "item",
        "behavior",
        options.get("time"),
        options.get("split_column"),
        target="buy",
        behaviors=events._as_set(options.get("behaviors")),
    )
    protocol = "given" if "split_column" in options else "auto"
    return log_dataset.make_dataset(
        log,
        lambda: (stream.Piece(frame.iloc[start : start + size]) for start in range(0, len(frame), size)),
        "buy",
        protocol,
        behaviors=options.get("behaviors"),
        cutoff=options.get("cutoff", "none"),
        rng=3,
    )


def said(make):
    """Return everything that a dataset holds, or the error in its place."""
    try:
        ds = make()
    except MbgraphError as error:
        return type(error), str(error)
    parts = {
        name: (pairs.user.tolist(), pairs.item.tolist(), None if pairs.time is None else pairs.time.tolist())
        for name, pairs in (*ds.edges.items(), *ds.splits.items())
    }
    types = {name: pairs.time.dtype for name, pairs in ds.edges.items() if pairs.time is not None}
    ids = [(v.ids.tolist(), v.ids.dtype.kind, v.is_identity, v.kind) for v in (ds.users, ds.items)]
    return ds.name, ds.target, ids, parts, types, dict(ds.metadata)


IDS = {
    "int": st.integers(-3, 3),
    "row": st.integers(0, 2),
    "large": st.sampled_from([2**63 - 1, -(2**63), 5]),
    "text": st.sampled_from(["ann", "Bob", "", "é", "007", "7", "-1", "z\u0301", "\U0001f600"]),
    "mixed": st.sampled_from([1, "1", True, 1.0, 2, "x"]),
    "float": st.sampled_from([1.0, 2.0, -7.0]),
    "fraction": st.sampled_from([1.0, 2.5, 3.5]),
    "missing": st.sampled_from(["a", "b", "c", None]),
    "too large": st.sampled_from([2**63, 2**64, 1]),
    "uuid": st.sampled_from([uuid.UUID(int=2), uuid.UUID(int=1)]),
    "list": st.sampled_from(["a", (1,)]),
}
TIMES = {
    "int": st.integers(-5, 5),
    "float": st.sampled_from([0.5, 1.5, 2.0]),
    "text": st.sampled_from(["1", "007", "2.5"]),
    "ambiguous": st.sampled_from(["2024", "20240131", "2024-01-31", "2023-05-05 10:00:00 UTC"]),
    "dates": st.sampled_from(["2024-01-31", "2023-05-05T10:00:00+02:00", "1970-01-01"]),
    "wrong": st.sampled_from(["2024-01-31", "yesterday", "5.5", "2024"]),
    "endless": st.sampled_from(["1", "inf", "2"]),
    "huge": st.sampled_from(["1", str(2**63), "2.5", str(2**60 + 1)]),
    "missing": st.sampled_from(["1", None]),
    "stamps": st.sampled_from([pd.Timestamp(5), pd.Timestamp("2024-01-31")]),
}


@st.composite
def frames(draw):
    n = draw(st.integers(1, 25))
    user = draw(st.sampled_from(["int", "row", "text", *IDS]))
    item = draw(st.sampled_from(["int", "text", *IDS]))
    time = draw(st.sampled_from([None, "int", "dates", *TIMES]))
    columns = {
        "user": draw(st.lists(IDS[user], min_size=n, max_size=n)),
        "item": draw(st.lists(IDS[item], min_size=n, max_size=n)),
        "behavior": [*draw(st.lists(st.sampled_from(BEHAVIORS), min_size=n - 1, max_size=n - 1)), "buy"],
        "part": draw(st.lists(st.sampled_from(["train", "train", "test", "valid", None]), min_size=n, max_size=n)),
    }
    if time is not None:
        columns["time"] = draw(st.lists(TIMES[time], min_size=n, max_size=n))
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    for name in ("user", "item", "time"):
        if name in frame and draw(st.booleans()):
            frame[name] = frame[name].infer_objects()
    options = {} if time is None else {"time": "time", "cutoff": draw(st.sampled_from(["none", "target"]))}
    if draw(st.booleans()):
        options["behaviors"] = draw(st.permutations(["buy", *draw(st.sampled_from([[], ["view"], ["cart", "view"]]))]))
    if draw(st.integers(0, 3)) == 0:
        options["split_column"] = "part"
    return frame, options


def mixed(values):
    frame = pd.DataFrame({"user": pd.Series(values, dtype=object), "item": range(len(values)), "behavior": "buy"})
    return frame, {}


def timed(values, kinds="buy", **options):
    frame = pd.DataFrame({"user": 1, "item": range(len(values)), "behavior": kinds, "time": values})
    return frame, {"time": "time", **options}


@QUIET
@given(frames(), st.integers(1, 30))
@example(mixed([1, 1, "a"]), 2)
@example(mixed([1, True]), 1)
@example(mixed([1.0, 1]), 1)
@example(mixed([2**64, 1, 2**66]), 1)
@example(timed(["2024", "2024-01-31", "20240131"]), 1)
@example(timed(["1", "2.5", "7"]), 1)
@example(timed(["2.5", "1"], ["view", "buy"], behaviors=["buy"]), 1)
@example(timed([str(2**60 + 1), "2.5"]), 1)
@example(timed(["1", str(2**63)]), 1)
@example(timed(["inf", "2024-01-31"]), 1)
@example(timed(["1", "2", "2024-01-31", "yesterday"]), 2)
def test_pieces_change_nothing(log, size):
    frame, options = log
    whole = said(lambda: from_events(frame, target="buy", rng=3, **options))
    assert said(lambda: in_pieces(frame, size, **options)) == whole


TEXTS = {
    "integers": st.sampled_from(["1", "-4", "0", "9223372036854775807"]),
    "zeros": st.sampled_from(["1", "2", "3", "4", "007"]),
    "late": st.sampled_from(["1", "2", "3", "4", "5", "1.0", "-0", "9223372036854775808"]),
    "text": st.text(string.printable, min_size=1, max_size=3),
    "quoted": st.sampled_from(['a,"b', "a\nb", "é", " x "]),
    "missing": st.sampled_from(["1", "NULL", ""]),
}


@QUIET
@given(st.data(), st.sampled_from(["csv", "csv.gz", "parquet"]), st.integers(1, 30))
def test_a_file_in_pieces_is_the_frame_that_is_read(tmp_path_factory, data, kind, size):
    n = data.draw(st.integers(1, 25))
    time = data.draw(st.sampled_from(["text", "ambiguous", "wrong", "endless", "huge"]))
    user, item = (data.draw(st.sampled_from(sorted(TEXTS))) for _ in range(2))
    frame = pd.DataFrame(
        {
            "time": data.draw(st.lists(TIMES[time], min_size=n, max_size=n)),
            "user": data.draw(st.lists(TEXTS[user], min_size=n, max_size=n)),
            "item": data.draw(st.lists(TEXTS[item], min_size=n, max_size=n)),
            "behavior": [
                *data.draw(st.lists(st.sampled_from([*BEHAVIORS, "3"]), min_size=n - 1, max_size=n - 1)),
                "buy",
            ],
        }
    )
    path = tmp_path_factory.mktemp("log") / f"events.{kind}"
    if kind == "parquet":
        frame.astype({"behavior": "category"}).to_parquet(path, row_group_size=7)
    else:
        frame.to_csv(path, index=False)
    options = {"time": "time", "target": "buy", "rng": 3}
    if data.draw(st.booleans()):
        options["behaviors"] = ["buy"]
    whole = said(lambda: from_events(read_events(path), **options))
    assert said(lambda: import_events(path, chunk_rows=size, name="events", **options)) == whole


def write(path, rows, header="user,item,behavior"):
    path.write_text(f"{header}\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_behaviors_may_turn_from_numbers_to_text(tmp_path):
    ds = import_events(write(tmp_path / "log.csv", ["1,1,0", "1,2,1", "1,1,buy"]), target="buy", chunk_rows=1)
    assert ds.behaviors == ("0", "1", "buy")


@pytest.mark.parametrize("last", ["007", "x7", "1.0", "-0", "+7"])
def test_ids_are_text_from_the_first_piece_if_the_last_one_needs_it(tmp_path, last):
    path = write(tmp_path / "log.csv", [f"{user},1,buy" for user in (7, 10, 9, 7, last)])
    ds = import_events(path, target="buy", chunk_rows=2, split="none")
    assert ds.users.ids.tolist() == sorted(["7", "10", "9", last])
    assert ds.users[ds.edges["buy"].user].tolist() == ["7", "10", "9", last]
    assert ds.items.ids.tolist() == [1]


def test_text_in_rows_that_are_left_out_counts_too(tmp_path):
    rows = ["7,1,buy", "10,1,buy", "x,1,view"]
    ds = import_events(write(tmp_path / "log.csv", rows), target="buy", behaviors=["buy"], chunk_rows=1)
    assert ds.users.ids.tolist() == ["10", "7"]
    assert ds.metadata["import"]["events_of_other_behaviors"] == 1


def test_rows_in_messages_count_from_the_start(tmp_path):
    rows = [f"{row},1,buy,{row}" for row in range(1, 10)]
    header = "user,item,behavior,time"
    options = {"target": "buy", "time": "time", "chunk_rows": 2}
    missing = write(tmp_path / "missing.csv", [*rows[:6], "7,,buy,1", "8,,buy,1"], header)
    with pytest.raises(DataError, match="column 'item' has 2 missing values, the first in row 7; drop or fill"):
        import_events(missing, **options)
    with pytest.raises(DataError, match="column 'time' is inf in row 10; give finite times"):
        import_events(write(tmp_path / "inf.csv", [*rows, "1,2,buy,inf"], header), **options)
    # the last row turns all of them into dates, and the first is none
    with pytest.raises(DataError, match="column 'time' is '1' in row 1, which is no time"):
        import_events(write(tmp_path / "dates.csv", [*rows, "1,2,buy,2024-01-31"], header), **options)
    marked = write(tmp_path / "marked.csv", [f"{row},train" for row in rows] + ["1,2,buy,1,"], f"{header},part")
    with pytest.raises(DataError, match="column 'part' has 1 missing values, the first in row 10"):
        import_events(marked, split_column="part", **options)


def test_chunks_have_the_size_asked_for(tmp_path):
    frame = pd.DataFrame({"a": range(10), "b": list("aabbccddee")})
    frame.to_csv(tmp_path / "log.csv", index=False)
    frame.to_parquet(tmp_path / "log.parquet", row_group_size=4)
    for name, total in (("log.csv", (tmp_path / "log.csv").stat().st_size), ("log.parquet", 10)):
        told = []
        chunks = list(EventFiles(tmp_path / name).chunks(["b"], 3, lambda *args, told=told: told.append(args)))
        assert [len(chunk) for chunk in chunks] == [3, 3, 3, 1]
        assert [value for chunk in chunks for value in chunk["b"]] == list("aabbccddee")
        assert [events for events, _, _ in told] == [3, 6, 9, 10]
        assert told[-1][1:] == (total, total)
        assert all(done <= of == total for _, done, of in told)
    with pytest.raises(UsageError, match="rows of a piece must be positive, not 0"):
        next(EventFiles(tmp_path / "log.csv").chunks(rows=0))


def test_damage_far_into_a_file_is_found(tmp_path):
    packed = gzip.compress(("a,b\n" + "".join(f"{row},{row * 7919}\n" for row in range(50_000))).encode())
    path = tmp_path / "log.csv.gz"
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match="cannot read .*log.csv.gz"):
        list(EventFiles(path).chunks(rows=1000))
    path.write_bytes(packed)
    assert sum(map(len, EventFiles(path).chunks(rows=1000))) == 50_000


@QUIET
@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 7))
def test_blocks_join_what_was_appended(values, size):
    block, log_columns.BLOCK = log_columns.BLOCK, 8
    try:
        blocks = log_columns.Blocks()
        for start in range(0, len(values), size):
            part = values[start : start + size]
            blocks.append(np.array(part, np.min_scalar_type(max(part))))
        joined = blocks.join()
        assert joined.tolist() == values
        if values:
            assert joined.dtype == np.min_scalar_type(max(values))
        blocks.append(np.array(values, np.int16))
        assert blocks.join(np.arange(301) * 2).tolist() == [2 * value for value in values]
    finally:
        log_columns.BLOCK = block


@pytest.mark.parametrize("in_order", [True, False])
def test_the_earliest_are_found_user_by_user(monkeypatch, in_order):
    rng = np.random.default_rng(0)
    n = 5000
    log = pd.DataFrame(
        {
            "user": np.minimum(rng.zipf(1.5, n), 200),
            "item": rng.integers(0, 30, n),
            "behavior": rng.choice(BEHAVIORS, n),
            "time": np.arange(n) // 3 if in_order else rng.integers(0, 500, n),
        }
    )
    whole = said(lambda: from_events(log, time="time", target="buy", cutoff="target", rng=3))
    assert len(whole[3]["buy"][0]) > 100
    for module in (log_dataset, log_columns):
        monkeypatch.setattr(module, "BLOCK", 64)
    calls = []
    original = log_dataset._user_blocks
    monkeypatch.setattr(log_dataset, "_user_blocks", lambda *args: calls.append(original(*args)) or calls[-1])
    assert said(lambda: from_events(log, time="time", target="buy", cutoff="target", rng=3)) == whole
    assert len(calls[0]) > 10
    assert calls[0][0][0] == 0
    assert calls[0][-1][1] == log["user"].nunique()
    assert all(before[1] == after[0] for before, after in zip(calls[0], calls[0][1:], strict=False))


def test_ids_that_ascend_are_known_to_be_distinct_without_a_dictionary():
    users = Vocabulary(["a", "b", "é"], kind="user")
    assert users._rows is None
    assert users.index_of(["é", "a"]).tolist() == [2, 0]
    for ids in (["a", "b", "b"], [1, 1, 2]):
        with pytest.raises(DataError, match=f"user ids contain duplicates such as {ids[1]!r}"):
            Vocabulary(ids, kind="user")
