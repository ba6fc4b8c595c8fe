import uuid
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.interactions import CSR, Pairs, Vocabulary, as_ids
from mbgraph.errors import DataError, UsageError

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=40)


def test_pairs_become_contiguous_int64():
    pairs = Pairs(np.arange(6, dtype=np.int32)[::-2], np.array([3, 4, 5], np.uint8), np.array([1, 2, 3], np.int32))
    assert pairs.user.dtype == pairs.item.dtype == np.int64
    assert pairs.user.flags.c_contiguous
    assert pairs.user.tolist() == [5, 3, 1]
    assert pairs.time.dtype == np.int32


def test_keys_do_not_overflow_in_32_bits():
    pairs = Pairs(np.array([60_000], np.int32), np.array([7], np.int32))
    assert pairs.keys(50_000).tolist() == [60_000 * 50_000 + 7]


def test_lists_of_pairs_are_not_changed_and_compared_by_identity():
    pairs = Pairs([0, 1], [2, 3])
    csr = pairs.csr(2)
    for one, other in ((pairs, Pairs([0, 1], [2, 3])), (csr, pairs.csr(2))):
        assert one != other  # comparing arrays entry by entry would be no truth value
        assert len({one, other}) == 2
        with pytest.raises(FrozenInstanceError):
            setattr(one, fields(one)[0].name, None)


def test_the_largest_id_and_none():
    assert Pairs(np.array([2**63 - 1], np.uint64), [0]).user.tolist() == [2**63 - 1]
    assert Pairs(np.empty(0, np.uint64), []).item.dtype == np.int64
    assert len(Pairs([], [], [])) == 0


def test_selection_keeps_times():
    pairs = Pairs([4, 5, 6], [1, 2, 3], np.array([7.5, 8.5, 9.5]))
    chosen = pairs[np.array([False, True, True])]
    assert (chosen.user.tolist(), chosen.item.tolist(), chosen.time.tolist()) == ([5, 6], [2, 3], [8.5, 9.5])
    assert len(Pairs.empty()) == len(pairs[:0]) == 0


@pytest.mark.parametrize(
    ("user", "time", "message"),
    [
        ([0.0, 1.0], None, "user ids are float64, not integers; number them from 0"),
        ([0.0, np.nan], None, "1 user ids are NaN; drop or fill them"),
        ([True, False], None, "user ids are bool, not integers"),
        (["a", "b"], None, "not integers"),
        ([[0, 1]], None, r"user ids have shape \(1, 2\), not \(N,\)"),
        ([0, 1, 2], None, "the columns have different lengths: user 3, item 2; give every pair one of each"),
        ([0, 1], [1], "different lengths: user 2, item 2, time 1"),
        ([0, 1], ["x", "y"], "time is <U1, not a number"),
        (np.array([0, 2**63], np.uint64), None, "user id 9223372036854775808 is out of range"),
    ],
)
def test_bad_columns(user, time, message):
    with pytest.raises(DataError, match=message):
        Pairs(user, [0, 1], time)


@given(ROWS, st.lists(st.integers(0, 6), max_size=10))
def test_csr_against_loops(rows, wanted):
    users, items = (np.array(column, np.int64) for column in (zip(*rows, strict=True) if rows else ((), ())))
    csr = CSR.from_pairs(users, items, 7)
    naive = [sorted(item for user, item in rows if user == row) for row in range(7)]
    assert [csr.row(row).tolist() for row in range(7)] == naive
    assert csr.degrees().tolist() == [len(row) for row in naive]
    where, columns = csr.gather(np.array(wanted, np.int64))
    assert where.tolist() == [place for place, row in enumerate(wanted) for _ in naive[row]]
    assert columns.tolist() == [item for row in wanted for item in naive[row]]


@given(st.one_of(st.lists(st.text(), unique=True), st.lists(st.integers(-(2**63), 2**63 - 1), unique=True)))
def test_ids_both_ways(ids):
    vocabulary = Vocabulary(ids)
    assert vocabulary.ids.tolist() == ids
    assert vocabulary.index_of(ids).tolist() == list(range(len(ids)))
    assert len(vocabulary) == len(ids)


def test_integers_are_found_as_text_too():
    vocabulary = Vocabulary([10, 20, 30], kind="user")
    wanted = ["20", 20, np.int32(20), "020", 20.5, None, "x", "2_0", float("nan")]
    assert vocabulary.find(wanted).tolist() == [1, 1, 1, -1, -1, -1, -1, -1, -1]


