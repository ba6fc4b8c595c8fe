"""``mbgraph.json``: what a foreign format has no place for, beside the files of a folder that mbgraph writes.

It holds the name, the order of behaviors, the target, counts, types of ids and times, and the metadata, so that reading
the folder gives back the very dataset. Other programs need not know it, and a folder without it can be read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import OWN_KEYS, check_meta, meta_of
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UsageError
from mbgraph.files import check_folder, read_json

__all__ = ["SIDECAR", "Sidecar", "check_place", "describe", "parse_times", "read_sidecar", "time_texts"]

SIDECAR = "mbgraph.json"
_TYPE = re.compile(r"[<>|][iuf][1248]")


class Sidecar:
    """A checked ``mbgraph.json``.

    Attributes
    ----------
    file : Path
    meta : dict
        As in ``meta.json`` of the npz layout.
    times : dict of str to dtype
        Type of the times of each part that has any.
    files : list of str
        All files of the folder.
    """

    def __init__(self, file: Path, content: Any, format: str) -> None:
        if not isinstance(content, dict) or content.get("format") != format:
            raise DataError(f"{file} does not describe {format} files", "restore the file or remove it")
        self.file = file
        self.meta = check_meta(file, content.get("dataset"))
        parts = (*self.meta["behaviors"], *self.meta["splits"])
        times, files = content.get("times"), content.get("files")
        if not isinstance(times, dict) or not all(
            part in parts and isinstance(dtype, str) and _TYPE.fullmatch(dtype) and dtype[1:] != "f1"
            for part, dtype in times.items()
        ):
            raise DataError(f"{file}: 'times' must name the type of time of some parts", "restore the file")
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise DataError(f"{file}: 'files' must be a list of names", "restore the file")
        self.times = {part: np.dtype(dtype) for part, dtype in times.items()}
        self.files = files

    def check_count(self, part: str, pairs: Pairs) -> None:
        """Raise `DataError` unless there are as many pairs as were written."""
        count = self.meta["counts"][part]
        if len(pairs) != count:
            raise DataError(
                f"{self.file} says {count} {part} pairs, there are {len(pairs)}",
                f"restore the files, or remove {SIDECAR} to read them as they are",
            )

    def dataset(self, users: Vocabulary, items: Vocabulary, parts: Mapping[str, Pairs]) -> MultiBehaviorDataset:
        """Return the dataset that was written, of the parts that were read."""
        for part, pairs in parts.items():
            self.check_count(part, pairs)
        metadata = dict(self.meta.get("metadata", {}))
        kept = {key: value for key, value in self.meta.items() if key not in OWN_KEYS}
        if kept:
            metadata["meta"] = kept
        edges, splits = ({name: parts[name] for name in self.meta[key]} for key in ("behaviors", "splits"))
        try:
            return MultiBehaviorDataset(self.meta["name"], users, items, edges, self.meta["target"], splits, metadata)
        except DataError as error:
            raise DataError(f"{self.file.parent}: {error.message}", error.remedy) from error


def read_sidecar(folder: Path, format: str) -> Sidecar | None:
    """Read ``mbgraph.json`` if the folder has one; `DataError` if it cannot be used."""
    file = folder / SIDECAR
    if not file.exists():
        return None
    return Sidecar(file, read_json(file), format)


def describe(ds: MultiBehaviorDataset, format: str, files: list[str]) -> dict[str, Any]:
    """Return the content of ``mbgraph.json``."""
    times = {
        part: pairs.time.dtype.str for part, pairs in (*ds.edges.items(), *ds.splits.items()) if pairs.time is not None
    }
    for part, dtype in times.items():
        if not _TYPE.fullmatch(dtype):
            raise DataError(f"times of {part!r} are {np.dtype(dtype)}, of more than 64 bits", "convert them to float64")
    return {"format": format, "dataset": meta_of(ds), "times": times, "files": sorted((*files, SIDECAR))}


def check_place(path: Path, format: str, overwrite: bool) -> None:
    """Raise `UsageError` if a folder cannot be written: only folders that mbgraph wrote in this format are replaced."""

    def objection(held: list[str]) -> None:
        remedy = f"only folders of {format} files that mbgraph wrote are overwritten; choose another folder"
        try:
            known = read_sidecar(path, format)
        except DataError as error:
            raise UsageError(f"{path} cannot be overwritten ({error.message})", remedy) from error
        foreign = [name for name in held if known is None or name not in known.files]
        if foreign:
            what = f"it has no {SIDECAR}" if known is None else f"it holds {foreign[0]}"
            raise UsageError(f"{path} cannot be overwritten ({what})", remedy)

    check_folder(path, overwrite, objection)


def time_texts(times: np.ndarray[Any, Any]) -> list[str]:
    """Return times as text that `parse_times` turns into the same numbers, (N,)."""
    # a float of fewer bits is written as the equal float of 64 bits: rounding twice could change it
    return [repr(value) for value in (times.astype(np.float64) if times.dtype.kind == "f" else times).tolist()]


def parse_times(where: str, texts: np.ndarray[Any, Any], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    """Return times from text, (N,), in the type ``dtype``; by default int64 if all are integers, otherwise float64.

    Parameters
    ----------
    where : str
        File for the message of the `DataError`.
    texts : object or bytes array (N,)
    dtype : dtype, optional
    """
    for kind in (dtype,) if dtype is not None else (np.dtype(np.int64), np.dtype(np.float64)):
        try:
            wide = texts.astype(np.float64) if kind.kind == "f" else _integers(texts, kind)
        except (ValueError, OverflowError, TypeError):
            continue
        return wide.astype(kind)
    raise DataError(f"{where}: times are no numbers{f' of type {dtype}' if dtype else ''}", "restore the file")


def _integers(texts: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    values = [int(text) for text in texts.tolist()]  # exact in all 64 bits, unlike a way through floats
    info = np.iinfo(dtype)
    if values and not (info.min <= min(values) and max(values) <= info.max):
        raise OverflowError
    return np.array(values, dtype)
