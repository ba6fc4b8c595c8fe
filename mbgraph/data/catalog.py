"""Where datasets are found: the embedded ``demo``, ``$MBGRAPH_DATA``, the cache folder, or a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import is_npz, read_meta, read_npz
from mbgraph.errors import DataError, UsageError, nearest

__all__ = ["data_folders", "find_dataset", "list_datasets", "load_dataset"]


def data_folders() -> list[Path]:
    """Return the folders that hold named datasets, in the order they are searched."""
    folders = []
    if os.environ.get("MBGRAPH_DATA"):
        folders.append(Path(os.environ["MBGRAPH_DATA"]).expanduser())
    folders.append(Path.home() / ".cache" / "mbgraph")
    return folders


def find_dataset(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the absolute folder of a dataset.

    A plain name is looked up in `data_folders` first and taken as a path last; anything with a separator is a path.

    Raises
    ------
    UsageError
        If nothing is there; the message names the nearest dataset and where it looked.
    DataError
        If a path exists but holds no dataset.
    """
    text = os.fspath(name_or_path)
    plain = text not in ("", ".", "..") and Path(text).name == text
    if plain:
        for folder in data_folders():
            if is_npz(folder / text):
                return (folder / text).resolve()
    path = Path(text).expanduser()
    if text and is_npz(path):
        return path.resolve()
    if text and path.exists():
        raise DataError(f"{text} is no dataset: it has no meta.json", "import an event log with: mbgraph data import")
    names = [entry["name"] for entry in list_datasets()]
    close = nearest(text, names)
    looked = ", ".join(str(folder) for folder in data_folders())
    hint = f"did you mean {close!r}?" if close else f"looked in {looked} (set MBGRAPH_DATA) and as a path"
    raise UsageError(f"unknown dataset {text!r}", hint)


def load_dataset(name_or_path: str | os.PathLike[str]) -> MultiBehaviorDataset:
    """Load a dataset by name or path; ``"demo"`` is generated on the spot.

    Raises
    ------
    UsageError, DataError
        See `find_dataset` and `mbgraph.data.formats.npz.read_npz`.
    """
    if os.fspath(name_or_path) == "demo":
        from mbgraph.data.synthetic import demo

        return demo()
    return read_npz(find_dataset(name_or_path))


def list_datasets() -> list[dict[str, Any]]:
    """Return name, folder and counts of every dataset that can be named, read from ``meta.json`` alone."""
    found: dict[str, dict[str, Any]] = {"demo": {"name": "demo", "path": None, "synthetic": True}}
    for folder in data_folders():
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.name in found or not is_npz(path):
                continue
            meta = read_meta(path)
            facts = {key: meta.get(key) for key in ("users", "items", "behaviors", "target", "splits", "counts")}
            found[path.name] = {"name": path.name, "path": str(path), **facts}
    return list(found.values())
