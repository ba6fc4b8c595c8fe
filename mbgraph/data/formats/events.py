"""Event logs on disk: CSV, JSON lines and Parquet, told apart by content, read in pieces; files add up to one log."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbgraph import limits
from mbgraph.data.formats.csv_log import CsvLog, check_encoding, encoding_of
from mbgraph.data.formats.json_log import JsonLog
from mbgraph.data.formats.log_file import CHUNK_ROWS, REMEDY, LogFile, reading_log, unpacked
from mbgraph.data.formats.parquet_log import PARQUET, ParquetLog
from mbgraph.data.formats.partitions import partitioned, values_in
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.files import open_file, user_path

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EventFiles", "Paths", "Progress", "is_json_lines", "read_events"]

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Progress = Callable[[int, int, int], None]

_ENDINGS = (".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".inter", ".gz")
_HEAD = 1024


class EventFiles:
    """An event log on disk: looked at when made, read in pieces.

    Parameters
    ----------
    paths : path or sequence of paths
        Files of one kind, which are read one after the other: CSV, JSON lines (an object per line), both plain or
        gzipped, or Parquet. A folder stands for the files in it and below, in the order of their names; names that
        begin with a dot or an underscore are passed over. Folders in it that are called like ``behavior=view`` give
        the files below them a column of that name (Hive's and Spark's partitions).
    names : sequence of str, optional
        The columns, in order, of CSV files without a header; ``_`` leaves one out.
    encoding : str, optional
        Of text, by its name in Python; by default UTF-8, or what a byte order mark says.

    Attributes
    ----------
    names : list of str
        The columns of the first file.
    is_text : bool
        The files are CSV: nothing says whether a column holds numbers.
    typed : bool
        The header is RecBole's, ``user_id:token``; types are no part of the columns' names.

    Raises
    ------
    DataError
        If a file is missing, empty or damaged, or of another kind than the first.
    UsageError
        If the encoding is unknown, or names are given for files that have their own.
    """

    def __init__(self, paths: Paths, *, names: Sequence[str] | None = None, encoding: str | None = None) -> None:
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not given:
            raise UsageError("no event log is given", REMEDY)
        if encoding is not None:
            check_encoding(encoding)
        if names is not None:
            _check_names(names)
        found = [(path, place) for one in given for path, place in _files(user_path(one))]
        self.paths = [path for path, _ in found]
        opened = [_open(path, names, encoding) for path in self.paths]
        self.files = partitioned(opened, [values_in(place) for _, place in found])
        first = self.files[0]
        for file in self.files[1:]:
            if file.kind != first.kind:
                raise DataError(f"{file.path} is {file.kind}, {first.path} is {first.kind}", "give files of one kind")
        self.names, self.is_text, self.typed = first.names, first.is_text, first.typed
        self._starts: list[int] = []

    def wanted(self, columns: Sequence[str] | None = None) -> list[str]:
        """Return the columns to read, each once.

        Raises
        ------
        UnknownNameError, DataError
            If one is missing or ambiguous, in any of the files.
        """
        wanted = list(dict.fromkeys(self.names if columns is None else columns))
        for file in self.files:
            for name in wanted:
                if name not in file.names:
                    if name in self.names:
                        raise DataError(
                            f"{file.path} has no column {name!r}, which {self.paths[0]} has", "give files of one log"
                        )
                    raise file.unknown(name) or UnknownNameError("column", name, file.names)
                if file.names.count(name) > 1:
                    raise DataError(
                        f"{file.path} has {file.names.count(name)} columns called {name!r}", "rename all but one"
                    )
        return wanted

    def chunks(
        self, columns: Sequence[str] | None = None, rows: int = CHUNK_ROWS, progress: Progress | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield the log ``rows`` events at a time or fewer, so that memory does not grow with the files.

        A column of a CSV is integers in pieces where every value is written plainly as one, and text in others.

        Parameters
        ----------
        columns : sequence of str, optional
            Columns to read; all by default.
        rows : int
        progress : callable, optional
            Called after each piece with the number of events read, and how much of the files that is: (events, done,
            total), in bytes of text and rows of Parquet.

        Raises
        ------
        DataError, UnknownNameError
        """
        for file, piece in self._pieces(self.wanted(columns), rows, progress):
            with reading_log(file.path):
                frame = file.frame([piece])
            yield frame

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the whole log at once."""
        pieces = list(self._pieces(self.wanted(columns), CHUNK_ROWS, None))
        if not pieces:
            raise DataError(f"{self.told()} holds no events", "give a file with at least one row")
        with reading_log(self.paths[0]):
            return self.files[0].frame([piece for _, piece in pieces])

    def place(self, row: int) -> str:
        """Say where a row stands that was read, counted from 1 over all files, as messages do."""
        if len(self.paths) == 1:
            return f"row {row}"
        file = max((place for place, start in enumerate(self._starts) if start < row), default=0)
        return f"row {row - self._starts[file]} of {self.paths[file].name}"

    def told(self) -> str:
        """Return the files as messages name them."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0]}{more}"

    def _pieces(self, wanted: list[str], rows: int, progress: Progress | None) -> Iterator[tuple[LogFile, Any]]:
        if rows < 1:
            raise UsageError(f"rows of a piece must be positive, not {rows}", "a million is a good number")
        total = sum(file.size for file in self.files)
        events = before = told = 0
        self._starts = []
        for file in self.files:
            self._starts.append(events)
            with reading_log(file.path):
                for piece, length, done in file.pieces(wanted, rows):
                    events += length
                    yield file, piece
                    told = before + done
                    if progress is not None:
                        progress(events, told, total)
            before += file.size
        if progress is not None and told < total:
            progress(events, total, total)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not name:
            raise UsageError(f"a column of {', '.join(names)} has no name", "write _ for a column to leave out")
        if name != "_" and list(names).count(name) > 1:
            raise UsageError(f"column {name!r} is named twice", "write _ for a column to leave out")


