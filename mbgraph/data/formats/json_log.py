"""Event logs in JSON lines: an object per line, plain or gzipped."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mbgraph import limits
from mbgraph.data.formats.csv_log import encoding_of
from mbgraph.data.formats.log_file import LogFile, place_in, reading_log, unpacked
from mbgraph.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JsonLog"]

_LOOKED_AT = 1000  # lines whose keys are the columns
_ROWS = 200_000  # objects of Python take several times the memory of arrays


class JsonLog(LogFile):
    """A file with a JSON object per line; its columns are the keys of the first thousand.

    A key that a line lacks, and null, is a missing value.

    Parameters
    ----------
    path : Path
    encoding : str, optional
        By default what a byte order mark says, otherwise UTF-8.

    Raises
    ------
    DataError
        If a line is no object; the message names it.
    """

    kind = "JSON lines"

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        super().__init__(path)
        self.size = path.stat().st_size
        with reading_log(path):
            if encoding is None:
                with unpacked(path) as file:
                    encoding = encoding_of(file.read(4))
            self._encoding = encoding
            names: dict[str, None] = {}
            with unpacked(path) as file:
                for number, row in enumerate(self._objects(file)):
                    if number == _LOOKED_AT:
                        break
                    names.update(dict.fromkeys(row))
                    limits.check("columns", len(names), path)
        self.names = list(names)

    def _objects(self, file: IO[bytes]) -> Iterator[dict[str, Any]]:
        text = io.TextIOWrapper(file, encoding=self._encoding)
        number, most = 0, limits.current().line_mib
        while line := text.readline(most << 20):
            number += 1
            if len(line) == most << 20:
                raise limits.refusal("line_mib", f"{self.path} line {number}: {most:,} MiB and more")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{self.path} line {number} is not valid JSON: {error}", "write one object a line"
                ) from error
            if type(row) is not dict:
                raise DataError(f"{self.path} line {number} is no JSON object", "write one object a line")
            yield row

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[tuple[dict[str, list[Any]], int, int]]:
        """Yield the values of each column, as lists."""
        rows = min(rows, _ROWS)
        with unpacked(self.path) as file:
            columns: dict[str, list[Any]] = {name: [] for name in wanted}
            length = 0
            for row in self._objects(file):
                for name, values in columns.items():
                    values.append(row.get(name))
                length += 1
                if length == rows:
                    yield columns, length, self._done(file)
                    columns, length = {name: [] for name in wanted}, 0
            if length:
                yield columns, length, self.size

    def _done(self, file: Any) -> int:
        return min(place_in(file), self.size)

    def frame(self, pieces: Sequence[dict[str, list[Any]]]) -> pd.DataFrame:
        """Return the objects."""
        import pandas as pd

        joined = {name: [value for piece in pieces for value in piece[name]] for name in pieces[0]}
        return pd.DataFrame({name: pd.Series(_array(values)) for name, values in joined.items()})


def _array(values: list[Any]) -> np.ndarray[Any, Any]:
    # never of integers, although all may be: the next piece may hold others, and a column is of one kind
    array = np.empty(len(values), object)
    array[:] = values
    return array
