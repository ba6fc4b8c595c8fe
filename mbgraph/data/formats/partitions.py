"""Folders that hold a column in their names, as Hive and Spark write them: ``behavior=view/part-0.parquet``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from mbgraph.data.columns import is_plain
from mbgraph.data.formats.log_file import LogFile
from mbgraph.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PartitionedLog", "partitioned", "values_in"]

_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def values_in(path: Path) -> dict[str, str]:
    """Return the columns and values that the folders of a relative path name; ``%20`` and the like are decoded."""
    pairs = (part.partition("=") for part in path.parent.parts)
    return {unquote(name): unquote(value) for name, sign, value in pairs if sign and name}


def partitioned(files: Sequence[LogFile], values: Sequence[Mapping[str, str]]) -> list[LogFile]:
    """Return files with the columns that their folders name, the files themselves where none names one.

    A column is integers if every folder writes it plainly as one (``7``, not ``007``), and otherwise text. A column
    that a file holds itself is the file's.

    Parameters
    ----------
    files : sequence of LogFile
    values : sequence of dict of str to str
        Of each file, what `values_in` found.
    """
    names = list(dict.fromkeys(name for found in values for name in found))
    if not names:
        return list(files)
    columns: dict[str, dict[str, Any]] = {}
    for name in names:
        words = {found[name] for found in values if name in found}
        whole = all(is_plain(word) for word in words if word != _NOTHING) and _NOTHING not in words
        columns[name] = {word: int(word) if whole else None if word == _NOTHING else word for word in words}
    return [
        PartitionedLog(file, {name: columns[name][word] for name, word in found.items() if name not in file.names})
        for file, found in zip(files, values, strict=True)
    ]


class PartitionedLog(LogFile):
    """A file of events in which some columns have one value each, which stands beside the file."""

    def __init__(self, file: LogFile, values: Mapping[str, Any]) -> None:
        super().__init__(file.path)
        self._file, self._values = file, dict(values)
        self.names = [*file.names, *values]
        self.kind, self.is_text, self.typed, self.size = file.kind, file.is_text, file.typed, file.size

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[tuple[Any, int, int]]:
        """Yield what the file yields, with how long it is and the values of the folders' columns."""
        own = [name for name in wanted if name not in self._values]
        # a piece without a column would not say how long it is
        own = own or self._file.names[:1]
        for piece, length, done in self._file.pieces(own, rows):
            yield (piece, length, [self._values.get(name) for name in wanted], list(wanted)), length, done

    def frame(self, pieces: Sequence[Any]) -> pd.DataFrame:
        """Return the file's columns with the folders' among them, in the order asked for."""
        frame = self._file.frame([piece for piece, _, _, _ in pieces])
        wanted = pieces[0][3]
        lengths = [length for _, length, _, _ in pieces]
        for place, name in enumerate(wanted):
            if name not in frame.columns:
                frame[name] = np.repeat(_column([values[place] for _, _, values, _ in pieces]), lengths)
        return frame[wanted]

    def unknown(self, name: str) -> DataError | None:
        """Return what the file says of a column that is not there."""
        return self._file.unknown(name)


def _column(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64 if all(isinstance(value, int) for value in values) else object)
