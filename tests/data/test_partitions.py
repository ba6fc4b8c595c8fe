"""Logs in folders that hold a column in their names (Hive, Spark)."""

import gzip
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.events import from_events, import_events
from mbgraph.data.formats.events import EventFiles, read_events
from mbgraph.errors import DataError, UnknownNameError

pytest.importorskip("pyarrow")

ROWS = pd.DataFrame(
    [
        (1, 5, "view", 10),
        (2, 7, "view", 11),
        (1, 5, "buy", 12),
        (1, 6, "buy", 13),
        (2, 7, "buy", 14),
        (1, 7, "buy", 15),
    ],
    columns=["user", "item", "behavior", "time"],
)


def write(frame, path, kind="parquet"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    else:
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))


def cells(pairs):
    return sorted(zip(pairs.user.tolist(), pairs.item.tolist(), pairs.time.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv.gz"])
def test_a_column_out_of_the_names_of_folders(tmp_path, kind):
    for (behavior, part), rows in ROWS.groupby(["behavior", ROWS["item"] % 2]):
        write(rows.drop(columns="behavior"), tmp_path / "log" / f"behavior={behavior}" / f"part-{part}.{kind}", kind)
    (tmp_path / "log" / "_SUCCESS").touch()
    ds = import_events(tmp_path / "log", target="buy", time="time")
    wanted = from_events(ROWS, target="buy", time="time")
    assert ds.behaviors == ("view", "buy")
    assert ds.users.ids.tolist() == wanted.users.ids.tolist()
    for name, pairs in (*wanted.edges.items(), *wanted.splits.items()):
        assert cells({**ds.edges, **ds.splits}[name]) == cells(pairs)


def test_several_columns_and_values_that_are_not_words(tmp_path):
    write(ROWS[["user"]].head(2), tmp_path / "day=7" / "kind=a%2Fb" / "x.parquet")
    write(ROWS[["user"]].tail(1), tmp_path / "day=12" / "kind=__HIVE_DEFAULT_PARTITION__" / "x.parquet")
    frame = read_events(tmp_path, ["kind", "user", "day"])
    assert list(frame.columns) == ["kind", "user", "day"]
    assert frame["day"].tolist() == [7, 7, 12]
    assert frame["day"].dtype == "int64"
    assert frame["kind"].tolist()[:2] == ["a/b", "a/b"]
    assert frame["kind"].isna().tolist() == [False, False, True]


def test_a_column_of_numbers_stays_text_where_one_is_not_plain(tmp_path):
    for day in ("7", "007"):
        write(ROWS[["user"]].head(1), tmp_path / f"day={day}" / "x.parquet")
    assert sorted(read_events(tmp_path, ["day"])["day"]) == ["007", "7"]


def test_a_column_of_the_file_is_the_files(tmp_path):
    write(ROWS[["user", "behavior"]], tmp_path / "behavior=other" / "x.parquet")
    assert read_events(tmp_path)["behavior"].tolist() == ROWS["behavior"].tolist()


def test_a_file_outside_of_the_partitions_is_named(tmp_path):
    write(ROWS[["user", "item"]], tmp_path / "behavior=view" / "x.parquet")
    write(ROWS[["user", "item"]], tmp_path / "stray.parquet")
    with pytest.raises(DataError, match=r"stray\.parquet has no column 'behavior'"):
        EventFiles(tmp_path).wanted(["user", "behavior"])
    with pytest.raises(UnknownNameError, match="behavior"):
        EventFiles(tmp_path).wanted(["behaviour"])


def test_a_file_that_is_given_by_itself_has_its_own_columns(tmp_path):
    write(ROWS[["user", "item"]], tmp_path / "behavior=view" / "x.parquet")
    assert EventFiles(tmp_path / "behavior=view" / "x.parquet").names == ["user", "item"]


@given(
    st.lists(st.tuples(st.text("ab1 /=%é", min_size=1, max_size=4), st.integers(0, 4)), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_pieces_add_up_to_the_whole(tmp_path_factory, folders, size):
    from urllib.parse import quote

    root = tmp_path_factory.mktemp("hive")
    wanted = []
    for number, (word, length) in enumerate(folders):
        rows = pd.DataFrame({"user": range(number * 10, number * 10 + length)})
        folder = root / f"n={number}" / f"word=x{quote(word, safe='')}"
        write(rows, folder / "p.csv.gz", "csv.gz")
        wanted += [(user, number, f"x{word}") for user in rows["user"]]
    files = EventFiles(root)
    chunks = [tuple(row) for chunk in files.chunks(["user", "n", "word"], rows=size) for row in chunk.to_numpy()]
    assert chunks == wanted
    if wanted:
        assert [tuple(row) for row in files.read(["user", "n", "word"]).to_numpy()] == wanted
