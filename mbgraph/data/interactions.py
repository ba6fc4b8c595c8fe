"""Pairs of users and items, and the vocabularies that tie row numbers to original ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbgraph.errors import DataError, UsageError
from mbgraph.typing import IntArray

__all__ = ["CSR", "Pairs", "Vocabulary"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """A list of (user, item) pairs with optional times, in the order of their source.

    Attributes
    ----------
    user, item : int64 array (N,)
        Row numbers, not original ids.
    time : int64 or float64 array (N,), optional
        Whatever clock the source used.
    """

    user: IntArray
    item: IntArray
    time: np.ndarray[Any, Any] | None = None

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
        starts, counts = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        where = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
        offsets = np.arange(len(where), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
        return where, self.indices[np.repeat(starts, counts) + offsets]


class Vocabulary:
    """Original ids by row number, and row numbers by original id.

    Parameters
    ----------
    ids : sequence, optional
        The original id of every row: all integers or all strings, no duplicates.
        Left out, row numbers are their own ids.
    size : int, optional
        The number of rows, needed only when ``ids`` is left out.
    kind : str
        ``"user"`` or ``"item"``, for messages.

    Examples
    --------
    >>> users = Vocabulary(["ann", "bob"], kind="user")
    >>> users.index_of(["bob"]).tolist(), users.ids[0]
    ([1], 'ann')
    """

    def __init__(self, ids: Sequence[Any] | np.ndarray | None = None, *, size: int | None = None, kind: str = "id"):
        if ids is None and size is None:
            raise UsageError("a vocabulary needs ids or a size")
        self.kind = kind
        self.is_identity = ids is None
        self.ids: np.ndarray = np.arange(size, dtype=np.int64) if ids is None else self._as_ids(ids)
        self._rows: dict[Any, int] | None = None
        if not self.is_identity and len(self._lookup()) != len(self.ids):
            raise DataError(f"{kind} ids contain duplicates", "give every row its own id")

    @staticmethod
    def _as_ids(ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        array = np.asarray(ids)
        if array.dtype.kind in "iu":
            return array.astype(np.int64)
        return np.array([str(value) for value in array], dtype=object)

    def _lookup(self) -> dict[Any, int]:
        if self._rows is None:
            self._rows = {value: row for row, value in enumerate(self.ids.tolist())}
        return self._rows

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Any:
        """Return the original id(s) of row number(s)."""
        return self.ids[rows]

    def find(self, ids: Iterable[Any]) -> IntArray:
        """Return the row number of each id, -1 for unknown ones.

        Ids may be given as text even where the originals are integers, as a shell does.
        """
        numeric = self.ids.dtype.kind == "i"
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
                    rows.append(key if 0 <= key < len(self.ids) else -1)
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
            raise DataError(f"unknown {self.kind} {ids[missing[0]]!r}{more}", f"the dataset has {len(self)} {self.kind}s")
        return rows
