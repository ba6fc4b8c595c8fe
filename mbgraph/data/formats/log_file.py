"""What the readers of event logs share: one file, looked at when made and read in pieces."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mbgraph.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["BLOCK", "CHUNK_ROWS", "GZIP", "REMEDY", "LogFile", "exact_tables", "reading", "unpacked"]

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
def reading(path: Path) -> Iterator[None]:
    """Turn what readers raise on files that they cannot use into a `DataError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, zlib.error, OSError, EOFError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        if isinstance(error, UnicodeError) or "invalid UTF8" in reason:
            raise DataError(
                f"cannot read {path} as text ({reason})", "name its encoding, such as --encoding gbk or latin-1"
            ) from error
        raise DataError(f"cannot read {path} ({reason})", REMEDY) from error


def unpacked(path: Path) -> IO[bytes]:
    """Open a file, through gzip if its content is packed so."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    # a GzipFile reads whatever binary file does, although it is none to the type checker
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


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
