"""The native format: a folder with ``meta.json`` and one ``.npz`` per behavior and split.

- ``meta.json``: name, users, items (numbers of them), behaviors, target, splits, counts (pairs per behavior and split).
  ``metadata`` holds what mbgraph records about the data; further keys (source, notes, ...) are kept.
- ``<behavior|split>.npz``: integer arrays ``user`` and ``item``, optionally ``time`` (integers or floats), each (N,).
- ``users.txt``, ``items.txt``: the original id of every row, one per line, UTF-8. Lines are text (``007`` stays
  ``007``) unless ``meta.json`` says ``"ids": {"users": "int"}``. Without the file, row numbers are the ids.

Reading trusts nothing: `mbgraph.data.formats.archive` looks at sizes before it takes memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph import limits
from mbgraph.data.columns import is_plain
from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset, check_behavior_name, check_pairs
from mbgraph.data.formats.archive import read_arrays
from mbgraph.data.formats.folder import new_folder
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UsageError, nearest
from mbgraph.files import atomic_write, check_folder, inside, read_json, read_whole, reading, write_json

__all__ = [
    "FACTS",
    "OWN_KEYS",
    "check_file_name",
    "check_meta",
    "check_place",
    "id_lines",
    "is_npz",
    "meta_of",
    "named_ids",
    "read_ids",
    "read_meta",
    "read_npz",
    "write_npz",
]

FACTS = ("users", "items", "behaviors", "target", "splits", "counts")
"""What every ``meta.json`` says of its dataset, beside the name."""
_REQUIRED = ("name", *FACTS)
OWN_KEYS = (*_REQUIRED, "ids", "metadata")  # written from the dataset; every other key is kept as it was read
_FILES = ("meta.json", "manifest.json", "users.txt", "items.txt")  # besides npz files, all a dataset folder holds
_MAX_ROWS = 2**31 - 1


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder looks like this format."""
    try:
        return (Path(path) / "meta.json").is_file()
    except (OSError, ValueError):  # names that no file can have: too long, with a NUL, in a locked folder
        return False


def read_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check ``meta.json``; raises `DataError` that names the file and the key."""
    file = Path(path) / "meta.json"
    return check_meta(file, read_json(file))


def check_meta(file: Path, meta: Any) -> dict[str, Any]:
    """Return the facts about a dataset, each checked; ``file`` is what the `DataError` names."""
    if not isinstance(meta, dict):
        raise DataError(f"{file} is not a JSON object", "restore the file")
    for key in _REQUIRED:
        if key not in meta:
            raise DataError(f"{file} lacks the key {key!r}", f"it needs {', '.join(_REQUIRED)}")
    for key in ("name", "target"):
        if not isinstance(meta[key], str):
            raise DataError(f"{file}: {key!r} must be text, not {meta[key]!r}", "correct it")
    for key in ("users", "items"):
        if not _is_count(meta[key]) or not 0 < meta[key] <= _MAX_ROWS:
            raise DataError(f"{file}: {key!r} must be a positive integer, not {meta[key]!r}", "give the number of them")
        limits.check(key, meta[key], file)
    for key in ("behaviors", "splits"):
        if not isinstance(meta[key], list):
            raise DataError(f"{file}: {key!r} must be a list of names, not {meta[key]!r}", "correct it")
        limits.check("behaviors", len(meta[key]), file)
        for name in meta[key]:
            check_file_name(f"{file}: {key!r}", name)
        if len(set(meta[key])) != len(meta[key]):
            raise DataError(f"{file}: {key!r} names one twice", "leave one out")
    _check_names(file, meta)
    for key in ("ids", "metadata"):
        if not isinstance(meta.get(key, {}), dict):
            raise DataError(f"{file}: {key!r} must be an object, not {meta[key]!r}", "correct it")
    return meta


def read_npz(path: str | os.PathLike[str]) -> MultiBehaviorDataset:
    """Read a dataset folder.

    Keys of ``meta.json`` that mbgraph does not know stand in ``metadata["meta"]``.

    Raises
    ------
    DataError
        If a file is missing, truncated or hostile (object arrays, headers that claim more than the file holds), ids are
        not integers or out of range, a pair stands twice, or ``meta.json`` disagrees with the arrays.
    """
    path = Path(path)
    with reading(path):
        return _read(path)


def _read(path: Path) -> MultiBehaviorDataset:
    meta = read_meta(path)
    parts = {name: _read_pairs(path, name, meta) for name in (*meta["behaviors"], *meta["splits"])}
    metadata = dict(meta.get("metadata", {}))
    kept = {key: value for key, value in meta.items() if key not in OWN_KEYS}
    if kept:
        metadata["meta"] = kept
    users, items = (read_ids(path, kind, meta) for kind in ("user", "item"))
    edges = {name: parts[name] for name in meta["behaviors"]}
    splits = {name: parts[name] for name in meta["splits"]}
    try:
        return MultiBehaviorDataset(meta["name"], users, items, edges, meta["target"], splits, metadata)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.remedy) from error


def write_npz(ds: MultiBehaviorDataset, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a dataset folder; `read_npz` gives back the same arrays in the same order.

    The folder is written under a temporary name and renamed: whoever looks sees the old one, the new one or none, and
    after an error the old one.

    Parameters
    ----------
    ds : MultiBehaviorDataset
    path : path
        Parents are made.
    overwrite : bool
        Replace an existing dataset folder. A folder that holds anything else is never replaced.

    Raises
    ------
    UsageError
        If the folder exists, is not empty and ``overwrite`` is False or would delete files of another kind.
    DataError
        If a behavior name or an id cannot be written.
    RunError
        If the disk is full or the place cannot be written.
    """
    path = Path(path)
    check_place(path, overwrite)
    for behavior in ds.behaviors:
        check_file_name(f"cannot write {path}", behavior)
    meta = meta_of(ds)
    lines = {f"{v.kind}s.txt": id_lines(v) for v in named_ids(ds).values() if not v.is_identity}
    with new_folder(path) as scratch:
        for name, pairs in (*ds.edges.items(), *ds.splits.items()):
            with atomic_write(scratch / f"{name}.npz") as file:
                np.savez_compressed(file, **_columns(pairs))
        for name, text in lines.items():
            with atomic_write(scratch / name) as file:
                file.write(text)
        write_json(scratch / "meta.json", meta)


