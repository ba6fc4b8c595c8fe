import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st

from mbgraph import limits
from mbgraph.data.formats import pickles as module
from mbgraph.data.formats.matrices import read_held_out, read_matrix
from mbgraph.errors import DataError

KINDS = [f"{layout}_{kind}" for layout in ("csr", "csc", "coo") for kind in ("matrix", "array")]
DENSE = np.array([[0, 1_511_539_200, 0], [1_511_539_300, 0, 1_511_539_201]])


def put(folder, value, protocol=None, name="trn_buy"):
    file = folder / name
    file.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return file


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["<i8", ">i4", "<f8"])
def test_matrices_of_every_kind(tmp_path, protocol, kind, dtype):
    matrix = getattr(sparse, kind)(DENSE)
    matrix.__dict__["data"] = matrix.data.astype(dtype)
    found = read_matrix(put(tmp_path, matrix, protocol))
    assert (found.users, found.items, found.values) == (2, 3, "times")
    back = np.zeros((2, 3), np.int64)
    back[found.pairs.user, found.pairs.item] = found.pairs.time
    assert (back == DENSE).all()
    assert found.pairs.time.dtype == np.dtype(dtype.replace("f", "i").replace(">", "<"))


@pytest.mark.parametrize(
    ("module_name", "name"), [("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix")]
)
def test_old_and_new_module_names(tmp_path, module_name, name):
    """Pickles of old SciPy and of numpy 1 and 2 name other modules for the same things."""
    content = pickle.dumps(sparse.csr_matrix(DENSE), 0)
    content = content.replace(b"scipy.sparse._csr\ncsr_matrix", f"{module_name}\n{name}".encode())
    for core in (b"numpy.core", b"numpy._core"):
        changed = content.replace(b"numpy._core", core).replace(b"numpy.core", core)
        assert read_matrix(put(tmp_path, changed)).pairs.item.tolist() == [1, 0, 2]


def test_python_2_wrote_bytes_as_text(tmp_path):
    """copy_reg, __builtin__ and raw bytes in a STRING: what Python 2 left behind."""
    content = pickle.dumps(sparse.csr_matrix(np.array([[0, 1], [1, 1]])), 0)
    content = content.replace(b"copyreg\n", b"copy_reg\n").replace(b"builtins\n", b"__builtin__\n")
    assert b"copy_reg\n_reconstructor" in content
    found = read_matrix(put(tmp_path, content))
    assert (found.pairs.user.tolist(), found.values) == ([0, 1, 1], "all 1")
    array = module.Array()
    dtype = module.Dtype("i2")
    dtype.__setstate__((3, "<", None, None, None, -1, -1, 0))
    array.__setstate__((1, (2,), dtype, False, "\x01\x00\xff\x00"))
    assert array.real().tolist() == [1, 255]


def test_values_that_are_no_times(tmp_path):
    found = read_matrix(put(tmp_path, sparse.csr_matrix(np.array([[3, 0], [0, 1]]))))
    assert (found.values, found.pairs.time) == ("dropped", None)
    matrix = sparse.csr_matrix((np.array([1, 0, 1]), ([0, 1, 1], [1, 0, 1])), shape=(2, 2))
    assert matrix.nnz == 3
    found = read_matrix(put(tmp_path, matrix))
    assert (found.pairs.user.tolist(), found.values) == ([0, 1], "all 1")


