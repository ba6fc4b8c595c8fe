"""CSV in every dress against the csv module of the standard library."""

import csv
import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.columns import is_plain
from mbgraph.data.formats.csv_log import MISSING
from mbgraph.data.formats.events import EventFiles, read_events
from mbgraph.errors import UsageError

WORDS = st.text(st.characters(codec="gbk", exclude_characters='\0\r\n\ufeff"', exclude_categories=("Cc",)), max_size=5)
VALUES = st.one_of(st.integers(-50, 50).map(str), WORDS, st.sampled_from(["a,b", "a;b", "007", "1.0", "-0", "NULL"]))
NAMES = ("user", "item", "note")


@st.composite
def dresses(draw):
    rows = draw(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=15))
    return {
        # arrow passes over lines without anything, as csv does over none
        "rows": [row for row in rows if any(value.strip(" \t") for value in row)] or [("1", "2", "x")],
        "separator": draw(st.sampled_from(",\t;|")),
        "end": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "gbk"])),
        "pack": draw(st.booleans()),
        "header": draw(st.booleans()),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "cut": draw(st.integers(0, 15)),
    }


def written(dress, rows):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=dress["separator"], lineterminator=dress["end"], quoting=dress["quoting"])
    writer.writerows([NAMES, *rows] if dress["header"] else rows)
    content = text.getvalue().encode(dress["encoding"])
    return gzip.compress(content) if dress["pack"] else content


def oracle(rows):
    """Every value without blanks around it, None for a missing one; whole columns of plain integers as integers."""
    columns = {}
    for place, name in enumerate(NAMES):
        values = [row[place].strip(" \t") for row in rows]
        values = [None if value in MISSING else value for value in values]
        try:
            numbers = [int(value) for value in values]
        except (TypeError, ValueError):
            numbers = []
        plain = bool(values) and [str(number) for number in numbers] == values
        columns[name] = numbers if plain else values
    return columns


def like_a_header(rows):
    """Words above numbers."""

    def is_number(value):
        try:
            float(value)
            return True
        except ValueError:
            return False

    first, second = [*rows, ()][:2]
    return all(value.strip(" \t") for value in first) and not any(map(is_number, first)) and any(map(is_number, second))


@given(dresses(), st.integers(1, 16))
def test_every_dress_holds_the_same_table(tmp_path_factory, dress, size):
    folder = tmp_path_factory.mktemp("log")
    rows = dress["rows"]
    cut = min(dress["cut"], len(rows) - 1)
    parts = [rows[:cut], rows[cut:]] if cut else [rows]
    for number, part in enumerate(parts):
        (folder / f"part-{number}.csv").write_bytes(written(dress, part))
    # without a header the first line alone tells the separator, which a value may hold more often
    if not dress["header"] and any(max(",\t;|", key="".join(p[0]).count) in "".join(p[0]) for p in parts):
        return
    options = {
        "names": None if dress["header"] else list(NAMES),
        "encoding": "gbk" if dress["encoding"] == "gbk" else None,
    }
    if not dress["header"] and any(map(like_a_header, parts)):
        with pytest.raises(UsageError, match="looks like a header"):
            read_events(folder, **options)
        return
    frame = read_events(folder, **options)
    found = {name: [None if value is None or value != value else value for value in frame[name]] for name in NAMES}
    assert found == oracle(rows)
    chunks = list(EventFiles(folder, **options).chunks(rows=size))
    assert sum(map(len, chunks)) == len(rows)
    for name in NAMES:
        pieces = [str(value) for chunk in chunks for value in chunk[name].astype(object).where(chunk[name].notna(), "")]
        assert pieces == [str(value) if value is not None else "" for value in found[name]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 7))
def test_a_row_is_placed_in_its_file(tmp_path_factory, lengths, size):
    """Row numbers count on over the files; a place is the file and the row in it."""
    folder = tmp_path_factory.mktemp("log")
    for number, length in enumerate(lengths):
        (folder / f"part-{number}.csv").write_text("a,b\n" + "x,1\n" * length)
    files = EventFiles(folder)
    rows = sum(len(chunk) for chunk in files.chunks(rows=size))
    assert rows == sum(lengths)
    wanted = [(number, row) for number, length in enumerate(lengths) for row in range(1, length + 1)]
    for at, (number, row) in enumerate(wanted, 1):
        told = f"row {row} of part-{number}.csv" if len(lengths) > 1 else f"row {row}"
        assert files.place(at) == told
    assert np.cumsum(lengths)[-1] == len(wanted)


@given(st.one_of(st.integers(-(2**64), 2**64).map(str), st.text("0123456789-+. ٣²", max_size=22)))
def test_what_is_written_plainly(text):
    """As Python writes a whole number of 64 bits, and in no other way."""
    try:
        wanted = str(int(text)) == text and -(2**63) <= int(text) < 2**63
    except ValueError:
        wanted = False
    assert is_plain(text) == wanted


def test_the_bounds_of_what_is_plain():
    assert [is_plain(str(number)) for number in (2**63 - 1, 2**63, -(2**63), -(2**63) - 1)] == [True, False] * 2
    assert not is_plain("9" * 5000)
