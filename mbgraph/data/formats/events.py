"""Event logs on disk: CSV and Parquet, told apart by content and read in pieces."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbgraph.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["CHUNK_ROWS", "MISSING", "EventFile", "Progress", "read_events"]

CHUNK_ROWS = 1_000_000
"""Events read at a time: enough that a piece's own cost does not show, some 100 MB."""

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "\\N")
"""What stands for a missing value in a CSV file."""

Progress = Callable[[int, int, int], None]

_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_BLOCK = 1 << 22  # bytes; a row of a CSV must fit into one
_REMEDY = "give a CSV with a header or a Parquet file"


class EventFile:
    """An event log on disk: looked at when made, read in pieces.

    Parameters
    ----------
    path : path
        A CSV file with a header, in UTF-8, plain or gzipped, separated by comma, tab, semicolon or bar (whichever the
        header has most of); or a Parquet file.

    Attributes
    ----------
    names : list of str
        The file's columns.
    is_text : bool
        The file is a CSV: nothing says whether a column holds numbers.

    Raises
    ------
    DataError
        If the file is missing, empty or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                head = file.read(1024)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}", _REMEDY) from error
        if not head:
            raise DataError(f"{self.path} is empty", _REMEDY)
        self.is_text = not head.startswith(_PARQUET)
        self._gzipped = head.startswith(_GZIP)
        if self.is_text and b"\0" in head and not self._gzipped:
            raise DataError(f"{self.path} is neither text nor Parquet", _REMEDY)
        self._separator = ","
        with self._reading():
            self.names = self._header() if self.is_text else self._schema()

    def wanted(self, columns: Sequence[str] | None = None) -> list[str]:
        """Return the columns to read, each once; `UnknownNameError` or `DataError` if one is missing or ambiguous."""
        wanted = list(dict.fromkeys(self.names if columns is None else columns))
        for name in wanted:
            if name not in self.names:
                raise UnknownNameError("column", name, self.names)
            if self.names.count(name) > 1:
                raise DataError(
                    f"{self.path} has {self.names.count(name)} columns called {name!r}", "rename all but one"
                )
        return wanted

    def chunks(
        self, columns: Sequence[str] | None = None, rows: int = CHUNK_ROWS, progress: Progress | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield the log ``rows`` events at a time, so that memory does not grow with the file.

        A column of a CSV is integers in pieces where every value is written plainly as one, and text in others.

        Parameters
        ----------
        columns : sequence of str, optional
            Columns to read; all by default.
        rows : int
        progress : callable, optional
            Called after each piece with the number of events read, and how much of the file that is: (events, done,
            total), in bytes of a CSV and rows of a Parquet file.

        Raises
        ------
        DataError, UnknownNameError
        """
        for table in self._tables(self.wanted(columns), rows, progress):
            yield self._frame(table)

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the whole log at once."""
        import pyarrow as pa

        tables = list(self._tables(self.wanted(columns), CHUNK_ROWS, None))
        if not tables:
            raise DataError(f"{self.path} holds no events", "give a file with at least one row")
        return self._frame(pa.concat_tables(tables))

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        import pyarrow as pa

        with self._reading():
            if self.is_text:
                table = pa.table({name: _plain(table[name]) for name in table.column_names})
            # pandas' own notes in a Parquet file would hide a column that was an index
            return table.to_pandas(ignore_metadata=True)

    def _tables(self, wanted: list[str], rows: int, progress: Progress | None) -> Iterator[pa.Table]:
        """Yield tables of exactly ``rows`` rows, the last one of fewer."""
        import pyarrow as pa

        if rows < 1:
            raise UsageError(f"rows of a piece must be positive, not {rows}", "a million is a good number")
        source = self._csv_batches(wanted) if self.is_text else self._parquet_batches(wanted, rows)
        held: list[pa.Table] = []
        waiting = events = done = total = 0
        with self._reading():
            for batch, done, total in source:
                held.append(pa.Table.from_batches([batch]).select(wanted))
                waiting += batch.num_rows
                while waiting >= rows:
                    joined = pa.concat_tables(held)
                    held, waiting, events = [joined.slice(rows)], waiting - rows, events + rows
                    yield joined.slice(0, rows)
                    if progress is not None:
                        # a reader is ahead of what it has handed out by what waits here
                        progress(events, done * events // (events + waiting), total)
            if waiting:
                yield pa.concat_tables(held)
            if progress is not None:
                progress(events + waiting, total, total)

    def _csv_batches(self, wanted: list[str]) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        total = self.path.stat().st_size
        with pa.OSFile(str(self.path)) as file:
            # one thread: as fast, for reading waits for parsing anyway, and errors say which line
            reader = arrow_csv.open_csv(
                pa.CompressedInputStream(file, "gzip") if self._gzipped else file,
                arrow_csv.ReadOptions(column_names=self.names, skip_rows=1, block_size=_BLOCK, use_threads=False),
                arrow_csv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, pa.string()),
                    include_columns=wanted,
                    null_values=list(MISSING),
                    strings_can_be_null=True,
                ),
            )
            with reader:
                for batch in reader:
                    yield batch, min(file.tell(), total), total

    def _parquet_batches(self, wanted: list[str], rows: int) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        import pyarrow.parquet as parquet

        # a buffer instead of whole row groups ahead: a writer may have put everything into one
        with parquet.ParquetFile(self.path, buffer_size=_BLOCK, pre_buffer=False) as file:
            total, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=min(rows, CHUNK_ROWS), columns=wanted):
                done += batch.num_rows
                yield batch, done, total

    def _header(self) -> list[str]:
        opener: Any = gzip.open if self._gzipped else open
        with opener(self.path, "rt", encoding="utf-8-sig", newline="") as text:
            start = text.readline()
        self._separator = max(",\t;|", key=start.count)
        return [name.strip() for name in next(csv.reader([start], delimiter=self._separator), [])]

    def _schema(self) -> list[str]:
        import pyarrow.parquet as parquet

        return list(parquet.read_schema(self.path).names)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, csv.Error, OSError, EOFError, ValueError) as error:
            raise DataError(f"cannot read {self.path} ({_line(error)})", _REMEDY) from error


def read_events(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read an event log into one frame; `mbgraph.data.events.import_events` makes a dataset of it in less memory.

    In a CSV a column becomes integers only if every value is written plainly as one: ``007`` and ``1.0`` stay text, so
    that no two ids fall together. `mbgraph.from_events` reads times out of text.

    Parameters
    ----------
    path : path
        See `EventFile`.
    columns : sequence of str, optional
        Columns to read; all by default.

    Returns
    -------
    DataFrame
        One row per event, columns in the order asked for.

    Raises
    ------
    DataError
        If the file is missing, empty, damaged, or has two columns of the same name.
    UnknownNameError
        If a column does not exist; the message names the nearest.
    """
    return EventFile(path).read(columns)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return integers if that changes no value, otherwise the text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        return column
    try:
        integers = column.cast(pa.int64())
    except pa.ArrowInvalid:  # no integers, or more than 64 bits
        return column
    # 007 and -0 are read as integers but not written so
    return integers if pc.all(pc.equal(integers.cast(pa.string()), column)).as_py() else column


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