def check_place(path: Path, overwrite: bool) -> None:
    """Raise `UsageError` if `write_npz` would refuse the folder; ask before long work."""

    def objection(held: list[str]) -> None:
        foreign = [name for name in held if name not in _FILES and not name.endswith(".npz")]
        if foreign or "meta.json" not in held:
            what = f"it holds {foreign[0]}" if foreign else "it has no meta.json"
            raise UsageError(
                f"{path} is no dataset folder ({what})", "only datasets are overwritten; choose another folder"
            )

    check_folder(path, overwrite, objection)


def _check_names(file: Path, meta: Mapping[str, Any]) -> None:
    for behavior in meta["behaviors"]:
        check_behavior_name(behavior)
    for split in meta["splits"]:
        if split not in SPLITS:
            raise DataError(f"{file}: unknown split {split!r}", f"splits are {', '.join(SPLITS)}")
    if meta["target"] not in meta["behaviors"]:
        close = nearest(meta["target"], meta["behaviors"])
        raise DataError(
            f"{file}: target {meta['target']!r} is none of the behaviors {', '.join(meta['behaviors'])}",
            f"did you mean {close!r}?" if close else "name one of them",
        )
    counts = meta["counts"]
    if not isinstance(counts, dict):
        raise DataError(f"{file}: 'counts' must be an object, not {counts!r}", "correct it")
    names = (*meta["behaviors"], *meta["splits"])
    for name in names:
        if not _is_count(counts.get(name)):
            raise DataError(f"{file}: 'counts' gives no number of {name} pairs", "add it")
    for name in counts:
        if name not in names:
            raise DataError(f"{file}: 'counts' names {name!r}, which is no behavior or split", "correct it")


