"""Columns of an event log that arrive in pieces, as compact arrays: ids, times, parts of a split.

Whatever is wrong is noted while pieces are added and raised when a column is taken, so that messages count the whole
log, and which of several faults is told depends on the columns' order, not on where the pieces end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.aliases import canonical_split
from mbgraph.data.columns import dates_of, distinct_values, is_written, numbers_of, times_of, whole_ids
from mbgraph.data.interactions import Vocabulary, as_ids
from mbgraph.errors import DataError, UnknownNameError
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BLOCK", "Blocks", "IdColumn", "PartColumn", "Place", "RowOf", "TimeColumn", "in_row", "raise_missing"]

RowOf = Callable[[int], int]
"""Returns the row of the source that an event of a piece stands in."""

Place = Callable[[int], str]
"""Says for messages where a row of the source stands."""

BLOCK = 1 << 22  # rows; a temporary of one block is some 32 MB
PARTS = {"train": 0, "valid": 1, "test": 2}
_EXACT = 2**53  # up to here every integer is a float


class Blocks:
    """A column that grows: blocks of a fixed size, so that neither growing nor joining ever holds it twice."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._length = 0

    def append(self, values: np.ndarray) -> None:
        """Add values; the type widens to hold all."""
        if not len(values):
            return
        if self._blocks and self._blocks[0].dtype != values.dtype:
            wide = np.result_type(self._blocks[0], values)
            self._blocks = [block.astype(wide, copy=False) for block in self._blocks]
        start = 0
        while start < len(values):
            place = self._length % BLOCK
            if place == 0:
                # memory of an empty array is not used before it is written to
                self._blocks.append(np.empty(BLOCK, self._blocks[0].dtype if self._blocks else values.dtype))
            taken = min(BLOCK - place, len(values) - start)
            self._blocks[-1][place : place + taken] = values[start : start + taken]
            start, self._length = start + taken, self._length + taken

    def join(self, table: np.ndarray | None = None) -> np.ndarray:
        """Return all values, or what ``table`` holds at each, (N,); the blocks are given up."""
        dtype = table.dtype if table is not None else self._blocks[0].dtype if self._blocks else np.dtype(np.int64)
        joined = np.empty(self._length, dtype)
        self._blocks.reverse()
        for start in range(0, self._length, BLOCK):
            block = self._blocks.pop()[: self._length - start]
            joined[start : start + len(block)] = block if table is None else table[block]
        self._length = 0
        return joined


