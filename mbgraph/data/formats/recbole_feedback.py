"""Float columns of a RecBole table that say what a row means: ``label`` 0 or 1, or a column per behavior."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mbgraph.data.aliases import is_known
from mbgraph.data.one_hot import OneHot
from mbgraph.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SIGNALS", "FeedbackColumns"]

SIGNALS = ("apply", "comment", "download", "follow", "forward", "hate", "like", "save", "share")
"""Names of feedback beside those of `mbgraph.data.aliases`."""

_LABEL = "label"
_PREFIX = "\0"  # of our names for these columns, so that none is taken for another


class FeedbackColumns:
    """The columns of a table that are neither ids, time, split nor the behavior.

    Parameters
    ----------
    types : mapping of str to str
        Columns of the table with their types.
    taken : iterable of str
        Columns that are read already.
    named : bool
        A column names behaviors, so that none of these can.

    Attributes
    ----------
    names : list of str
        Columns to read.
    columns : list of str
        What to call them meanwhile.
    """

    def __init__(self, types: Mapping[str, str], taken: Iterable[str], named: bool) -> None:
        others = {name: kind for name, kind in types.items() if name not in set(taken)}
        floats = [name for name, kind in others.items() if kind == "float"]
        self._signals = [] if named else [name for name in floats if _is_signal(name)]
        self._labels = [name for name in floats if name == _LABEL]
        self.names = [*self._signals, *self._labels]
        self.columns = [_PREFIX + name for name in self.names]
        self._notes = {
            f"{name}:{kind}": "not read: it is neither an id, a time, a split nor a behavior"
            for name, kind in others.items()
            if name not in self.names
        }

    def apply(self, log: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
        """Return the events that the columns tell, without these, and what is to be said of each column.

        Raises
        ------
        DataError
            If no row counts.
        """
        notes = dict(self._notes)
        values = {name: _zeros_and_ones(log.pop(_PREFIX + name)) for name in self.names}
        for name, said in values.items():
            if said is None:
                notes[f"{name}:float"] = "not read: it holds other values than 0 and 1"
        signals = [name for name in self._signals if values[name] is not None]
        label = values.get(_LABEL)
        before = len(log)
        if signals:
            for name in signals:
                log[name] = values[name]
                notes[f"{name}:float"] = "a behavior: rows with 1 are its events"
            if label is not None:
                notes[f"{_LABEL}:float"] = f"not read, as the behaviors are {', '.join(signals)}"
            spread = OneHot(signals)
            log = next(spread.events(iter([log]))).frame
            log["behavior"] = log["behavior"].astype(object)
            if spread.empty:
                notes["rows"] = f"{spread.empty:,} of {before:,} rows without any behavior were left out"
        elif label is not None:
            log = log[label].reset_index(drop=True)
            notes[f"{_LABEL}:float"] = f"{before - len(log):,} of {before:,} rows with 0 were left out"
        if not len(log):
            raise DataError(f"{file}: no row of {before:,} counts as an event", f"{self.names[0]} is 1 in none")
        return log, notes


def _is_signal(name: str) -> bool:
    bare = name.lower().removeprefix("is_")
    return is_known(bare) or bare in SIGNALS


def _zeros_and_ones(column: pd.Series) -> np.ndarray | None:
    """Return which rows hold 1, (N,) of bool; None if any holds something else than 0, 1 or nothing."""
    import pandas as pd

    numbers = pd.to_numeric(column.where(column != "", "0"), errors="coerce").to_numpy(dtype=np.float64)
    return numbers == 1 if np.isin(numbers, (0, 1)).all() else None
