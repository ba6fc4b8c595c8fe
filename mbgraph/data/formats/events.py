"""Event logs on disk: CSV (any delimiter pandas recognises) and Parquet, told apart by content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mbgraph.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_events"]

_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"


def read_events(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read an event log.

    Parameters
    ----------
    path : path
        A CSV file with a header (plain or gzipped; comma, tab or semicolon) or a Parquet file.
    columns : sequence of str, optional
        Columns to read; all by default. Missing ones are left to the caller to name.

    Raises
    ------
    DataError
        If the file is missing, empty, damaged, or has two columns of the same name.
    """
    import pandas as pd

    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise DataError(f"{path} is empty", "give a CSV with a header or a Parquet file")
    try:
        if head == _PARQUET:
            import pyarrow.parquet as parquet

            names = parquet.read_schema(path).names
            wanted = None if columns is None else [name for name in names if name in columns]
            _no_twins(path, names)
            return pd.read_parquet(path, columns=wanted)
        compression = "gzip" if head[:2] == _GZIP else None
        header = pd.read_csv(path, sep=None, engine="python", header=None, nrows=1, dtype=str, compression=compression)
        names = [str(name).strip() for name in header.iloc[0].tolist()]
        _no_twins(path, names)
        separator = _separator(path, compression)
        wanted = None if columns is None else [name for name in names if name in columns]
        frame = pd.read_csv(path, sep=separator, names=names, skiprows=1, usecols=wanted, compression=compression, low_memory=False)
    except DataError:
        raise
    except (ValueError, OSError, EOFError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read {path} ({reason[:120]})", "give a CSV with a header or a Parquet file") from error
    if frame.empty:
        raise DataError(f"{path} holds no events", "give a file with at least one row below the header")
    return frame


def _no_twins(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise DataError(f"{path} has two columns called {name!r}", "rename one")


def _separator(path: Path, compression: str | None) -> str:
    """Return the delimiter that the header uses most."""
    import gzip

    opener = gzip.open if compression else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as file:
        header = file.readline()
    return max(",\t;|", key=header.count)
