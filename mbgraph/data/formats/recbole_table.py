"""One atomic file of RecBole, tab separated text with a header of ``name:type``; no letter of it is lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbgraph.errors import DataError, UnknownNameError, one_line
from mbgraph.files import atomic_write, open_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TYPES", "column_types", "parse_header", "read_table", "write_table"]

TYPES = ("token", "token_seq", "float", "float_seq")


def parse_header(line: str) -> dict[str, str] | None:
    """Return the type of every column, None if the line is no header of an atomic file."""
    fields = [field.rpartition(":") for field in next(csv.reader([line.rstrip("\r\n")], delimiter="\t"), [])]
    if not fields or not all(name and kind in TYPES for name, _, kind in fields):
        return None
    types = {name: kind for name, _, kind in fields}
    return types if len(types) == len(fields) else None


def column_types(file: Path) -> dict[str, str]:
    """Return the columns of a file with their types; `DataError` if its first line is no header."""
    with open_file(file) as source:
        line = source.readline(1 << 16)
    try:
        types = parse_header(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} line 1 is no text ({error})", "restore the file") from error
    if types is None:
        raise DataError(
            f"{file} line 1 is no header of RecBole", "name every column with its type, as in user_id:token"
        )
    return types


def read_table(file: Path, columns: Sequence[str], *, rows: bool = True) -> pa.Table:
    """Read some columns as text, nothing taken for missing.

    Parameters
    ----------
    file : Path
    columns : sequence of str
        Names without types.
    rows : bool
        Whether a table without any row is an error.

    Raises
    ------
    DataError
        If the file is missing, damaged or empty.
    UnknownNameError
        If a column does not exist.
    """
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    types = column_types(file)
    for column in columns:
        if column not in types:
            raise UnknownNameError(f"column of {file}", column, types)
    names = list(types)
    try:
        table = arrow_csv.read_csv(
            file,
            arrow_csv.ReadOptions(column_names=names, skip_rows=1),
            arrow_csv.ParseOptions(delimiter="\t", newlines_in_values=True),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), include_columns=list(columns), strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        if "Empty CSV" not in str(error):
            raise DataError(
                f"cannot read {file} ({one_line(error)})", "correct the row; columns are tab separated"
            ) from error
        table = pa.table({column: pa.array([], pa.string()) for column in columns})
    except OSError as error:
        raise DataError(f"cannot read {file} ({one_line(error)})", "restore the file") from error
    if rows and not len(table):
        raise DataError(f"{file} is empty", "restore the file or leave it out")
    return table.select(list(columns))


def write_table(file: Path, header: Sequence[str], parts: Iterable[Sequence[Sequence[str]]]) -> None:
    """Write a table.

    Parameters
    ----------
    file : Path
    header : sequence of str
        Columns with types.
    parts : iterable
        Groups of rows, each as columns of equal length.

    Raises
    ------
    DataError
        If a text is no Unicode that can be written.
    """
    with atomic_write(file) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        try:
            writer.writerow(header)
            for columns in parts:
                writer.writerows(zip(*columns, strict=True))
            text.flush()
        except (UnicodeEncodeError, csv.Error) as error:
            raise DataError(f"cannot write {file.name} ({error})", "rename what cannot be written") from error
        finally:
            text.detach()
