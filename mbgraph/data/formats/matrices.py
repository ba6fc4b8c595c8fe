"""Pairs out of pickled sparse matrices and lists, with every shape and index checked.

SciPy believes what a matrix says about itself; so nothing here is handed to SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.formats.pickles import Array, Sparse, Unusable, load, reading_pickle
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.typing import IntArray

__all__ = ["Matrix", "read_held_out", "read_matrix"]

_MAX_ROWS = 2**31 - 1
_EARLIEST = 100  # smaller values may be counts or flags
_LATEST = 2**31 * 10**9  # the end of 32 bits of seconds in 2038, as nanoseconds


@dataclass(frozen=True, eq=False)
class Matrix:
    """A users x items matrix as its entries that are not zero.

    Attributes
    ----------
    users, items : int
        Its shape.
    pairs : Pairs
        Places of the entries, row by row for CSR; with times if the values are times.
    values : str
        What became of the values: ``"all 1"``, ``"times"`` or ``"dropped"``.
    """

    users: int
    items: int
    pairs: Pairs
    values: str


def read_matrix(file: Path) -> Matrix:
    """Read a pickled SciPy matrix (CSR, CSC or COO).

    Values are binarised: an entry that is 0 is left out. If every other value is at least 100, and so no count or flag,
    and no moment after 2038 even in nanoseconds, as products of times would be, they are kept as times.

    Raises
    ------
    DataError
        As in `mbgraph.data.formats.pickles.load`; also if shape, pointers and indices contradict each other.
    """
    found = load(file)
    if not isinstance(found, Sparse):
        raise DataError(f"{file} holds no sparse matrix", "this format needs a pickled SciPy CSR or COO matrix")
    with reading_pickle(file):
        users, items = _shape(file, found.state)
        values = _numbers(found.state, "data", "iufb")
        if found.layout == "coo":
            user, item = _coordinates(found.state)
        else:
            majors = users if found.layout == "csr" else items
            pointer = _numbers(found.state, "indptr", "iu").astype(np.int64)
            index = _numbers(found.state, "indices", "iu").astype(np.int64)
            if len(pointer) != majors + 1 or pointer[0] != 0 or (pointer[1:] < pointer[:-1]).any():
                raise DataError(f"{file}: indptr does not fit {majors} rows", "restore the file")
            if pointer[-1] != len(index):
                raise DataError(
                    f"{file}: indptr ends at {pointer[-1]}, there are {len(index)} indices", "restore the file"
                )
            major = np.repeat(np.arange(majors, dtype=np.int64), np.diff(pointer))
            user, item = (major, index) if found.layout == "csr" else (index, major)
    if not len(user) == len(item) == len(values):
        raise DataError(f"{file}: {len(user)} rows, {len(item)} columns, {len(values)} values", "restore the file")
    for kind, rows, count in (("user", user, users), ("item", item, items)):
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= count):
            wrong = int(rows.min()) if int(rows.min()) < 0 else int(rows.max())
            raise DataError(f"{file}: {kind} id {wrong} is out of range", f"the matrix has {count} {kind}s; restore it")
    keep = values != 0
    if not keep.all():
        user, item, values = user[keep], item[keep], values[keep]
    if not len(values):
        raise DataError(f"{file} is empty", "restore the file or leave it out")
    kept, told = _times(values)
    return Matrix(users, items, Pairs(user, item, kept), told)


def read_held_out(file: Path, users: int | None = None, items: int | None = None) -> tuple[Pairs, int]:
    """Read a pickled list with an item, several items or None for every user.

    Returns
    -------
    pairs : Pairs
    length : int
        Length of the list, one entry per user.

    Raises
    ------
    DataError
        If an entry is anything else or out of range, or the length is not ``users``.
    """
    found = load(file)
    with reading_pickle(file):
        entries = found.real() if isinstance(found, Array) else found
    if isinstance(entries, np.ndarray):
        entries = entries.tolist()
    if type(entries) is not list:
        raise DataError(f"{file} holds no list", "this format needs a list with an item id or None for every user")
    if users is not None and len(entries) != users:
        raise DataError(f"{file} has {len(entries)} entries", f"it needs one for each of the {users} users")
    rows: list[int] = []
    held: list[int] = []
    for user, entry in enumerate(entries):
        for item in () if entry is None else entry if type(entry) in (list, tuple) else (entry,):
            if isinstance(item, float) and item.is_integer():
                item = int(item)  # an array with gaps becomes one of floats
            if isinstance(item, float) and item != item:
                continue
            if type(item) is not int:
                raise DataError(f"{file}: entry {user} is no item id", "write an item id or None for every user")
            if not 0 <= item < (_MAX_ROWS if items is None else items):
                limit = "ids start at 0" if items is None or item < 0 else f"there are {items} items (0..{items - 1})"
                raise DataError(f"{file}: entry {user}: item id {item} is out of range", limit)
            rows.append(user)
            held.append(item)
    if not rows:
        raise DataError(f"{file} is empty", "restore the file")
    return Pairs(np.array(rows, np.int64), np.array(held, np.int64)), len(entries)


def _shape(file: Path, state: dict[str, Any]) -> tuple[int, int]:
    shape = state.get("_shape", state.get("shape"))
    if not (type(shape) is tuple and len(shape) == 2 and all(type(size) is int for size in shape)):
        raise DataError(f"{file}: the matrix has no shape of users and items", "restore the file")
    if not all(0 < size <= _MAX_ROWS for size in shape):
        raise DataError(f"{file}: the matrix is {shape[0]} x {shape[1]}", "it needs at least one user and one item")
    return shape[0], shape[1]


def _numbers(state: dict[str, Any], name: str, kinds: str) -> np.ndarray[Any, Any]:
    return _real(state[name], name, kinds)


def _real(array: Any, name: str, kinds: str) -> np.ndarray[Any, Any]:
    values = array.real() if isinstance(array, Array) else None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        raise Unusable(f"{name} is no array of numbers")
    return values


def _coordinates(state: dict[str, Any]) -> tuple[IntArray, IntArray]:
    both = state["coords"] if "coords" in state else (state["row"], state["col"])
    if type(both) is not tuple or len(both) != 2:
        raise Unusable("the matrix has no rows and columns")
    user, item = (_real(array, name, "iu").astype(np.int64) for array, name in zip(both, ("row", "col"), strict=True))
    return user, item


def _times(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any] | None, str]:
    if (values == 1).all():
        return None, "all 1"
    if values.dtype.kind == "b" or not ((values >= _EARLIEST) & (values < _LATEST)).all():
        return None, "dropped"
    native = values.astype(values.dtype.newbyteorder("="))
    if native.dtype.kind == "f" and (native == np.floor(native)).all() and native.max() < 2.0**53:
        native = native.astype(np.int64)  # matrices of integers are often stored as floats
    return native, "times"
