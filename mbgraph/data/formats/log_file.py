"""What the readers of event logs share: one file, looked at when made and read in pieces."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from mbgraph.data.formats.archive import check_unpacked
from mbgraph.errors import DataError
from mbgraph.files import open_file, reading

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["BLOCK", "CHUNK_ROWS", "GZIP", "REMEDY", "LogFile", "exact_tables", "place_in", "reading_log", "unpacked"]

CHUNK_ROWS = 1_000_000
"""Events read at a time: enough that a piece's own cost does not show, some 100 MB."""

BLOCK = 1 << 22
"""Bytes read at a time; a row of a CSV must fit into one."""

GZIP = b"\x1f\x8b"
REMEDY = "give a CSV with a header, JSON lines or a Parquet file"


class LogFile:
    """A file of events.

    Attributes
    ----------
    path : Path
    names : list of str
        Its columns.
    kind : str
        ``"CSV"``, ``"JSON lines"`` or ``"Parquet"``.
    is_text : bool
        Nothing in the file says whether a column holds numbers.
    size : int
        What `pieces` counts as done: bytes or rows.
    """

    kind = ""
    is_text = False
    typed = False  # the header gives every column a type, as RecBole's does

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []
        self.size = 0

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[tuple[Any, int, int]]:
        """Yield pieces of ``rows`` events with their length and how much of ``size`` was handed out."""
        raise NotImplementedError

    def frame(self, pieces: Sequence[Any]) -> pd.DataFrame:
        """Return pieces, of this and other files of the kind, as one frame."""
        raise NotImplementedError

    def unknown(self, name: str) -> DataError | None:
        """Return what explains that a column is not there, beyond that its name is unknown."""
        return None


@contextmanager
def reading_log(path: Path) -> Iterator[None]:
    """Turn what readers raise on files that they cannot use into a `DataError`."""
    try:
        with reading(path, REMEDY):
            yield
    except DataError as error:
        cause = error.__cause__
        if isinstance(cause, UnicodeError) or "invalid UTF8" in str(cause):
            message = error.message.replace(f"cannot read {path}", f"cannot read {path} as text", 1)
            raise DataError(message, "name its encoding, such as --encoding gbk or latin-1") from cause
        raise


def unpacked(path: Path) -> IO[bytes]:
    """Open a file, through gzip if its content is packed so; more than it may unpack to raises `DataError`."""
    file = open_file(path)
    packed = file.read(2) == GZIP
    file.seek(0)
    return cast(IO[bytes], io.BufferedReader(_Unpacking(path, file), BLOCK)) if packed else file


def place_in(file: Any) -> int:
    """Return how many bytes of the file on disk were read, of one that `unpacked` opened."""
    raw = getattr(file, "raw", None)
    return raw.packed_place() if isinstance(raw, _Unpacking) else int(file.tell())


class _Unpacking(io.RawIOBase):
    """What a gzipped file holds, counted."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._size = path, path.stat().st_size
        self._file, self._unpacked = file, gzip.GzipFile(fileobj=file)
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        got = self._unpacked.readinto(buffer)
        self._count += got
        check_unpacked(self._path, self._size, self._count)
        return got

    def packed_place(self) -> int:
        """Return how many bytes of the file were read."""
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def exact_tables(
    batches: Iterable[tuple[pa.RecordBatch, int]], wanted: Sequence[str], rows: int
) -> Iterator[tuple[pa.Table, int, int]]:
    """Yield tables of exactly ``rows`` rows, the last one of fewer, as `LogFile.pieces` does."""
    import pyarrow as pa

    held: list[pa.Table] = []
    waiting = events = 0
    for batch, done in batches:
        held.append(pa.Table.from_batches([batch]).select(list(wanted)))
        waiting += batch.num_rows
        while waiting >= rows:
            joined = pa.concat_tables(held)
            held, waiting, events = [joined.slice(rows)], waiting - rows, events + rows
            # a reader is ahead of what it has handed out by what waits here
            yield joined.slice(0, rows), rows, done * events // (events + waiting)
    if waiting:
        yield pa.concat_tables(held), waiting, done
