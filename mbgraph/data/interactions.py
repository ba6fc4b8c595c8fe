"""Pairs of users and items, and the vocabularies that tie row numbers to original ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from mbgraph.errors import DataError, UsageError
from mbgraph.typing import IntArray

__all__ = ["CSR", "TIME_REMEDY", "Pairs", "Vocabulary", "as_ids", "check_times"]

_LARGEST = np.iinfo(np.int64).max
TIME_REMEDY = "give seconds, or another count since a fixed moment"


@dataclass(frozen=True, eq=False)
class Pairs:
    """A list of (user, item) pairs with optional times, in the order of their source.

    Attributes
    ----------
    user, item : int64 array (N,)
        Row numbers, not original ids. Other integer types are converted.
    time : integer or float array (N,), optional
        Whatever clock the source used, in the source's own type.

    Raises
    ------
    DataError
        If ids are not whole numbers, a time is not a number, or the lengths differ.
    """

    user: IntArray
    item: IntArray
    time: np.ndarray[Any, Any] | None = None

    def __post_init__(self) -> None:
        # int64 and contiguous here, so that keys cannot overflow and torch can take the memory as it is everywhere
        object.__setattr__(self, "user", _rows("user", self.user))
        object.__setattr__(self, "item", _rows("item", self.item))
        if self.time is not None:
            time = np.asarray(self.time)
            if time.dtype.kind not in "iuf":
                raise DataError(
                    f"time is {time.dtype}, not a number", "give seconds or another count since a fixed moment"
                )
            object.__setattr__(self, "time", time)
        lengths = {name: np.shape(column) for name, column in vars(self).items() if column is not None}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {shape[0] if len(shape) == 1 else shape}" for name, shape in lengths.items())
            raise DataError(f"the columns have different lengths: {told}", "give every pair one of each")

    @classmethod
    def empty(cls) -> Pairs:
        """Return a list of no pairs."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, selection: Any) -> Pairs:
        """Return the pairs at an index array, slice or boolean mask."""
        time = None if self.time is None else self.time[selection]
        return Pairs(self.user[selection], self.item[selection], time)

    def keys(self, num_items: int) -> IntArray:
        """Return ``user * num_items + item``: one int64 per pair, unique to it.

        Shapes: () -> (N,).
        """
        return self.user * np.int64(num_items) + self.item

    def csr(self, num_users: int) -> CSR:
        """Return the pairs grouped by user, items ascending."""
        return CSR.from_pairs(self.user, self.item, num_users)


def check_times(what: str, times: np.ndarray[Any, Any]) -> None:
    """Raise `DataError` unless all times, (N,), are finite numbers that fit into 64 bits with a sign.

    The smallest such number is none: numpy and pandas take it for a time that is not known.
    """
    if not len(times) or (times.dtype.kind in "iu" and times.dtype.itemsize < 8):
        return
    if times.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(times))
    elif times.dtype.kind == "u":
        wrong = np.flatnonzero(times > np.uint64(_LARGEST))
    else:
        wrong = np.flatnonzero(times < -_LARGEST)
    if len(wrong):
        raise DataError(f"{what}: {times[wrong[0]]} is no time", TIME_REMEDY)


