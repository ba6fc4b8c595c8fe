"""Event logs in CSV: with a header or names of columns, in any encoding, plain or gzipped."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbgraph import limits
from mbgraph.data.aliases import is_known
from mbgraph.data.formats.log_file import BLOCK, GZIP, LogFile, exact_tables, place_in, reading_log, unpacked
from mbgraph.data.formats.recbole_table import parse_header
from mbgraph.errors import DataError, UsageError
from mbgraph.files import open_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["MISSING", "SKIPPED", "CsvLog", "check_encoding", "encoding_of"]

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "\\N")
"""What stands for a missing value in a CSV file."""

SKIPPED = "_"
"""The name of a column that nobody asks for, where names of columns are given."""

SEPARATORS = ",\t;|"
_HEAD = 1 << 16
_BLANKS = " \t"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_encoding(encoding: str) -> str:
    """Return the encoding; `UsageError` if Python knows no text of that name."""
    try:
        "".encode(encoding)
    except (LookupError, ValueError) as error:
        raise UsageError(f"unknown encoding {encoding!r}", "utf-8, utf-16, gbk, big5, shift_jis, latin-1 ..") from error
    return encoding


def encoding_of(head: bytes) -> str:
    """Return the encoding that the first bytes of a file tell by a byte order mark; without one UTF-8."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8-sig")


class CsvLog(LogFile):
    """A CSV file of events, separated by comma, tab, semicolon or bar, whichever the first line has most of.

    Blanks and tabs around a value are no part of it.

    Parameters
    ----------
    path : Path
    names : sequence of str, optional
        The columns in order, ``_`` for those to leave out, of a file without a header.
    encoding : str, optional
        By default what a byte order mark says, otherwise UTF-8.

    Raises
    ------
    DataError
        If the file is no text, or ``names`` are not as many as its columns.
    UsageError
        If the file has a header although ``names`` are given.
    """

    kind = "CSV"
    is_text = True

    def __init__(self, path: Path, names: Sequence[str] | None = None, encoding: str | None = None) -> None:
        super().__init__(path)
        with open_file(path) as source:
            self.size = os.fstat(source.fileno()).st_size
            self._gzipped = source.read(2) == GZIP
        with reading_log(path):
            with unpacked(path) as file:
                head = file.read(_HEAD)
            self._encoding = encoding or encoding_of(head)
            if b"\0" in head and self._encoding == "utf-8-sig":
                raise DataError(
                    f"{path} is neither text nor Parquet", "if it is text, name its encoding, such as --encoding utf-16"
                )
            with unpacked(path) as file:
                # newline="" finds all line ends, those of an old Mac (CR) too
                text = io.TextIOWrapper(file, encoding=self._encoding, newline="")
                first, second = text.readline(_HEAD).removeprefix("\ufeff"), text.readline(_HEAD)
        if len(first) == _HEAD:
            raise DataError(
                f"the first line of {path} has more than {_HEAD:,} letters", "give a CSV with an event a line"
            )
        if first and not first.strip():
            raise DataError(f"the first line of {path} is empty", "delete it: names or values begin on the first one")
        self.separator = max(SEPARATORS, key=first.count)
        self._first = self._fields(first)
        types = parse_header(first)
        self._has_header = names is None
        if names is not None:
            self._check_names(names, self._fields(second))
            self._columns = [f"\0{place}" if name == SKIPPED else name for place, name in enumerate(names)]
        else:
            self.typed = types is not None
            self._columns = self._first if types is None else list(types)
        self.names = [name for name in self._columns if not name.startswith("\0")]
        limits.check("columns", len(self._columns), path)

    def _fields(self, line: str) -> list[str]:
        try:
            fields = next(csv.reader([line], delimiter=self.separator, skipinitialspace=self.separator != "\t"), [])
        except csv.Error as error:
            raise DataError(f"cannot read {self.path} ({error})", "correct its first lines") from error
        return [field.strip() for field in fields]

    def _check_names(self, names: Sequence[str], second: list[str]) -> None:
        if len(names) != len(self._first):
            raise DataError(
                f"{self.path} has {len(self._first)} columns, {len(names)} are named ({', '.join(names)})",
                f"name all in order, {SKIPPED} for those to leave out",
            )
        numbers = [_is_number(field) for field in second]
        if any(numbers) and not any(_is_number(field) for field in self._first) and all(self._first):
            raise UsageError(
                f"the first row of {self.path} ({', '.join(self._first)[:80]}) looks like a header",
                "leave --columns out and say which column is which (--user, --item, ..)",
            )

    def unknown(self, name: str) -> DataError | None:
        """Say that the header looks like data, if it does."""
        if not self._has_header or not any(_is_number(field) for field in self._first):
            return None
        row = self.separator.join(self._first)[:80].replace("\t", " ")
        return DataError(
            f"{self.path} has no column {name!r}, and its first row looks like data: {row}",
            f"if it has no header, name the columns in order: --columns {_guess(self._first)}",
        )

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[tuple[pa.Table, int, int]]:
        """Yield tables of text."""
        yield from exact_tables(self._batches(list(wanted)), wanted, rows)

    @contextmanager
    def _bytes(self) -> Iterator[tuple[pa.NativeFile, Callable[[], int]]]:
        """Give the bytes to parse, and what says how much of the file is read."""
        import pyarrow as pa

        if not self._gzipped:
            with pa.OSFile(str(self.path)) as plain:
                yield plain, plain.tell
            return
        with unpacked(self.path) as file:
            yield pa.PythonFile(file, mode="r"), lambda: place_in(file)

    def _batches(self, wanted: list[str]) -> Iterator[tuple[pa.RecordBatch, int]]:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        with self._bytes() as (file, place):
            # one thread: as fast, for reading waits for parsing anyway, and errors say which line
            reader = arrow_csv.open_csv(
                file,
                arrow_csv.ReadOptions(
                    column_names=self._columns,
                    skip_rows=int(self._has_header),
                    block_size=BLOCK,
                    use_threads=False,
                    # arrow itself leaves out the mark of UTF-8
                    encoding="utf8" if self._encoding == "utf-8-sig" else self._encoding,
                ),
                arrow_csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(self._columns, pa.string()),
                    include_columns=wanted,
                    null_values=list(MISSING),
                    strings_can_be_null=True,
                ),
            )
            with reader:
                for batch in reader:
                    yield batch, min(place(), self.size)

    def frame(self, pieces: Sequence[pa.Table]) -> pd.DataFrame:
        """Return text, and integers for the columns in which every value is written plainly as one."""
        import pyarrow as pa

        table = pa.concat_tables(pieces)
        return pa.table({name: _plain(_stripped(table[name])) for name in table.column_names}).to_pandas()


