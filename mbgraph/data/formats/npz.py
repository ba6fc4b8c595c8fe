"""The native format: a folder with ``meta.json`` and one ``.npz`` per behavior and split.

``meta.json`` holds name, users, items, behaviors, target, splits and counts; further keys are kept. Each
``<behavior|split>.npz`` holds integer arrays ``user`` and ``item`` and optionally ``time``. Optional ``users.txt`` and
``items.txt`` hold the original id of every row, one per line; ``meta.json`` then says under ``ids`` whether they are
``"int"`` or ``"str"``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, MbgraphError, RunError, UsageError
from mbgraph.files import inside, read_json

__all__ = ["is_npz", "read_meta", "read_npz", "write_npz"]

_REQUIRED = ("name", "users", "items", "behaviors", "target")


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder looks like this format."""
    return (Path(path) / "meta.json").is_file()


def read_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check ``meta.json``; raises `DataError` that names the file and the key."""
    file = Path(path) / "meta.json"
    meta = read_json(file)
    if not isinstance(meta, dict):
        raise DataError(f"{file} is not a JSON object")
    for key in _REQUIRED:
        if key not in meta:
            raise DataError(f"{file} lacks the key {key!r}", f"it needs {', '.join(_REQUIRED)}")
    for key in ("users", "items"):
        if not isinstance(meta[key], int) or isinstance(meta[key], bool) or meta[key] < 1:
            raise DataError(f"{file}: {key!r} must be a positive integer, not {meta[key]!r}")
    for key in ("behaviors", "splits"):
        names = meta.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise DataError(f"{file}: {key!r} must be a list of names")
        if len(set(names)) != len(names):
            raise DataError(f"{file}: {key!r} names one twice")
    for split in meta.get("splits", []):
        if split not in SPLITS:
            raise DataError(f"{file}: unknown split {split!r}", f"splits are {', '.join(SPLITS)}")
    both = set(meta["behaviors"]) & set(SPLITS)
    if both:
        raise DataError(f"{file}: a behavior cannot be called {both.pop()!r}", "rename it")
    return meta


def read_npz(path: str | os.PathLike[str]) -> MultiBehaviorDataset:
    """Read a dataset folder.

    Raises
    ------
    DataError
        If a file is missing, truncated or hostile (object arrays, headers that claim more than the file holds), ids are
        not integers or out of range, a pair stands twice, or ``meta.json`` disagrees with the arrays.
    """
    path = Path(path)
    meta = read_meta(path)
    counts = meta.get("counts", {})
    parts = {}
    for name in (*meta["behaviors"], *meta.get("splits", [])):
        file = inside(path, f"{name}.npz")
        parts[name] = _read_pairs(file)
        if name in counts and counts[name] != len(parts[name]):
            raise DataError(
                f"{path / 'meta.json'} says {counts[name]} {name} pairs, {file.name} holds {len(parts[name])}",
                "correct the counts or restore the file",
            )
    vocabularies = {kind: _read_ids(path, kind, meta) for kind in ("user", "item")}
    return MultiBehaviorDataset(
        str(meta["name"]),
        vocabularies["user"],
        vocabularies["item"],
        {name: parts[name] for name in meta["behaviors"]},
        str(meta["target"]),
        {name: parts[name] for name in meta.get("splits", [])},
        {**meta.get("metadata", {}), "meta": meta},
    )


def write_npz(ds: MultiBehaviorDataset, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a dataset folder; `read_npz` gives back the same arrays in the same order.

    The folder is written under a temporary name and renamed.

    Raises
    ------
    UsageError
        If the folder exists, is not empty and ``overwrite`` is False.
    RunError
        If it cannot be written.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())) and not overwrite:
        raise UsageError(f"{path} already exists", "choose another folder or overwrite it (--force)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}", "choose another folder") from error
    try:
        for name, pairs in (*ds.edges.items(), *ds.splits.items()):
            columns = {"user": pairs.user, "item": pairs.item}
            if pairs.time is not None:
                columns["time"] = pairs.time
            np.savez_compressed(inside(scratch, f"{name}.npz"), **columns)
        for kind, vocabulary in (("users", ds.users), ("items", ds.items)):
            if not vocabulary.is_identity:
                _write_ids(scratch / f"{kind}.txt", vocabulary)
        (scratch / "meta.json").write_text(json.dumps(_meta(ds), indent=1) + "\n", encoding="utf-8")
        scratch.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(scratch, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}", "free some space or choose another folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _meta(ds: MultiBehaviorDataset) -> dict[str, Any]:
    kept = ds.metadata.get("meta", {})
    meta = {
        **kept,
        "name": ds.name,
        "users": ds.num_users,
        "items": ds.num_items,
        "behaviors": list(ds.behaviors),
        "target": ds.target,
        "splits": list(ds.splits),
        "counts": ds.counts,
    }
    ids = {
        kind: "int" if vocabulary.ids.dtype.kind == "i" else "str"
        for kind, vocabulary in (("users", ds.users), ("items", ds.items))
        if not vocabulary.is_identity
    }
    if ids:
        meta["ids"] = ids
    more = {key: value for key, value in ds.metadata.items() if key != "meta" and _is_plain(value)}
    if more:
        meta["metadata"] = more
    return meta


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _read_pairs(file: Path) -> Pairs:
    if not file.is_file():
        raise DataError(f"{file} is missing", "meta.json names it; restore the file or correct meta.json")
    try:
        with zipfile.ZipFile(file) as archive:
            held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for column in ("user", "item"):
                if column not in held:
                    raise DataError(f"{file} holds no array {column!r}", "it needs integer arrays user and item")
            columns = {name: _read_array(archive, held[name], file) for name in ("user", "item", "time") if name in held}
    except MbgraphError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError, NotImplementedError) as error:
        raise DataError(f"{file} is truncated or no npz file ({error})", "restore the file") from error
    for name in ("user", "item"):
        array = columns[name]
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise DataError(f"{file}: {name} ids contain NaN", "drop or fill them")
        if array.dtype.kind not in "iu":
            raise DataError(f"{file}: {name} ids are {array.dtype}, not integers", "map original ids with mbgraph data import")
    if "time" in columns and columns["time"].dtype.kind not in "iuf":
        raise DataError(f"{file}: time is {columns['time'].dtype}, not a number")
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{file}: arrays have different lengths {lengths}")
    time = columns.get("time")
    return Pairs(columns["user"].astype(np.int64), columns["item"].astype(np.int64), time)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> np.ndarray[Any, Any]:
    """Read one member after checking that its header claims exactly what the member holds."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(member)
        if dtype.hasobject:
            raise DataError(f"{file}: {info.filename} is an object array, which may carry code", "save it as integers")
        if len(shape) != 1:
            raise DataError(f"{file}: {info.filename} has shape {shape}, not (N,)")
        claimed = int(shape[0]) * dtype.itemsize
        held = info.file_size - member.tell()
        if claimed != held:
            raise DataError(f"{file}: {info.filename} claims {claimed} bytes and holds {held}", "restore the file")
        data = member.read(claimed)
    return np.frombuffer(data, dtype=dtype)


def _read_ids(path: Path, kind: str, meta: Mapping[str, Any]) -> Vocabulary:
    count, file = meta[f"{kind}s"], path / f"{kind}s.txt"
    if not file.is_file():
        return Vocabulary(size=count, kind=kind)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file} ({error})") from error
    if lines and lines[-1] == "":
        lines.pop()
    if len(lines) != count:
        raise DataError(f"{file} holds {len(lines)} ids, meta.json says {count} {kind}s")
    if meta.get("ids", {}).get(f"{kind}s", "str") != "int":
        return Vocabulary(lines, kind=kind)
    try:
        return Vocabulary(np.array([int(line) for line in lines], dtype=np.int64), kind=kind)
    except ValueError as error:
        raise DataError(f"{file} holds an id that is no integer ({error})", 'set "ids" in meta.json to "str"') from error


def _write_ids(file: Path, vocabulary: Vocabulary) -> None:
    lines = [str(value) for value in vocabulary.ids.tolist()]
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"{vocabulary.kind} id {line!r} contains a line break", "rename it")
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
