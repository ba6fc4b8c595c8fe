"""An event log that arrives in pieces: what a piece says depends on none that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mbgraph import limits
from mbgraph.data.interactions import Vocabulary
from mbgraph.data.log_columns import Blocks, IdColumn, PartColumn, Place, RowOf, TimeColumn, in_row, raise_missing
from mbgraph.errors import DataError, UnknownNameError
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EventLog", "Piece", "Source"]


class Piece(NamedTuple):
    """Some events of a log, and the row of the source that each stands in, counted from 1, (N,).

    Without ``rows`` every row is an event.
    """

    frame: pd.DataFrame
    rows: np.ndarray | None = None


Source = Callable[[], Iterator[Piece]]
"""Starts a log from its first event; called again if times turn out to need another reading."""


class EventLog:
    """All columns of a log, piece by piece.

    Parameters
    ----------
    user, item, behavior : str
    time, split_column : str, optional
    target : str
    behaviors : set of str, optional
        Behaviors to keep; all by default.
    from_text : bool
        The source is a CSV, see `IdColumn`.
    rename : mapping of str to str, optional
        Other names for behaviors.
    check_behavior : callable, optional
        Raises for a behavior that is not to be had, as soon as it is met.
    place : callable, optional
        Says for messages where a row of the source stands.

    Attributes
    ----------
    events : int
        Events so far.
    counts : int array (B,)
        Events of every behavior, in the order of ``labels.words()``.
    """

    def __init__(
        self,
        user: str,
        item: str,
        behavior: str,
        time: str | None,
        split_column: str | None,
        *,
        target: str,
        behaviors: set[str] | None = None,
        from_text: bool = False,
        rename: Mapping[str, str] | None = None,
        check_behavior: Callable[[str], Any] | None = None,
        place: Place | None = None,
    ) -> None:
        self._user, self._item, self._behavior, self._time = user, item, behavior, time
        self._from_text, self._rename, self._check = from_text, rename, check_behavior
        self._place = place or in_row
        self._split_column, self._target, self._behaviors = split_column, target, behaviors
        self.labels = self._label_column()
        self.users, self.items = (IdColumn(name, from_text=from_text) for name in (user, item))
        self._times = None if time is None else TimeColumn(time, from_text=from_text, place=place)
        self._parts = None if split_column is None else PartColumn(split_column, place)
        self._rows = {name: Blocks() for name in ("behavior", "user", "item")}
        self._missing: dict[str, list[int]] = {}  # number and first row
        self.events = 0
        self.counts = np.zeros(0, np.int64)

    def read(self, source: Source) -> None:
        """Add all pieces; raises `DataError` if there are no events, values are missing or behaviors of mixed types."""
        for piece in source():
            self.add(piece)
        if not self.events:
            raise DataError("the event log is empty", "give at least one event")
        for name in self._needed():
            if name in self._missing:
                count, first = self._missing[name]
                raise_missing(name, count, self._place(first))
        self.labels.check()
        absent = self.labels.not_renamed()
        if absent:
            known = {*self.labels.words(), *(self._rename or {})} - set(absent)
            raise UnknownNameError("behavior to rename", absent[0], known)

    def add(self, piece: Piece) -> None:
        """Add a piece."""
        chunk = piece.frame
        row_of = _rows_of(piece, self.events)
        self.events += len(chunk)
        for name in self._needed():
            missing = np.flatnonzero(chunk[name].isna().to_numpy())
            if len(missing):
                self._missing.setdefault(name, [0, row_of(int(missing[0]))])[0] += len(missing)
        if self._missing or not len(chunk):
            return  # nothing but the number of missing values is told of such a log
        codes = self.labels.add(chunk[self._behavior])
        if codes is None:
            return
        words = self.labels.words()
        self._check_number(words)
        if self._check is not None:
            for word in words[len(self.counts) :]:
                if self._behaviors is None or word in self._behaviors:
                    self._check(word)
        self.counts = np.concatenate([self.counts, np.zeros(len(words) - len(self.counts), np.int64)])
        self.counts += np.bincount(codes, minlength=len(words))
        keep = self._kept(codes, words)
        self._append("behavior", codes if keep is None else codes[keep], len(words))
        for name, ids, column in (("user", self.users, self._user), ("item", self.items, self._item)):
            self._append(name, ids.add(chunk[column], keep), 1 << 31)
        if self._times is not None:
            self._times.add(chunk[self._time], row_of, keep)
        if self._parts is not None:
            is_target = np.array([word == self._target for word in words])[codes]
            self._parts.add(chunk[self._split_column], row_of, is_target, keep)

    def _check_number(self, words: Sequence[str]) -> None:
        """Refuse a column that holds too many labels to be one of behaviors, as soon as it is seen."""
        count, most = len(words), limits.current().behaviors
        if self._behaviors is not None:
            count = len(self._behaviors.intersection(words))
        if count <= most:
            return
        shown = ", ".join(words[:3])
        raise DataError(
            f"column {self._behavior!r} holds {count:,} labels and more ({shown[:80]}, ..), the limit is {most:,} "
            "(behaviors)",
            "name the column of behaviors (--behavior), those to keep (--behaviors), or raise the limit: mbgraph "
            f"--limit behaviors={count} COMMAND ..",
        )

    def _label_column(self) -> IdColumn:
        return IdColumn(self._behavior, noun="labels", from_text=self._from_text, as_text=True, rename=self._rename)

    def _needed(self) -> list[str]:
        return [name for name in (self._user, self._item, self._behavior, self._time) if name is not None]

    def _kept(self, codes: IntArray, words: Sequence[str]) -> np.ndarray | None:
        if self._behaviors is None:
            return None
        keep = np.array([word in self._behaviors for word in words])[codes]
        return None if keep.all() else keep

    def _append(self, name: str, codes: IntArray | None, limit: int) -> None:
        if codes is not None:
            self._rows[name].append(codes.astype(np.min_scalar_type(limit - 1) if limit < 1 << 31 else np.int32))

    def take_behaviors(self, table: np.ndarray) -> np.ndarray:
        """Return what ``table`` (B,) holds for each kept event's behavior, (N,)."""
        return self._rows["behavior"].join(table)

    def take_ids(self, kind: str) -> tuple[Vocabulary, np.ndarray]:
        """Return the users or items, sorted, and each kept event's row number, int32 (N,)."""
        vocabulary, rows = (self.users if kind == "user" else self.items).take(kind)
        return vocabulary, self._rows[kind].join(rows)

    def take_times(self, source: Source) -> np.ndarray[Any, Any] | None:
        """Return the times of the kept events, (N,); ``source`` is read once more if it must be."""
        return None if self._times is None else self._times.take(lambda: self._again(source))

    def _again(self, source: Source) -> Iterator[tuple[pd.Series, RowOf, np.ndarray | None]]:
        labels, events = self._label_column(), 0
        for piece in source():
            codes = labels.add(piece.frame[self._behavior])
            keep = None if codes is None else self._kept(codes, labels.words())
            yield piece.frame[self._time], _rows_of(piece, events), keep
            events += len(piece.frame)

    def take_parts(self) -> np.ndarray | None:
        """Return 0 train, 1 valid, 2 test for every kept event, int8 (N,)."""
        return None if self._parts is None else self._parts.take()


def _rows_of(piece: Piece, before: int) -> RowOf:
    """Return the rows of a piece's events, of which ``before`` came before it."""
    rows = piece.rows
    if rows is None:
        return lambda at: before + at + 1
    known = rows
    return lambda at: int(known[at])
