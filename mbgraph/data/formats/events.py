"""Event logs on disk: CSV and Parquet, told apart by content."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbgraph.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["MISSING", "read_events"]

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "\\N")
"""What stands for a missing value in a CSV file."""

_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_REMEDY = "give a CSV with a header or a Parquet file"
_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"


def read_events(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read an event log.

    In a CSV a column becomes integers only if every value is written plainly as one: ``007`` and ``1.0`` stay text, so
    that no two ids fall together. `mbgraph.from_events` reads times out of text.

    Parameters
    ----------
    path : path
        A CSV file with a header, in UTF-8, plain or gzipped, separated by comma, tab, semicolon or bar (whichever the
        header has most of); or a Parquet file.
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
    import pyarrow as pa

    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", _REMEDY) from error
    if not head:
        raise DataError(f"{path} is empty", _REMEDY)
    try:
        if head.startswith(_PARQUET):
            frame = _read_parquet(path, columns)
        elif b"\0" in head and not head.startswith(_GZIP):
            raise DataError(f"{path} is neither text nor Parquet", _REMEDY)
        else:
            frame = _read_csv(path, columns, "gzip" if head.startswith(_GZIP) else None)
    except (pa.ArrowException, csv.Error, OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read {path} ({_line(error)})", _REMEDY) from error
    if len(frame) == 0:
        raise DataError(f"{path} holds no events", "give a file with at least one row")
    return frame


def _read_parquet(path: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    import pyarrow.parquet as parquet

    names = parquet.read_schema(path).names
    wanted = _wanted(path, names, columns)
    # pandas' own notes in the file would hide a column that was an index
    return parquet.read_table(path, columns=wanted).select(wanted).to_pandas(ignore_metadata=True)


def _read_csv(path: Path, columns: Sequence[str] | None, compression: str | None) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    opener: Any = gzip.open if compression else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as text:
        start = text.readline()
        separator = max(",\t;|", key=start.count)
        names = [name.strip() for name in next(csv.reader([start], delimiter=separator), [])]
    wanted = _wanted(path, names, columns)
    with pa.input_stream(path, compression=compression) as stream:
        table = arrow_csv.read_csv(
            stream,
            arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=wanted,
                null_values=list(MISSING),
                strings_can_be_null=True,
            ),
        )
    return pa.table({name: _plain(table[name]) for name in wanted}).to_pandas()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return integers if that changes no value, otherwise the text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count or not pc.all(pc.match_substring_regex(column, _INTEGER)).as_py():
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:  # nineteen digits that do not fit into 64 bits
        return column


def _wanted(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    wanted = list(dict.fromkeys(names if columns is None else columns))
    for name in wanted:
        if name not in names:
            raise UnknownNameError("column", name, names)
        if list(names).count(name) > 1:
            raise DataError(f"{path} has {list(names).count(name)} columns called {name!r}", "rename all but one")
    return wanted


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