def _stripped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values without blanks around them, and without quotes that a blank before them made part of the value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.ascii_trim(column, characters=_BLANKS)
    if trimmed.equals(column):
        return column
    bare = pc.replace_substring(pc.replace_substring_regex(trimmed, '(?s)^"(.*)"$', r"\1"), '""', '"')
    values = pc.if_else(pc.not_equal(trimmed, column), bare, trimmed)
    missing = pc.is_in(values, value_set=pa.array(MISSING, pa.string()))
    return pc.if_else(missing, pa.scalar(None, pa.string()), values)


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


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _guess(fields: Sequence[str]) -> str:
    """Return names for the columns of a row, as a start: behavior and time are told by their look."""
    names: list[Any] = [None] * len(fields)
    words = [place for place, field in enumerate(fields) if not _is_number(field)]
    known = [place for place in words if is_known(fields[place])]
    stamps = [place for place, field in enumerate(fields) if _is_number(field) and len(field.partition(".")[0]) >= 10]
    dates = [place for place in words if any(letter.isdigit() for letter in fields[place]) and "-" in fields[place]]
    for places, name in ((known, "behavior"), (dates or stamps[::-1], "time")):
        if places:
            names[places[0]] = name
    rest = iter(["user", "item", *([] if known else ["behavior"])])
    return ",".join(name if name is not None else next(rest, SKIPPED) for name in names)
