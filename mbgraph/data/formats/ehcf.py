"""EHCF's tables: tab separated with a header, ids counted from 0.

``buy.train.txt`` and ``buy.test.txt`` hold ``uid`` and ``sid``; ``cart.csv`` and ``pv.csv`` have a third column that
names the behavior. A table may be packed as ``pv.csv.zip`` or ``pv.zip``, with nothing else in the archive.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from mbgraph.data.aliases import SPLIT_ALIASES
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.archive import check_unpacked, overclaims
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.text import read_pairs
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.files import open_file, reading

__all__ = ["read", "read_part"]

_SUFFIXES = {
    ".train.txt": "train",
    **{f".{alias}.txt": split for split, aliases in SPLIT_ALIASES.items() for alias in aliases},
}
_TABLES = (".csv", ".csv.zip", ".zip")


def read_part(path: Path, *, users: int | None = None, items: int | None = None) -> Pairs:
    """Read one table, plain or as the only file of a zip archive."""
    options: dict[str, Any] = {"users": users, "items": items, "header": True, "more_columns": True}
    if path.suffix != ".zip":
        return read_pairs(path, **options)
    problem = f"{path} is truncated or no zip archive"
    with reading(path, "restore or unpack it", problem), open_file(path) as source, zipfile.ZipFile(source) as archive:
        members = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__")]
        if len(members) != 1:
            raise DataError(f"{path} holds {len(members)} files, not one", "unpack the table beside it")
        if overclaims(members[0]):
            raise DataError(f"{path} claims {members[0].file_size} bytes that it cannot hold", "restore the file")
        check_unpacked(path, os.fstat(source.fileno()).st_size, members[0].file_size)
        member: Any = archive.open(members[0])
        return read_pairs(path, stream=member, **options)


def read(
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Read a folder of EHCF's tables; only the target's test table is held out.

    Parameters
    ----------
    path : Path
    target : str, optional
        By default the behavior with a test table.
    name : str, optional
    users, items : int, optional
        Numbers of them; by default the largest id plus one.

    Raises
    ------
    DataError
        If a table is missing, empty or broken, with its line.
    """
    tables: dict[str, Path] = {}
    held_out: dict[str, dict[str, Path]] = {}
    for file in sorted(path.iterdir()):
        for suffix, part in _SUFFIXES.items():
            behavior = file.name.removesuffix(suffix)
            if behavior == file.name or not behavior:
                continue
            if part == "train":
                tables[behavior] = file
            else:
                held_out.setdefault(behavior, {})[part] = file
    for suffix in _TABLES:
        for file in sorted(path.glob(f"*{suffix}")):
            tables.setdefault(file.name.removesuffix(suffix).removesuffix(".csv"), file)
    if target is None and len(held_out) == 1:
        target = next(iter(held_out))
    target = find_target(path, tables, target)
    left_out = {
        file.name: "held-out pairs of an auxiliary behavior"
        for behavior, files in held_out.items()
        for file in files.values()
        if behavior != target
    }
    edges = {behavior: read_part(file, users=users, items=items) for behavior, file in tables.items()}
    splits = {part: read_part(file, users=users, items=items) for part, file in held_out.get(target, {}).items()}
    files = [file.name for file in (*tables.values(), *held_out.get(target, {}).values())]
    return assemble(
        Origin(path, "ehcf", 0, files, left_out), edges, target, splits, name=name, users=users, items=items
    )
