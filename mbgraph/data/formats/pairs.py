"""Pair files (RMBRec, UIPL, BCIPM, CRGCN and their kin): a user and an item per line, counted from 1.

- ``count.txt``: JSON, ``{"user": U, "item": I}``. Users and items without any line count too.
- ``<behavior>.txt``, ``validation.txt`` (or ``val.txt``, ``valid.txt``), ``test.txt``: ``user item`` lines. 0 is their
  padding and no id.
- Files that are derived from these (``*_dict.txt``, ``all.txt``, ``pos_sampling.txt``, a ``train.txt`` that is the
  target over again) are left out, and so are files of another name that do not begin with two numbers.

Folders that mbgraph writes hold more, all of it optional: ``mbgraph.json``, original ids in ``users.txt`` and
``items.txt`` (line n is id n), and ``<part>.time.txt`` with the time of every line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.aliases import SPLIT_ALIASES, is_known
from mbgraph.data.dataset import MultiBehaviorDataset, check_behavior_name
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.content import first_words, same_pairs, split_files
from mbgraph.data.formats.folder import new_folder
from mbgraph.data.formats.npz import check_file_name, id_lines, named_ids, read_ids
from mbgraph.data.formats.sidecar import (
    SIDECAR,
    Sidecar,
    check_place,
    describe,
    parse_times,
    read_sidecar,
    time_texts,
)
from mbgraph.data.formats.text import read_pairs
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.files import atomic_write, read_json, read_whole, write_json

__all__ = ["pair_files", "read", "read_count", "read_part", "write"]

SPLIT_FILES = {"valid": "validation", "test": "test"}
"""What is written; any name of a split is read."""

_TIME = ".time"
_DERIVED = ("all", "pos_sampling", "all_dict")
_OTHER = ("count", "users", "items", *(name for names in SPLIT_ALIASES.values() for name in names))
_MAX = 2**31 - 1


def read_count(path: Path) -> tuple[int, int]:
    """Return the numbers of users and items in ``count.txt``; `DataError` if it is anything else."""
    file = path / "count.txt"
    content = read_json(file)
    remedy = 'write {"user": 3, "item": 4}, with your numbers'
    if not isinstance(content, dict):
        raise DataError(f"{file} is not a JSON object", remedy)
    counts = []
    for kind in ("user", "item"):
        count = content.get(kind)
        if type(count) is not int or not 0 < count <= _MAX:
            raise DataError(f"{file}: {kind!r} must be a positive integer, not {str(count)[:40]}", remedy)
        counts.append(count)
    return counts[0], counts[1]


def pair_files(path: Path, but: tuple[str, ...] = ()) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files of a folder that hold pairs of a behavior, by name, and why others are left out.

    A file that is called like a behavior counts; any other counts if it begins with two numbers.
    """
    found: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for file in sorted(path.glob("*.txt")):
        if file.stem in (*_OTHER, *but) or file.stem.endswith(_TIME) or file.name.startswith("."):
            continue
        if not file.is_file():
            continue
        words = [] if is_known(file.stem) else first_words(file)
        if file.stem.endswith("_dict") or file.stem in _DERIVED:
            left_out[file.name] = "derived from the pair files"
        elif is_known(file.stem) or file.stem == "train" or (len(words) == 2 and b"".join(words).isdigit()):
            found[file.stem] = file
        else:
            left_out[file.name] = "no pairs"
    return found, left_out


def read_part(path: Path, *, users: int | None = None, items: int | None = None, base: int = 1) -> Pairs:
    """Read one pair file as row numbers from 0."""
    return read_pairs(path, base=base, users=users, items=items)


