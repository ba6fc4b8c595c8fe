import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import limits
from mbgraph.data.formats import text as module
from mbgraph.data.formats.text import read_adjacency, read_pairs
from mbgraph.errors import DataError

CELLS = st.lists(st.tuples(st.integers(0, 2**31 - 3), st.integers(0, 2**31 - 3)), min_size=1, max_size=30)


def put(folder, text, name="view.txt"):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@given(CELLS, st.sampled_from([" ", "\t", "   ", " \t"]), st.sampled_from(["\n", "\r\n"]), st.integers(1, 200))
def test_pairs_whatever_the_block(tmp_path_factory, cells, blank, end, size):
    """Cut into blocks of any size, the file gives what a split of its lines gives."""
    text = end.join(f"{user + 1}{blank}{item + 1}" for user, item in cells)
    file = put(tmp_path_factory.mktemp("text"), text + (end if size % 2 else ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        with limits.raised(users=2**31 - 1, items=2**31 - 1):
            pairs = read_pairs(file, base=1)
    assert list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) == cells


@given(st.dictionaries(st.integers(0, 99), st.lists(st.integers(0, 10**6), max_size=5), min_size=1), st.integers(1, 99))
def test_adjacency_whatever_the_block(tmp_path_factory, table, size):
    text = "".join(" ".join(map(str, (user, *items))) + " \n" for user, items in table.items())
    file = put(tmp_path_factory.mktemp("text"), text)
    wanted = [(user, item) for user, items in table.items() for item in items]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        pairs, most = read_adjacency(file, empty=True)
    assert list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) == wanted
    assert most == (max(table) + 1)


def test_marks_blank_lines_and_headers(tmp_path):
    file = put(tmp_path, b"\xef\xbb\xbf7 8\r\n\r\n\n 9\t10  \n\n")
    pairs = read_pairs(file)
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([7, 9], [8, 10])
    file = put(tmp_path, "uid\tsid\t3\n0\t5\tcart\n1\t6\tcart")
    pairs = read_pairs(file, header=True, more_columns=True)
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([0, 1], [5, 6])
    pairs = read_pairs(file, stream=io.BytesIO(b"3 4\n"))
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([3], [4])


def test_leading_zeros_and_large_ids(tmp_path):
    with limits.raised(items=2**31 - 1):
        pairs = read_pairs(put(tmp_path, f"007 {2**31 - 2}\n"))
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([7], [2**31 - 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3 x\n", "view.txt line 2: 'x' is no integer; this format holds whole numbers only"),
        ("1 2\n\n3 1.0\n", "view.txt line 3: '1.0' is no integer"),
        ("1 2\n3 -4\n", "view.txt line 2: negative id -4; ids start at 0"),
        ("1 2\n3 4 5\n", "view.txt line 2 holds 3 columns, not 2; write one user and one item per line"),
        ("1 2\n3\n", "view.txt line 2 holds 1 columns, not 2"),
        ("1 2\n0 4\n", "view.txt line 2: user id 0 is below 1; user ids of this format start at 1"),
        ("1 2\n4 4\n", r"view.txt line 2: user id 4 is out of range; there are 3 users \(1..3\); correct the line"),
        ("1 2\n3 9\n", r"view.txt line 2: item id 9 is out of range; there are 8 items \(1..8\)"),
        ("1 12345678901234567890\n", "view.txt line 1: 12345678901234567890 has more than 18 digits"),
        (b"1 2\n\xff\xfe 4\n", "view.txt line 2: '\ufffd\ufffd' is no integer"),
        (b"1 2\n\x00 4\n", "line 2: '.x00' is no integer"),
        ("", "view.txt is empty; restore the file or leave it out"),
        (" \n\n", "view.txt is empty"),
    ],
)
def test_broken_pairs_name_the_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_pairs(put(tmp_path, text), base=1, users=3, items=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n1 2 x\n", "view.txt line 2: 'x' is no integer"),
        (
            "0 1\n2 3\n0 4\n",
            "line 3: user 0 already stands in line 1; join the two lines; if a line is one pair, say so: mb",
        ),
        ("0 1 8\n", r"line 1: item id 8 is out of range; there are 8 items \(0..7\)"),
        ("3 1\n", r"line 1: user id 3 is out of range; there are 3 users \(0..2\)"),
        ("0 -1\n", "line 1: negative id -1"),
        ("", "view.txt is empty"),
        ("0\n1\n", "view.txt is empty"),
    ],
)
def test_broken_adjacency_names_the_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_adjacency(put(tmp_path, text), users=3, items=8)


def test_ids_without_a_count_stay_below_32_bits(tmp_path):
    told = r"line 1: user ids up to {} without gaps are more than the limit of 10,000,000 \(users\)"
    with pytest.raises(DataError, match=told.format("1,000,000,000") + ".*mbgraph --limit users=1000000001 COMMAND"):
        read_pairs(put(tmp_path, "1000000000 1\n"))
    with pytest.raises(DataError, match=told.format("2,147,483,647") + "; no limit goes beyond 2,147,483,647"):
        read_pairs(put(tmp_path, "2147483647 1\n"))


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none.txt: No such file or directory; restore the file"):
        read_pairs(tmp_path / "none.txt")
    with pytest.raises(DataError, match="it is a folder, not a file; give a file"):
        read_pairs(tmp_path)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1 << 19)
    file = put(tmp_path, "1 2\n" + "3 " * (1 << 19))
    with limits.raised(line_mib=1), pytest.raises(DataError, match=r"view.txt line 2: 1 MiB and more .*line_mib=2"):
        read_adjacency(file)


def test_empty_is_allowed_where_it_is_asked_for(tmp_path):
    file = put(tmp_path, "\n")
    assert len(read_pairs(file, empty=True)) == 0
    assert read_adjacency(file, empty=True)[1] == 0
    assert read_pairs(file, empty=True).user.dtype == np.int64


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8),
    st.sampled_from([",", ", ", " ,", "\t,\t", " ", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r", ",\n"]),
)
def test_commas_separate_as_blanks_do(tmp_path_factory, pairs, between, end):
    file = tmp_path_factory.mktemp("text") / "pairs.txt"
    file.write_bytes("".join(f"{user}{between}{item}{end}" for user, item in pairs).encode())
    found = read_pairs(file)
    assert list(zip(found.user.tolist(), found.item.tolist(), strict=True)) == pairs


@pytest.mark.parametrize("line", ["1,,5", ",1,5", "1, ,5", " ,1 5", "1,2,,"])
def test_a_missing_value_does_not_move_the_next_into_its_place(tmp_path, line):
    file = tmp_path / "pairs.txt"
    file.write_text(f"0,1\n0,2\n{line}\n")
    with pytest.raises(DataError, match=r"pairs\.txt line 3 has a comma with no value before it; correct or drop"):
        read_pairs(file, more_columns=True)