class IdColumn:
    """Ids of one kind, numbered as they appear.

    Parameters
    ----------
    name : str
        The column.
    noun : str
        What messages call its values.
    from_text : bool
        The source knows text only (a CSV), and pieces are integers where all of it is written plainly so (``7``, not
        ``007``). The column is integers if every piece is, and otherwise text, every one of them.
    as_text : bool
        Keep text even where the values are integers.
    rename : mapping of str to str
        Other names for some of the values, where they are text.
    """

    def __init__(
        self,
        name: str,
        *,
        noun: str = "ids",
        from_text: bool = False,
        as_text: bool = False,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        self._what = f"{noun} in column {name!r}"
        self._rename = dict(rename or {})
        self._renamed: set[str] = set()
        self._from_text, self._as_text = from_text, as_text
        self._sorted = np.empty(0, np.int64)  # integers so far, and the number of each
        self._numbers = np.empty(0, np.int64)
        self._words: dict[str, int] = {}
        self._examples: dict[type, Any] = {}
        self._refused: list[np.ndarray] = []
        self._error: DataError | None = None

    def add(self, column: pd.Series, keep: np.ndarray | None = None) -> IntArray | None:
        """Return the number of each event's id, (N,), of the rows in the mask ``keep``; None once something is wrong.

        Rows that are not kept have no say, except in whether text is to be integers.
        """
        if keep is not None and (self._as_text or not self._from_text):
            column, keep = column[keep], None
        if len(column) == 0:
            return np.empty(0, np.int64)
        if column.dtype == object and not self._from_text:  # 1, 1.0 and True are one value to factorize
            self._examples.update({type(value): value for value in column.array})
        try:
            codes, values = distinct_values(column, self._what)
            if values.dtype == object and not self._from_text:
                self._examples.update({type(value): value for value in values})
            elif values.dtype.kind in "iuf" and not self._from_text:
                self._examples.setdefault(int, 0)
            ids = self._understood(values)
        except DataError as error:
            self._error = self._error or error
        if self._error is not None:
            return None
        if keep is not None:
            used, codes = np.unique(codes[keep], return_inverse=True)
            ids = ids[used]
        if not len(ids):
            return np.empty(0, np.int64)
        if ids.dtype.kind == "i" and not self._as_text:
            return self._number_integers(ids)[codes]
        words, names = self._words, self._rename
        if names:
            self._renamed |= names.keys() & set(map(str, ids.tolist()))
        numbers = [words.setdefault(names.get(word, word), len(words)) for word in map(str, ids.tolist())]
        return np.array(numbers, np.int64)[codes]

    def _understood(self, values: np.ndarray) -> np.ndarray:
        """Return values as int64 or object (of str), and make integers text again if these cannot be any."""
        try:
            ids = whole_ids(values, self._what)
        except DataError:
            if values.dtype.kind in "iu" or not all(isinstance(value, float) for value in values):
                self._refused.append(values)
            raise
        if self._from_text and not self._as_text and ids.dtype.kind != "i":
            self._as_text = True  # what was plain as an integer is the same text again
            numbers = self._sorted[np.argsort(self._numbers)].tolist()
            self._words = {str(number): place for place, number in enumerate(numbers)}
            self._sorted = self._numbers = np.empty(0, np.int64)
        return ids

    def _number_integers(self, ids: IntArray) -> IntArray:
        """Return the number of each distinct id, (V,), new ones numbered on."""
        order = np.argsort(ids)
        ascending = ids[order]
        place = np.searchsorted(self._sorted, ascending)
        known = np.zeros(len(ids), bool)
        inside = place < len(self._sorted)
        known[inside] = self._sorted[place[inside]] == ascending[inside]
        found = np.empty(len(ids), np.int64)
        found[known] = self._numbers[place[known]]
        found[~known] = len(self._sorted) + np.arange(int((~known).sum()))
        self._sorted = np.insert(self._sorted, place[~known], ascending[~known])
        self._numbers = np.insert(self._numbers, place[~known], found[~known])
        numbers = np.empty(len(ids), np.int64)
        numbers[order] = found
        return numbers

    def check(self) -> None:
        """Raise `DataError` if ids are of mixed or other types."""
        if len(self._examples) > 1:
            examples = np.empty(len(self._examples), object)
            examples[:] = list(self._examples.values())
            as_ids(examples, self._what)
        if self._refused:
            as_ids(np.concatenate(self._refused), self._what)
        if self._error is not None:
            raise self._error

    def words(self) -> list[str]:
        """Return the distinct values as text, as they appeared."""
        return list(self._words)

    def not_renamed(self) -> list[str]:
        """Return the values that were to be renamed and never appeared."""
        return [word for word in self._rename if word not in self._renamed]

    def take(self, kind: str) -> tuple[Vocabulary, np.ndarray]:
        """Return the ids, integers sorted by value or text by code point, and the row of each number, int32 (V,)."""
        self.check()
        if self._words:
            ids = np.array(sorted(self._words), dtype=object)
            numbers = np.fromiter((self._words[word] for word in ids), np.int64, len(ids))
            self._words = {}
        else:
            ids, numbers = self._sorted, self._numbers
        rows = np.empty(len(ids), np.int32)
        rows[numbers] = np.arange(len(ids))
        if ids.dtype.kind == "i" and len(ids) and ids[0] == 0 and ids[-1] == len(ids) - 1:
            return Vocabulary(size=len(ids), kind=kind), rows  # distinct and sorted: they are the row numbers
        return Vocabulary(ids, kind=kind), rows


class TimeColumn:
    """Times: numbers, dates, or text that is read as numbers if all of it can be and otherwise as dates."""

    def __init__(self, name: str, *, from_text: bool = False, dated: bool = False, place: Place | None = None) -> None:
        self._name, self._from_text = name, from_text
        self._place = place or in_row
        self._blocks = Blocks()
        self._numeric: set[np.dtype[Any]] = set()  # what text was read as
        self._dated = dated  # some text is no number, so all of it must be dates
        self._exact = True
        self._error: DataError | None = None

    def add(self, column: pd.Series, row_of: RowOf, keep: np.ndarray | None) -> None:
        """Add the times of a piece; all are checked, ``keep`` kept."""
        try:
            if self._from_text or is_written(column):
                times = self._written(column, row_of)
            else:
                times = times_of(column, lambda at: self._place(row_of(at)))
        except DataError as error:
            self._error = self._error or error
        if self._error is None:
            self._blocks.append(times if keep is None else times[keep])

    def _written(self, column: pd.Series, row_of: RowOf) -> np.ndarray:
        import pandas as pd

        codes: IntArray | None = None
        text, is_integer = column, column.dtype.kind == "i"
        if is_integer and self._dated:
            text, is_integer = column.astype(str), False
        if not is_integer and (text.dtype != object or pd.api.types.infer_dtype(text) == "string"):
            codes, distinct = pd.factorize(text)  # events of the same second are read once
            text = pd.Series(distinct, dtype=object, name=column.name)

        def place(at: int) -> str:
            return self._place(row_of(at if codes is None else int(np.argmax(codes == at))))

        numbers = None if self._dated else text if is_integer else numbers_of(text)
        if numbers is None:
            self._dated = True
            times = dates_of(text, place)
        else:
            self._numeric.add(np.dtype(numbers.dtype) if isinstance(numbers.dtype, np.dtype) else np.dtype(object))
            times = times_of(numbers.rename(column.name), place)
            if times.dtype == np.int64:
                self._exact &= int(times.min()) >= -_EXACT and int(times.max()) <= _EXACT
        return times if codes is None else times[codes]

    def take(self, again: Callable[[], Iterator[tuple[pd.Series, RowOf, np.ndarray | None]]]) -> np.ndarray[Any, Any]:
        """Return the kept times, (N,); ``again`` gives the pieces once more where an earlier one was misread."""
        if self._dated and self._numeric:  # "2024" is a number until another row says 2024-01-31
            dates = TimeColumn(self._name, from_text=self._from_text, dated=True, place=self._place)
            for column, row_of, keep in again():
                dates.add(column, row_of, keep)
            return dates.take(again)
        widens = self._numeric == {np.dtype(np.int64), np.dtype(np.float64)} and self._exact
        if len(self._numeric) > 1 and not widens:  # integers too large for what the others are: all have to be seen
            import pandas as pd

            pieces = list(again())
            kind = str if self._from_text else object
            whole = pd.concat([column.astype(kind) for column, _, _ in pieces], ignore_index=True)
            rows = np.concatenate([[row_of(at) for at in range(len(column))] for column, row_of, _ in pieces])
            keep = np.concatenate([np.ones(len(column), bool) if kept is None else kept for column, _, kept in pieces])
            one = TimeColumn(self._name, place=self._place)
            one.add(whole.rename(self._name), lambda at: int(rows[at]), keep)
            return one.take(again)
        if self._error is not None:
            raise self._error
        times = self._blocks.join()
        # rows that are not kept have a say in the type, as they are read with the rest
        return times.astype(np.float64, copy=False) if widens else times


def in_row(row: int) -> str:
    """Say where a row stands in a source of one file."""
    return f"row {row}"


class PartColumn:
    """Parts of a given split, one per event; only events of the target must say which."""

    def __init__(self, name: str, place: Place | None = None) -> None:
        self._name, self._place = name, place or in_row
        self._blocks = Blocks()
        self._missing, self._first_missing = 0, 0
        self._unknown: str | None = None

    def add(self, column: pd.Series, row_of: RowOf, is_target: np.ndarray, keep: np.ndarray | None) -> None:
        """Add the parts of the events of a piece."""
        missing = np.flatnonzero(column.isna().to_numpy() & is_target)
        if len(missing) and not self._missing:
            self._first_missing = row_of(int(missing[0]))
        self._missing += len(missing)
        labels = column.astype(object).where(column.notna(), "train").astype(str)
        known = {label: PARTS.get(canonical_split(label) or label) for label in labels.unique()}
        if self._unknown is None:
            self._unknown = next((label for label, part in known.items() if part is None), None)
        if self._unknown is None:
            parts = labels.map(known).to_numpy(dtype=np.int8)
            self._blocks.append(parts if keep is None else parts[keep])

    def take(self) -> np.ndarray:
        """Return 0 train, 1 valid, 2 test for every kept event, int8 (N,)."""
        raise_missing(self._name, self._missing, self._place(self._first_missing))
        if self._unknown is not None:
            raise UnknownNameError(f"split in column {self._name!r}:", self._unknown, PARTS)
        return self._blocks.join()


def raise_missing(name: str, count: int, first: str) -> None:
    """Raise `DataError` if values are missing, with number and place."""
    if count:
        raise DataError(f"column {name!r} has {count} missing values, the first in {first}", "drop or fill those rows")