def read(path: Path, *, target: str | None = None, name: str | None = None, base: int = 1) -> MultiBehaviorDataset:
    """Read a folder of pair files.

    Parameters
    ----------
    path : Path
    target : str, optional
        By default the behavior that is called buy or the like.
    name : str, optional
    base : {0, 1}
        What ids count from; 0 for the folders of those who number so.

    Raises
    ------
    DataError
        If a file is missing, empty or broken (with line), or an id is below ``base`` or beyond its count.
    UsageError
        If the target cannot be guessed.
    """
    users, items = read_count(path)
    sidecar = read_sidecar(path, "pairs")
    if sidecar is not None:
        return _read_own(path, sidecar, users, items)
    files, left_out = pair_files(path)
    edges = {behavior: read_part(file, users=users, items=items, base=base) for behavior, file in files.items()}
    train = edges.pop("train", None)
    target = find_target(path, edges, target)
    if train is not None:
        if not same_pairs(train, edges[target]):
            raise DataError(
                f"{path / 'train.txt'} differs from {target}.txt", "remove the one that is not the train set"
            )
        left_out["train.txt"] = f"the same as {target}.txt"
    for ids in ("users.txt", "items.txt"):
        if (path / ids).exists():
            left_out[ids] = f"ids are read only where {SIDECAR} vouches for them"
    held_out = split_files(path, "{}.txt")
    splits = {split: read_part(file, users=users, items=items, base=base) for split, file in held_out.items()}
    read_files = ["count.txt", *(f"{behavior}.txt" for behavior in edges), *(file.name for file in held_out.values())]
    source = Origin(path, "pairs", base, read_files, left_out)
    return assemble(source, edges, target, splits, name=name, users=users, items=items)


def _read_own(path: Path, sidecar: Sidecar, users: int, items: int) -> MultiBehaviorDataset:
    meta = sidecar.meta
    if (users, items) != (meta["users"], meta["items"]):
        raise DataError(f"{path / 'count.txt'} and {SIDECAR} disagree", "restore the files")
    parts = {}
    for part in (*meta["behaviors"], *meta["splits"]):
        check_file_name(str(sidecar.file), part)
        stem = SPLIT_FILES.get(part, part)
        pairs = read_pairs(path / f"{stem}.txt", base=1, users=users, items=items, empty=meta["counts"][part] == 0)
        sidecar.check_count(part, pairs)
        if part in sidecar.times:
            pairs = Pairs(pairs.user, pairs.item, _read_times(path / f"{stem}{_TIME}.txt", sidecar, part))
        parts[part] = pairs
    return sidecar.dataset(read_ids(path, "user", meta), read_ids(path, "item", meta), parts)


def _read_times(file: Path, sidecar: Sidecar, part: str) -> np.ndarray[Any, Any]:
    words = read_whole(file).split()
    if len(words) != sidecar.meta["counts"][part]:
        raise DataError(f"{file} holds {len(words)} times, not {sidecar.meta['counts'][part]}", "restore the file")
    return parse_times(str(file), np.array(words, dtype=bytes), sidecar.times[part])


def write(ds: MultiBehaviorDataset, path: Path, *, overwrite: bool = False) -> None:
    """Write a folder of pair files; `read` gives back the same dataset.

    Other programs read the pair files alone, and so lose original ids and times.

    Raises
    ------
    UsageError
        If the folder holds anything that may not be replaced.
    DataError
        If a behavior cannot be the name of a pair file.
    RunError
        If the disk is full or the place cannot be written.
    """
    check_place(path, "pairs", overwrite)
    for behavior in ds.behaviors:
        check_file_name(f"cannot write {path}", check_behavior_name(behavior))
        stem = behavior.lower()
        if stem in (*_OTHER, *_DERIVED, "train") or stem.endswith(("_dict", _TIME)):
            raise DataError(
                f"behavior {behavior!r} cannot be the name of a pair file, which means another", "rename it"
            )
    texts: dict[str, bytes] = {}
    for part, pairs in (*ds.edges.items(), *ds.splits.items()):
        stem = SPLIT_FILES.get(part, part)
        texts[f"{stem}.txt"] = _lines(pairs)
        if pairs.time is not None:
            texts[f"{stem}{_TIME}.txt"] = "".join(f"{time}\n" for time in time_texts(pairs.time)).encode()
    for kind, vocabulary in named_ids(ds).items():
        if not vocabulary.is_identity:
            texts[f"{kind}.txt"] = id_lines(vocabulary)
    sidecar = describe(ds, "pairs", [*texts, "count.txt"])
    with new_folder(path) as scratch:
        write_json(scratch / "count.txt", {"user": ds.num_users, "item": ds.num_items})
        for name, text in texts.items():
            with atomic_write(scratch / name) as file:
                file.write(text)
        write_json(scratch / SIDECAR, sidecar)


def _lines(pairs: Pairs) -> bytes:
    columns = (pairs.user + 1).tolist(), (pairs.item + 1).tolist()
    return "".join(f"{user} {item}\n" for user, item in zip(*columns, strict=True)).encode()
