"""On-disk formats: one module each, imported when it is needed; docs/formats.md describes them.

`read` finds out by content what a path holds. npz is the native format; the others are those of the field.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.files import reading, user_path

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.data.interactions import Pairs

__all__ = ["FORMATS", "PART_FORMATS", "WRITERS", "check_place", "detect", "read", "read_part", "write"]

FORMATS = (
    "npz",
    "pairs",
    "dicts",
    "ehcf",
    "adjacency",
    "mbcgcn",
    "csr-pickle",
    "sslrec",
    "missl",
    "recbole",
    "mbgcn",
    "by-part",
    "events",
)
"""Formats that can be read."""

WRITERS = ("npz", "pairs", "recbole")
"""Formats that can be written, all without loss."""

PART_FORMATS = ("pairs", "dicts", "ehcf", "adjacency", "csr-pickle")
"""Formats of which one file can be read alone."""

_FILES = ("missl", "recbole", "events")  # a dataset is a file, or may be


def detect(path: str | os.PathLike[str]) -> str:
    """Return the format of a folder or file, told by its content.

    Raises
    ------
    DataError
        If there is nothing, nothing known (the message lists what was looked for), or the marks of two formats.
    """
    from mbgraph.data.formats import detection

    return detection.detect(path)


def _module(format: str) -> Any:
    return importlib.import_module(f"mbgraph.data.formats.{format.replace('-', '_')}")


def read(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    target: str | None = None,
    name: str | None = None,
    **options: Any,
) -> MultiBehaviorDataset:
    """Read a dataset in any known format.

    Parameters
    ----------
    path : path
        A folder; for missl, recbole and events a file.
    format : str, optional
        One of `FORMATS`; by default what `detect` finds.
    target : str, optional
        The behavior to predict. By default the one that is called buy, purchase, order, transaction or the like.
    name : str, optional
        Name of the dataset; by default the folder's or file's, or what the files say.
    **options
        ``users`` and ``items``, the numbers of them, where files do not say (ehcf, adjacency, mbcgcn, csr-pickle,
        by-part); ``base``, what ids count from (pairs, by-part); ``behaviors``, ``valid`` and ``test``, the files that
        hold them (see `mbgraph.data.formats.by_part.read`); arguments of `mbgraph.from_events` (missl, recbole,
        events); ``columns`` and ``encoding`` of `mbgraph.data.events.import_events` (events).

    Returns
    -------
    MultiBehaviorDataset
        ``metadata["format"]`` says which files were read, what ids count from, which files were left out and why, and
        how many duplicate pairs of each part were. A folder that mbgraph wrote has the metadata of its original.

    Raises
    ------
    DataError
        If files are missing, broken or contradict each other; the message names file and line.
    UsageError
        If the target cannot be guessed, is another than the held-out pairs are of, or an option does not exist.
    """
    from mbgraph.data.formats import detection

    path = user_path(path)
    if format is None:
        format = detect(path)
    elif format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    detection.check_exists(path)
    if format not in _FILES and not path.is_dir():
        raise DataError(f"{path} is a file", f"give the folder, {format} datasets are made of several files")
    try:
        with reading(path):
            ds = _reader(format)(path, target=target, name=name, **options)
    except DataError as error:
        unknown = [option for option in options if f"unexpected keyword argument '{option}'" in str(error.__cause__)]
        if not unknown:
            raise
        raise UsageError(f"format {format} has no option {unknown[0]!r}", "leave it out") from error
    if target is not None and ds.target != target:
        raise UsageError(
            f"{path} holds out pairs of {ds.target!r}, not of {target!r}", "leave the target out, or split it anew"
        )
    return ds if name is None or ds.name == name else ds.replace(name=name)


def _reader(format: str) -> Any:
    if format == "npz":
        return _read_npz
    return _read_events if format == "events" else _module(format).read


def _read_npz(path: Path, *, target: str | None, name: str | None) -> MultiBehaviorDataset:
    from mbgraph.data.formats.npz import read_npz

    return read_npz(path)


def _read_events(path: Path, *, target: str | None, name: str | None, **options: Any) -> MultiBehaviorDataset:
    from mbgraph.data.events import from_events
    from mbgraph.data.formats.assemble import find_target
    from mbgraph.data.formats.events import read_events

    text = {name: options.pop(key) for key, name in (("columns", "names"), ("encoding", "encoding")) if key in options}
    one_hot = options.get("one_hot")
    behavior = options.get("behavior", "behavior")
    ids = [options.get(key, key) for key in ("user", "item")]
    more = [options[key] for key in ("time", "split_column") if options.get(key)]
    log = read_events(path, [*ids, *(one_hot or [behavior]), *more], **text)
    if target is None:
        labels = one_hot or log[behavior].dropna().astype(str).unique().tolist()
        rename = options.get("rename") or {}
        target = find_target(path, dict.fromkeys(rename.get(label, label) for label in labels), None)
    ds = from_events(log, target=target, name=name or path.stem, **options)
    return ds.replace(metadata={**ds.metadata, "format": {"name": "events", "files": [path.name]}})


def read_part(
    path: str | os.PathLike[str], format: str, *, users: int | None = None, items: int | None = None
) -> Pairs:
    """Read one file of a format as row numbers from 0, as they stand there: duplicates included.

    Parameters
    ----------
    path : path
    format : str
        One of `PART_FORMATS`.
    users, items : int, optional
        Numbers of them; an id beyond is an error.

    Raises
    ------
    DataError
        If the file is missing, empty or broken; the message names file and line.
    UnknownNameError
        If files of the format cannot be read alone.
    """
    if format not in PART_FORMATS:
        raise UnknownNameError("format of single files", format, PART_FORMATS)
    path = user_path(path)
    with reading(path):
        pairs: Pairs = _module(format).read_part(path, users=users, items=items)
    return pairs


def check_place(path: str | os.PathLike[str], format: str, *, overwrite: bool = False) -> None:
    """Raise `UsageError` if `write` would refuse the folder; ask before long work."""
    if format not in WRITERS:
        raise UnknownNameError("format to write", format, WRITERS)
    if format == "npz":
        from mbgraph.data.formats.npz import check_place as check

        check(Path(path), overwrite)
        return
    from mbgraph.data.formats import sidecar

    sidecar.check_place(Path(path), format, overwrite)


def write(ds: MultiBehaviorDataset, path: str | os.PathLike[str], format: str, *, overwrite: bool = False) -> None:
    """Write a dataset; `read` gives back the same ids, order, times, splits and metadata.

    Parameters
    ----------
    ds : MultiBehaviorDataset
    path : path
        The folder; parents are made. It is written under a temporary name and renamed.
    format : str
        One of `WRITERS`.
    overwrite : bool
        Replace a folder that mbgraph wrote in the same format; no other is ever replaced.

    Raises
    ------
    UsageError
        If the folder exists and may not be replaced.
    DataError
        If a name or an id cannot be written in this format.
    RunError
        If the disk is full, the place cannot be written, or another process is writing it.
    """
    from mbgraph.data.formats.folder import claimed_folder

    check_place(path, format, overwrite=overwrite)
    with claimed_folder(Path(path)):
        if format == "npz":
            from mbgraph.data.formats.npz import write_npz

            write_npz(ds, path, overwrite=overwrite)
        else:
            _module(format).write(ds, Path(path), overwrite=overwrite)