LISTS = [
    [None, 3, np.int64(4), [1, 2]],
    np.array([None, 3, 4, [1, 2]], dtype=object),
    [float("nan"), 3.0, np.float64(4), (1, 2)],
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("entries", LISTS, ids=["list", "objects", "floats"])
def test_held_out_lists(tmp_path, protocol, entries):
    pairs, length = read_held_out(put(tmp_path, entries, protocol), 4, 5)
    assert (length, pairs.user.tolist(), pairs.item.tolist()) == (4, [1, 2, 3, 3], [3, 4, 1, 2])
    pairs, _ = read_held_out(put(tmp_path, np.array([2, 0]), protocol))
    assert pairs.item.tolist() == [2, 0]


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def global_call(module_name, name, argument):
    return (
        b"\x80\x02c"
        + f"{module_name}\n{name}\n".encode()
        + b"X"
        + struct.pack("<I", len(argument))
        + argument
        + b"\x85R."
    )


HOSTILE = {
    "system": lambda mark: pickle.dumps(Call(os.system, f"touch {mark}")),
    "system, protocol 0": lambda mark: pickle.dumps(Call(os.system, f"touch {mark}"), 0),
    "eval": lambda mark: pickle.dumps(Call(eval, f"open({str(mark)!r}, 'w')")),
    "nested": lambda mark: pickle.dumps([1, {"a": [Call(Call, Call(os.mkdir, str(mark)))]}]),
    "in an object array": lambda mark: pickle.dumps(np.array([None, Call(os.mkdir, str(mark))], dtype=object)),
    "in a matrix": lambda mark: pickle.dumps(hostile_matrix(Call(os.mkdir, str(mark)))),
    "numpy's own loader": lambda mark: global_call("numpy", "load", str(mark).encode()),
    "scipy's neighbour": lambda mark: global_call("scipy.sparse._csr", "csr_tocsc", b"x"),
    "a dotted name": lambda mark: global_call("numpy", "ndarray.tofile", b"x"),
    "getattr": lambda mark: global_call("builtins", "getattr", b"x"),
    "numpy.testing": lambda mark: global_call("numpy.testing._private.utils", "runstring", b"x"),
    "copyreg": lambda mark: global_call("copyreg", "__newobj__", b"x"),
}


def hostile_matrix(value):
    matrix = sparse.csr_matrix(DENSE)
    matrix.__dict__["maxprint"] = value
    return matrix


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("reader", [read_matrix, read_held_out])
def test_code_is_never_run(tmp_path, what, reader):
    mark = tmp_path / "mark"
    file = put(tmp_path, HOSTILE[what](mark))
    with pytest.raises(DataError, match=r"names '.+', which is no array or sparse matrix and may be code; convert"):
        reader(file)
    assert not mark.exists()


def test_what_is_refused_is_named(tmp_path):
    file = put(tmp_path, HOSTILE["eval"](tmp_path / "mark"))
    with pytest.raises(DataError, match=r"trn_buy names 'builtins.eval', which"):
        read_matrix(file)
    with pytest.raises(DataError, match=r"names 'posix.system'|names 'nt.system'"):
        read_matrix(put(tmp_path, HOSTILE["system"](tmp_path / "mark")))


def test_nothing_that_is_named_is_imported(tmp_path, monkeypatch):
    """Even the allowed names are never looked up: a module of that name could not run its code."""
    import builtins

    content = pickle.dumps(sparse.csr_matrix(DENSE), 2)
    real = builtins.__import__

    def watching(name, *rest):
        assert not name.startswith(("scipy", "numpy.core", "numpy._core", "copyreg")), name
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", watching)
    assert len(module.load(put(tmp_path, content)).state["data"].content) == 3 * 8


ATTACKS = {
    "a function with attributes": b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.",
    "a class with attributes": b"\x80\x02cscipy.sparse\ncsr_matrix\n}X\x05\x00\x00\x00stateK\x01sb.",
    "an object with attributes": b"\x80\x02cbuiltins\nobject\n)R}X\x01\x00\x00\x00aK\x01sb.",
    "slots of a function": b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__K\x01s\x86b.",
    "rebuilding another class": b"\x80\x02ccopyreg\n_reconstructor\ncnumpy\nndarray\ncbuiltins\nobject\nN\x87R.",
    "another encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00base64\x86R.",
    "arguments for a matrix": b"\x80\x02cscipy.sparse\ncsr_matrix\nK\x05\x85R.",
    "a huge memo": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "a huge string": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00abc.",
    "no stop": b"\x80\x02K\x01",
    "an empty stack": b"\x80\x02.",
    "no pickle": b"user item\n1 2\n",
    "a shape of another size": pickle.dumps(sparse.csr_matrix(DENSE), 2).replace(b"K\x03\x85", b"K\x04\x85"),
    "tuples without end": b"\x80\x02K\x01\x85q\x00" + b"".join(b"h%c\x86q%c" % (n, n + 1) for n in range(60)) + b".",
}


@pytest.mark.parametrize("what", ATTACKS)
def test_broken_and_twisted_pickles(tmp_path, what):
    with pytest.raises(DataError, match=r"trn_buy is truncated or no pickle of arrays \(.+\); restore the file"):
        read_matrix(put(tmp_path, ATTACKS[what]))
    assert module._encode("a", "latin1") == b"a"  # none of them changed the door


@pytest.mark.parametrize(
    ("content", "operation"),
    [
        (b"(ios\nsystem\n.", "INST"),
        (b"Psecret\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ],
)
def test_operations_beyond_the_list(tmp_path, content, operation):
    with pytest.raises(DataError, match=f"uses the pickle operation {operation}, which arrays have no need of"):
        read_matrix(put(tmp_path, content))


@given(st.data())
def test_any_damage_is_a_data_error(tmp_path_factory, data):
    """Whatever byte is changed or cut, the answer is a matrix within its bounds or one line."""
    content = bytearray(pickle.dumps(sparse.csr_matrix(DENSE), data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = put(tmp_path_factory.mktemp("pickle"), bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        found = read_matrix(file)
    except DataError as error:
        assert str(file) in str(error)  # noqa: PT017 (both ends are right)
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found.pairs.user.max() < found.users
        assert found.pairs.item.max() < found.items


def test_limits(tmp_path):
    file = put(tmp_path, list(range(100)))
    told = r"90 values and more are more than the limit of 90 \(objects\); .* mbgraph --limit objects=180 COMMAND"
    with limits.raised(objects=90), pytest.raises(DataError, match=told):
        read_held_out(file)
    with limits.raised(objects=200):
        assert len(read_held_out(file)[0]) == 100


def test_dictionaries_whose_keys_collide_are_refused_before_they_are_made(tmp_path):
    """Integers that differ by a multiple of 2**61 - 1 have one hash: 20,000 of them take minutes to put in a dict."""
    keys = list(range(20_000))
    for protocol in (0, 2, 4):
        with pytest.raises(DataError, match="dictionaries of more than 10,000 entries"):
            module.load(put(tmp_path, dict.fromkeys(keys, 1), protocol=protocol))


def state_of(**changes):
    matrix = sparse.csr_matrix(DENSE)
    matrix.__dict__.update(changes)
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (state_of(indices=np.array([1, 0, 3], np.int32)), "item id 3 is out of range; the matrix has 3 items"),
        (state_of(indices=np.array([1, 0, -1], np.int32)), "item id -1 is out of range"),
        (state_of(indices=np.array([1, 0], np.int32)), "indptr ends at 3, there are 2 indices"),
        (state_of(indptr=np.array([0, 4, 3], np.int32)), "indptr does not fit 2 rows"),
        (state_of(indptr=np.array([1, 2, 3], np.int32)), "indptr does not fit 2 rows"),
        (state_of(indptr=np.array([0, 3], np.int32)), "indptr does not fit 2 rows"),
        (state_of(data=np.array([1, 1])), "3 rows, 3 columns, 2 values"),
        (state_of(indices=np.array([1.0, 0.0, 2.0])), "indices is no array of numbers"),
        (state_of(data=np.array([1, 2, None], dtype=object)), "data is no array of numbers"),
        (state_of(data=np.array(["a", "b", "c"])), "an array of type <U1"),
        (state_of(data=np.zeros(3, [("a", "i4")])), "an array of records"),
        (state_of(data=np.array([1 + 1j] * 3)), "an array of type <c16"),
        (state_of(data=np.ones((3, 1))), "not one-dimensional"),
        (state_of(_shape=(10**12, 3)), "the matrix is 1000000000000 x 3"),
        (state_of(_shape=(2, 3, 4)), "has no shape of users and items"),
        (state_of(_shape=(2.0, 3)), "has no shape of users and items"),
        (sparse.csr_matrix((2, 3)), "trn_buy is empty"),
        ([1, 2], "holds no sparse matrix"),
    ],
)
def test_matrices_that_contradict_themselves(tmp_path, matrix, message):
    with pytest.raises(DataError, match=message):
        read_matrix(put(tmp_path, matrix, 2))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([1, 2], "tst_int has 2 entries; it needs one for each of the 3 users"),
        ([1, 2, 5], r"entry 2: item id 5 is out of range; there are 5 items \(0..4\)"),
        ([1, -1, 2], "entry 1: item id -1 is out of range; ids start at 0"),
        ([1, "a", 2], "entry 1 is no item id; write an item id or None for every user"),
        ([1, True, 2], "entry 1 is no item id"),
        ([1, 1.5, 2], "entry 1 is no item id"),
        ([1, [[2]], 2], "entry 1 is no item id"),
        (np.array([1, {"a": 1}, None], dtype=object), "entry 1 is no item id"),
        ({0: 1}, "tst_int holds no list"),
        ([None] * 3, "tst_int is empty"),
        (np.zeros((3, 1)), "not one-dimensional"),
    ],
)
def test_held_out_lists_that_are_none(tmp_path, entries, message):
    with pytest.raises(DataError, match=message):
        read_held_out(put(tmp_path, entries, name="tst_int"), 3, 5)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(DataError, match="cannot read .*none: No such file"):
        read_matrix(tmp_path / "none")
    with pytest.raises(DataError, match="trn_buy is empty; restore the file"):
        read_matrix(put(tmp_path, b""))


def test_every_operation_on_the_list_exists():
    assert {operation.name for operation in pickletools.opcodes} >= module._ALLOWED