def _rows(kind: str, values: Any) -> IntArray:
    """Return row numbers as a contiguous int64 array (N,)."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{kind} ids have shape {array.shape}, not (N,)", "give one id per pair")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(f"{int(np.isnan(array).sum())} {kind} ids are NaN", "drop or fill them")
    if array.dtype.kind not in "iu" and len(array):
        raise DataError(f"{kind} ids are {array.dtype}, not integers", "number them from 0")
    if array.dtype == np.uint64 and len(array) and int(array.max()) > _LARGEST:
        raise DataError(f"{kind} id {int(array.max())} is out of range", "number them from 0")
    return np.ascontiguousarray(array, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class CSR:
    """Column numbers grouped by row: row ``r`` owns ``indices[indptr[r]:indptr[r + 1]]``, ascending.

    Attributes
    ----------
    indptr : int64 array (R + 1,)
    indices : int64 array (N,)
    """

    indptr: IntArray
    indices: IntArray

    @classmethod
    def from_pairs(cls, rows: IntArray, columns: IntArray, num_rows: int) -> CSR:
        """Group ``columns`` by ``rows``; both (N,)."""
        order = np.lexsort((columns, rows))
        indptr = np.zeros(num_rows + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=num_rows), out=indptr[1:])
        return cls(indptr, columns[order])

    def row(self, number: int) -> IntArray:
        """Return the columns of one row."""
        return self.indices[self.indptr[number] : self.indptr[number + 1]]

    def degrees(self) -> IntArray:
        """Return the number of columns of every row, (R,)."""
        return np.diff(self.indptr)

    def gather(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Return all entries of several rows: (positions in ``rows``, columns), both (M,)."""
        where, places = self.places(rows)
        return where, self.indices[places]

    def places(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Return where all entries of several rows stand: (positions in ``rows``, places in ``indices``), both (M,)."""
        starts, counts = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        where = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
        offsets = np.arange(len(where), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
        return where, np.repeat(starts, counts) + offsets


class Vocabulary:
    """Original ids by row number, and row numbers by original id.

    Parameters
    ----------
    ids : sequence, optional
        The original id of every row, no duplicates: all integers (of 64 bits), all text, or all `uuid.UUID`, which
        become text. Left out, row numbers are their own ids.
    size : int, optional
        The number of rows, needed only when ``ids`` is left out.
    kind : str
        ``"user"`` or ``"item"``, for messages.

    Raises
    ------
    DataError
        If ids are of mixed or other types (numbers with a fraction, booleans, bytes, nothing), or one stands twice.

    Examples
    --------
    >>> users = Vocabulary(["ann", "bob"], kind="user")
    >>> users.index_of(["bob"]).tolist(), users.ids[0]
    ([1], 'ann')
    """

    def __init__(
        self, ids: Sequence[Any] | np.ndarray | None = None, *, size: int | None = None, kind: str = "id"
    ) -> None:
        if ids is None and size is None:
            raise UsageError("a vocabulary needs ids or a size")
        self.kind = kind
        self.is_identity = ids is None
        self._ids: np.ndarray | None = None if ids is None else as_ids(ids, f"{kind} ids")
        self._size = int(size or 0) if self._ids is None else len(self._ids)
        self._rows: dict[Any, int] | None = None
        if self._size < 0 or (size is not None and size != self._size):
            raise UsageError(f"{self._size} {kind} ids were given and size={size}", "leave the size out")
        if self._ids is not None and not _ascend(self._ids) and len(self._lookup()) != self._size:
            twice = next(value for row, value in enumerate(self.ids.tolist()) if self._lookup()[value] != row)
            raise DataError(f"{kind} ids contain duplicates such as {twice!r}", "give every row its own id")

    @property
    def ids(self) -> np.ndarray:
        """Original ids by row number, int64 or object (of str), (R,)."""
        if self._ids is None:  # made on demand: a file may claim any number of rows, and that must not cost memory
            self._ids = np.arange(self._size, dtype=np.int64)
        return self._ids

    def _lookup(self) -> dict[Any, int]:
        if self._rows is None:
            self._rows = {value: row for row, value in enumerate(self.ids.tolist())}
        return self._rows

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        kind = "row numbers" if self.is_identity else "integers" if self.ids.dtype.kind == "i" else "text"
        return f"Vocabulary({self._size:,} {self.kind} ids, {kind})"

    def __getitem__(self, rows: Any) -> Any:
        """Return the original id(s) of row number(s)."""
        return self.ids[rows]

    def subset(self, rows: IntArray) -> Vocabulary:
        """Return the ids of some rows, ascending and each once, numbered anew, (R,)."""
        ids = self.ids[rows]
        if ids.dtype.kind == "i" and len(ids) and ids[0] == 0 and ids[-1] == len(ids) - 1 and _ascend(ids):
            return Vocabulary(size=len(ids), kind=self.kind)
        return Vocabulary(ids, kind=self.kind)

    def find(self, ids: Iterable[Any]) -> IntArray:
        """Return the row number of each id, -1 for unknown ones.

        Ids may be given as text even where the originals are integers, as a shell does.
        """
        numeric = self.is_identity or self.ids.dtype.kind == "i"
        rows = []
        for value in ids:
            if numeric:
                try:
                    key = int(value)
                    known = str(value).strip() == str(key) or key == value
                except (TypeError, ValueError, OverflowError):
                    key, known = -1, False
                if not known:
                    rows.append(-1)
                elif self.is_identity:
                    rows.append(key if 0 <= key < self._size else -1)
                else:
                    rows.append(self._lookup().get(key, -1))
            else:
                rows.append(self._lookup().get(str(value), -1))
        return np.array(rows, dtype=np.int64)

    def index_of(self, ids: Iterable[Any]) -> IntArray:
        """Return the row number of each id; raises `DataError` that names the first unknown one."""
        ids = list(ids)
        rows = self.find(ids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(
                f"unknown {self.kind} {ids[missing[0]]!r}{more}", f"the dataset has {len(self)} {self.kind}s"
            )
        return rows


def _ascend(ids: np.ndarray) -> bool:
    """Say whether ids ascend strictly, so that none stands twice: millions of them need no dictionary to know."""
    return bool((ids[1:] > ids[:-1]).all())


def as_ids(ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
    """Return ids as int64, or as object holding nothing but str, (R,); `DataError` on mixed and other types."""
    remedy = "turn all of them into text"
    array = ids if isinstance(ids, np.ndarray) else np.array(list(ids), dtype=object)
    if len(array) == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1:
        raise DataError(f"{what} have shape {array.shape}, not (N,)", "give one id per row")
    if array.dtype.kind == "O":
        types = sorted({_type_name(known) for known in set(map(type, array.tolist()))})
        if types in (["str"], ["UUID"]):
            return np.array([str(value) for value in array], dtype=object)  # also np.str_ becomes str
        if types != ["int"]:
            found = f"mix {', '.join(types)}" if len(types) > 1 else f"are {types[0]}, neither integers nor text"
            raise DataError(f"{what} {found}", remedy)
    elif array.dtype.kind == "U":
        return array.astype(object)
    elif array.dtype.kind not in "iu":
        raise DataError(f"{what} are {array.dtype}, neither integers nor text", remedy)
    low, high = int(array.min()), int(array.max())
    if low < -_LARGEST - 1 or high > _LARGEST:
        raise DataError(f"{what}: {high if high > _LARGEST else low} has more than 64 bits", remedy)
    return array.astype(np.int64)


def _type_name(known: type) -> str:
    if issubclass(known, bool | np.bool_):
        return "bool"
    names = {"int": (int, np.integer), "str": (str,), "UUID": (UUID,)}
    return next((name for name, types in names.items() if issubclass(known, types)), known.__name__)