def _files(path: Path) -> list[tuple[Path, Path]]:
    """Return a file itself, and of a folder the files in it and below, each with its place in the folder."""
    if not path.is_dir():
        return [(path, Path(path.name))]
    entries = list(islice(path.rglob("*"), limits.current().files + 1))
    limits.check("files", len(entries), path)
    found = [
        (file, place)
        for place, file in sorted(
            ((file.relative_to(path), file) for file in entries), key=lambda entry: _natural(entry[0])
        )
        if file.is_file()
        and file.name.lower().endswith(_ENDINGS)
        and not any(part.startswith((".", "_")) for part in place.parts)
    ]
    if not found:
        raise DataError(f"{path} holds no event log", f"looked for files that end in {', '.join(_ENDINGS)}")
    return found


def _natural(path: Path) -> list[Any]:
    """Return what sorts part-2 before part-10."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", str(path))]


def _open(path: Path, names: Sequence[str] | None, encoding: str | None) -> LogFile:
    with open_file(path) as source:
        head = source.read(_HEAD)
    if not head:
        raise DataError(f"{path} is empty", REMEDY)
    with reading_log(path):
        if head.startswith(PARQUET):
            kind: type[LogFile] = ParquetLog
        else:
            with unpacked(path) as file:
                head = file.read(_HEAD)
            kind = JsonLog if is_json_lines(head, encoding) else CsvLog
    if kind is CsvLog:
        return CsvLog(path, names, encoding)
    if names is not None:
        raise UsageError(f"{path} is {kind.kind}, whose columns have names of their own", "leave --columns out")
    if kind is JsonLog:
        return JsonLog(path, encoding)
    if encoding is not None:
        raise UsageError(f"{path} is Parquet, which needs no encoding", "leave --encoding out")
    return ParquetLog(path)


def is_json_lines(head: bytes, encoding: str | None = None) -> bool:
    """Say whether a file that begins so holds JSON rather than a CSV."""
    text = head.decode(encoding or encoding_of(head), errors="ignore").lstrip("\ufeff \t\r\n")
    return re.match(r'\{\s*["}]|\[\s*\{', text) is not None


def read_events(
    paths: Paths,
    columns: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    encoding: str | None = None,
) -> pd.DataFrame:
    """Read an event log into one frame; `mbgraph.data.events.import_events` makes a dataset of it in less memory.

    In a CSV a column becomes integers only if every value is written plainly as one: ``007`` and ``1.0`` stay text, so
    that no two ids fall together. `mbgraph.from_events` reads times out of text.

    Parameters
    ----------
    paths : path or sequence of paths
        See `EventFiles`.
    columns : sequence of str, optional
        Columns to read; all by default.
    names, encoding
        See `EventFiles`.

    Returns
    -------
    DataFrame
        One row per event, columns in the order asked for.

    Raises
    ------
    DataError
        If a file is missing, empty, damaged, or has two columns of the same name.
    UnknownNameError
        If a column does not exist; the message names the nearest.
    """
    return EventFiles(paths, names=names, encoding=encoding).read(columns)
