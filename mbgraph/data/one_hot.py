"""Event logs with a column per behavior: a row with ``view`` 1 and ``cart`` 1 is two events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mbgraph.data.stream import Piece
from mbgraph.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BEHAVIOR", "OneHot"]

BEHAVIOR = "behavior"
"""The column that takes the place of the columns of behaviors."""

_YES = {"1", "1.0", "true", "yes", "t", "y"}
_NO = {"", "0", "0.0", "false", "no", "f", "n", "nan", "none", "<na>"}


class OneHot:
    """Makes events of rows that say 0 or 1 for every behavior.

    Parameters
    ----------
    columns : sequence of str
        Behaviors are called like their columns. Those of one row become events in this order.
    place : callable
        Says for messages where a row of the source stands.

    Attributes
    ----------
    rows, empty : int
        Rows so far, and those of them without any behavior.
    """

    def __init__(self, columns: Sequence[str], place: Callable[[int], str] = "row {}".format) -> None:
        self.columns, self._place = list(columns), place
        self.rows = self.empty = 0

    def events(self, frames: Iterator[pd.DataFrame]) -> Iterator[Piece]:
        """Yield the events of each frame.

        Raises
        ------
        DataError
            If a value is neither 0 nor 1, with its row; an empty one is 0.
        """
        import pandas as pd

        self.rows = self.empty = 0
        for frame in frames:
            said = np.stack([self._said(frame[name]) for name in self.columns], axis=1)  # (N, K)
            row, behavior = np.nonzero(said)
            rest = frame.drop(columns=self.columns).iloc[row].reset_index(drop=True)
            rest[BEHAVIOR] = pd.Categorical.from_codes(behavior, categories=self.columns)
            rows, self.rows = self.rows + row + 1, self.rows + len(frame)
            self.empty += int((~said.any(axis=1)).sum())
            yield Piece(rest, rows)

    def _said(self, column: pd.Series) -> np.ndarray:
        """Return which rows have the behavior, (N,) of bool."""
        import pandas as pd

        codes, values = pd.factorize(column)  # missing values have code -1
        words = [str(value).strip().lower() for value in values]
        wrong = [code for code, word in enumerate(words) if word not in _YES and word not in _NO]
        if wrong:
            at = int(np.flatnonzero(np.isin(codes, wrong))[0])
            raise DataError(
                f"column {column.name!r} is {str(values[codes[at]])[:40]!r} in {self._place(self.rows + at + 1)}, "
                "neither 0 nor 1",
                "write 1 where the row is an event of this behavior, and 0 where it is not",
            )
        return np.array([*(word in _YES for word in words), False])[codes]