def check_file_name(where: str, name: Any) -> None:
    """Refuse a name whose file would lie outside the folder, be hidden, or not be portable."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: {name!r} is no name", "name it by text, such as view or buy")
    if name.startswith(".") or any(letter in '/\\:*?"<>|' or not letter.isprintable() for letter in name):
        raise DataError(f"{where}: {name!r} cannot be a file name", "use letters, digits, - and _")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_pairs(path: Path, name: str, meta: Mapping[str, Any]) -> Pairs:
    file = inside(path, f"{name}.npz")
    if not file.is_file():
        raise DataError(f"{file} is missing, but meta.json names it", "restore the file or correct meta.json")
    count, cells = meta["counts"][name], meta["users"] * meta["items"]
    if count > cells:
        raise DataError(
            f"{path / 'meta.json'} says {count} {name} pairs, but {meta['users']} users and {meta['items']} items make "
            f"{cells}",
            "correct meta.json",
        )
    try:
        columns = read_arrays(file, ("user", "item"), ("time",), count)
        pairs = Pairs(columns["user"], columns["item"], columns.get("time"))
        check_pairs(str(file), pairs, meta["users"], meta["items"])
    except DataError as error:
        if error.message.startswith(str(file)):
            raise
        raise DataError(f"{file}: {error.message}", error.remedy) from error
    return pairs


def read_ids(path: Path, kind: str, meta: Mapping[str, Any]) -> Vocabulary:
    """Return the original ids in ``users.txt`` or ``items.txt``, or row numbers where there is no file."""
    count, file = meta[f"{kind}s"], path / f"{kind}s.txt"
    written_as = meta.get("ids", {}).get(f"{kind}s")
    if written_as not in (None, "int", "str"):
        raise DataError(f"{path / 'meta.json'}: ids of {kind}s are {written_as!r}", 'write "int" or "str"')
    if not file.exists():
        if written_as is not None:
            raise DataError(f"{file} is missing, but meta.json says that it holds the ids", "restore the file")
        return Vocabulary(size=count, kind=kind)
    try:
        text = read_whole(inside(path, file.name)).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {file} ({error})", "restore it as UTF-8 text") from error
    lines = text.removesuffix("\n").split("\n") if text else []
    if len(lines) != count:
        raise DataError(f"{file} holds {len(lines)} ids, meta.json says {count} {kind}s", "restore the file")
    ids: list[str] | np.ndarray = _integers(file, lines) if written_as == "int" else lines
    try:
        return Vocabulary(ids, kind=kind)
    except DataError as error:
        raise DataError(f"{file}: {error.message}", error.remedy) from error


def _integers(file: Path, lines: list[str]) -> np.ndarray:
    for number, line in enumerate(lines, 1):
        if not is_plain(line):
            raise DataError(
                f"{file} line {number}: {line[:40]!r} is no integer of 64 bits, or not written plainly",
                'correct it, or set "ids" in meta.json to "str"',
            )
    return np.array([int(line) for line in lines], dtype=np.int64)


def named_ids(ds: MultiBehaviorDataset) -> dict[str, Vocabulary]:
    """Return both vocabularies under the names that ``meta.json`` has for them."""
    return {"users": ds.users, "items": ds.items}


def id_lines(vocabulary: Vocabulary) -> bytes:
    """Return the content of ``users.txt`` or ``items.txt``; `DataError` if an id cannot stand on a line."""
    lines = [str(value) for value in vocabulary.ids.tolist()]
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"{vocabulary.kind} id {line!r} contains a line break", "rename it")
    try:
        return "".join(f"{line}\n" for line in lines).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{vocabulary.kind} ids cannot be written as UTF-8 ({error.reason})", "rename them") from error


def _columns(pairs: Pairs) -> dict[str, Any]:
    """Return the arrays of a file, row numbers in 32 bits where they fit: half the bytes, the same numbers back."""
    columns: dict[str, Any] = {}
    for name, rows in (("user", pairs.user), ("item", pairs.item)):
        columns[name] = rows.astype(np.int32 if not len(rows) or int(rows.max()) < 2**31 else np.int64)
    return columns if pairs.time is None else {**columns, "time": pairs.time}


def meta_of(ds: MultiBehaviorDataset) -> dict[str, Any]:
    """Return what ``meta.json`` says about a dataset."""
    kept = {key: value for key, value in dict(ds.metadata.get("meta", {})).items() if key not in OWN_KEYS}
    meta = {
        "name": ds.name,
        "users": ds.num_users,
        "items": ds.num_items,
        "behaviors": list(ds.behaviors),
        "target": ds.target,
        "splits": list(ds.splits),
        "counts": ds.counts,
        **kept,
    }
    ids = {
        name: "int" if vocabulary.ids.dtype.kind == "i" else "str"
        for name, vocabulary in named_ids(ds).items()
        if not vocabulary.is_identity
    }
    if ids:
        meta["ids"] = ids
    more = {key: value for key, value in ds.metadata.items() if key != "meta"}
    if more:
        meta["metadata"] = more
    for key, value in (*kept.items(), *more.items()):
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"metadata {key!r} of {ds.name!r} is no JSON ({error})", "leave it out") from error
    return meta
