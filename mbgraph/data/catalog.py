"""Where datasets are found: the embedded ``demo``, ``$MBGRAPH_DATA``, the cache folder, or a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mbgraph.data.cards import cards, find_card
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.npz import FACTS, is_npz, read_meta, read_npz
from mbgraph.errors import DataError, UsageError, nearest
from mbgraph.files import user_path

__all__ = [
    "check_name",
    "data_folders",
    "default_folder",
    "find_dataset",
    "home_folder",
    "list_datasets",
    "load_dataset",
]

DEMO = "demo"


def data_folders() -> list[Path]:
    """Return the folders that hold named datasets, in the order they are searched."""
    folders = []
    if os.environ.get("MBGRAPH_DATA"):
        folders.append(user_path(os.environ["MBGRAPH_DATA"]))
    home = home_folder()
    return folders if home is None else [*folders, home]


def home_folder() -> Path | None:
    """Return the folder of datasets in the user's home; None for a user without one."""
    try:
        return Path.home() / ".cache" / "mbgraph"
    except RuntimeError:  # HOME is not set, and no account has the user's number
        return None


def default_folder() -> Path:
    """Return the folder that downloads go to; `UsageError` if there is none."""
    folders = data_folders()
    if not folders:
        raise UsageError("there is no home folder to put datasets into", "say where (--to), or set MBGRAPH_DATA")
    return folders[0]


def check_name(directory: Path) -> None:
    """Raise `UsageError` if nobody could load a dataset written to a folder, as its name means another."""
    folders = [folder.resolve() for folder in data_folders()]
    if directory == Path(DEMO) or (directory.name == DEMO and directory.resolve().parent in folders):
        raise UsageError(f"{DEMO!r} is the name of the embedded data, which would hide {directory}", "choose another")


def find_dataset(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a dataset, a folder in most formats.

    A plain name is looked up in `data_folders` first and taken as a path last; anything with a separator is a path.
    Named datasets are in the npz layout; a path may hold any format of `mbgraph.data.formats`.

    Raises
    ------
    UsageError
        If nothing is there; the message names the nearest dataset and where it looked. Also for ``"demo"``, which is
        generated and has no folder.
    DataError
        If a path exists but holds no dataset, or files of two formats.
    """
    text = os.fspath(name_or_path)
    path = user_path(text or ".")
    if _is_plain(text):
        for folder in data_folders():
            if is_npz(folder / text):
                return (folder / text).resolve()
    if text and is_npz(path):
        return path.resolve()
    if text == DEMO:
        raise UsageError("'demo' is generated and has no folder", "load it by name, or write it with write_npz")
    if text and path.exists():
        return _in_other_format(path).resolve()
    raise _unknown(text)


def load_dataset(name_or_path: str | os.PathLike[str]) -> MultiBehaviorDataset:
    """Load a dataset by name or path; ``"demo"`` is generated on the spot.

    Raises
    ------
    UsageError, DataError
        See `find_dataset` and `mbgraph.data.formats.read`.
    """
    if os.fspath(name_or_path) == DEMO:
        from mbgraph.data.synthetic import demo

        return demo()
    path = find_dataset(name_or_path)
    if is_npz(path):
        return read_npz(path)
    from mbgraph.data import formats

    return formats.read(path)


def list_datasets() -> list[dict[str, Any]]:
    """Return every dataset that can be named: name, path and counts, read from ``meta.json`` alone.

    A folder whose ``meta.json`` cannot be used is listed with an ``error`` and no counts.
    """
    found: dict[str, dict[str, Any]] = {DEMO: {"name": DEMO, "path": None, "synthetic": True}}
    for folder in data_folders():
        try:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError:  # a locked folder holds nothing that could be loaded
            continue
        for path in paths:
            if path.name in found or path.name.startswith(".") or not is_npz(path):  # dot: half-written or moved aside
                continue
            entry: dict[str, Any] = {"name": path.name, "path": str(path)}
            try:
                meta = read_meta(path)
                entry.update({key: meta[key] for key in FACTS})
            except DataError as error:
                entry["error"] = str(error)
            found[path.name] = entry
    return list(found.values())


def _is_plain(text: str) -> bool:
    return text not in ("", ".", "..") and not any(separator in text for separator in "/\\") and text[0] not in ".~"


def _in_other_format(path: Path) -> Path:
    """Return the path if it holds a dataset in another format than npz."""
    from mbgraph.data.formats.detection import by_hand, candidates, detect

    found = candidates(path)
    if not found:
        line = by_hand(path)
        if line is not None:
            raise DataError(f"{path} is of no known format", f"say what its files are: {line}")
        raise DataError(f"{path} is no dataset: it has no meta.json", "import an event log with: mbgraph data import")
    if found == ["events"]:
        raise DataError(f"{path} is an event log, no dataset", "import it with: mbgraph data import")
    if len(found) > 1:
        detect(path)  # raises what says which
    return path


def _unknown(text: str) -> UsageError:
    if not _is_plain(text):
        return UsageError(
            f"unknown dataset {text!r}", "there is no such folder; mbgraph data ls shows what can be named"
        )
    looked = ", ".join(str(folder) for folder in data_folders()) or "no folder"
    if find_card(text) is not None:
        return UsageError(
            f"dataset {text!r} is not on disk",
            f"see mbgraph data show {text}, get it with mbgraph data download {text} (looked in {looked})",
        )
    names = [entry["name"] for entry in list_datasets()]
    close = nearest(text, [*names, *cards()])
    hint = f"did you mean {close!r}?" if close else f"known are {', '.join(names)}"
    return UsageError(
        f"unknown dataset {text!r}", f"{hint} (looked in {looked} and as a path; MBGRAPH_DATA adds a folder)"
    )