def test_row_numbers_are_their_own_ids():
    vocabulary = Vocabulary(size=3, kind="item")
    assert vocabulary.find([0, "2", 3, -1]).tolist() == [0, 2, -1, -1]
    assert vocabulary.ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("vocabulary", "shown"),
    [
        (Vocabulary(size=1234, kind="item"), "Vocabulary(1,234 item ids, row numbers)"),
        (Vocabulary([3, 5]), "Vocabulary(2 id ids, integers)"),
        (Vocabulary(["a"], kind="user"), "Vocabulary(1 user ids, text)"),
    ],
)
def test_a_vocabulary_says_what_it_is(vocabulary, shown):
    assert repr(vocabulary) == shown


def test_rows_lead_back_to_ids():
    assert Vocabulary(["a", "b", "c"])[[2, 0]].tolist() == ["c", "a"]
    assert Vocabulary(size=3)[1:].tolist() == [1, 2]
    assert Vocabulary([5, 7], size=2)[1] == 7
    assert (len(Vocabulary(size=0)), len(Vocabulary([]))) == (0, 0)
    assert Vocabulary(size=2).ids.dtype == Vocabulary(np.array([1], np.int8)).ids.dtype == np.int64
    assert Vocabulary(size=2).is_identity
    assert not Vocabulary([0, 1]).is_identity


def test_no_ids_are_integers():
    found = as_ids([], "user ids")
    assert (found.shape, found.dtype) == ((0,), np.int64)
    assert Vocabulary([]).find([0, "a"]).tolist() == [-1, -1]


@pytest.mark.parametrize(("ids", "size"), [(["a"], 2), (["a"], 0), (None, -1)])
def test_a_size_that_cannot_be(ids, size):
    with pytest.raises(UsageError, match=rf" id ids were given and size={size}; leave the size out"):
        Vocabulary(ids, size=size)


def test_text_of_numpy_and_of_any_object_is_found():
    vocabulary = Vocabulary(np.array(["x", "10"]))
    assert [type(value) for value in vocabulary.ids] == [str, str]
    assert vocabulary.find([10, np.str_("x"), "y"]).tolist() == [1, 0, -1]
    assert type(Vocabulary([np.str_("x")]).ids[0]) is str


@pytest.mark.parametrize("extreme", [-(2**63), 2**63 - 1])
def test_ids_of_64_bits(extreme):
    assert Vocabulary([extreme, 0]).ids.tolist() == [extreme, 0]
    assert Vocabulary([extreme, 0]).find([extreme, str(extreme), extreme + 1]).tolist() == [0, 0, -1]


def test_a_claimed_size_costs_no_memory():
    vocabulary = Vocabulary(size=2**40)
    assert vocabulary.find([2**39, 2**40]).tolist() == [2**39, -1]


def test_uuids_become_text():
    ids = [uuid.UUID(int=5), uuid.UUID(int=3)]
    vocabulary = Vocabulary(ids)
    assert vocabulary.ids.tolist() == [str(value) for value in ids]
    assert vocabulary.index_of(ids).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", 1], "user ids mix int, str; turn all of them into text"),
        ([1, True], "user ids mix bool, int"),
        ([1.5, 2.5], "user ids are float, neither integers nor text"),
        (np.array([1.0]), "user ids are float64"),
        ([b"a"], "user ids are bytes"),
        (["a", None], "user ids mix NoneType, str"),
        ([2**64], "user ids: 18446744073709551616 has more than 64 bits"),
        ([2**63], "user ids: 9223372036854775808 has more than 64 bits"),
        ([5, -(2**63) - 1], "user ids: -9223372036854775809 has more than 64 bits; turn all of them into text"),
        (np.array([2**63], np.uint64), "user ids: 9223372036854775808 has more than 64 bits"),
        (np.array([[1, 2]]), r"user ids have shape \(1, 2\), not \(N,\); give one id per row"),
        ([1, 2, 2], "user ids contain duplicates such as 2"),
        ([3, 1, 3], "user ids contain duplicates such as 3"),
        (["a", "b", "a"], "user ids contain duplicates such as 'a'; give every row its own id"),
    ],
)
def test_bad_ids(ids, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(ids, kind="user")


def test_unknown_ids_are_named_and_counted():
    users = Vocabulary(["a", "b"], kind="user")
    with pytest.raises(DataError, match=r"unknown user 'x' \(and 1 more\); the dataset has 2 users"):
        users.index_of(["a", "x", "y"])
    with pytest.raises(DataError, match=r"unknown user 'x'; the dataset has 2 users"):
        users.index_of(["x"])
    assert users.index_of(iter(["b", "a"])).tolist() == [1, 0]


def test_neither_ids_nor_size():
    with pytest.raises(UsageError, match="ids or a size"):
        Vocabulary()
