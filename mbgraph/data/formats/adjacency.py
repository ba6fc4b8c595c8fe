"""Adjacency files (GHCF, MBSSL, S-MBRec; by folder MB-CGCN): a user and all the user's items per line, from 0.

Users without items need no line, so the numbers of users and items are the largest ids plus one unless they are given.
``train.txt`` is the target, called buy; ``pv.txt``, ``cart.txt`` and the like are the other behaviors.
"""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.aliases import canonical_split, is_known
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble
from mbgraph.data.formats.content import first_words, split_files
from mbgraph.data.formats.text import read_adjacency
from mbgraph.data.interactions import Pairs
from mbgraph.errors import UsageError

__all__ = ["behavior_files", "read", "read_part"]

_DERIVED = ("train_all", "all")


def read_part(path: Path, *, users: int | None = None, items: int | None = None) -> Pairs:
    """Read one adjacency file."""
    return read_adjacency(path, users=users, items=items)[0]


def behavior_files(path: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files of a folder that hold auxiliary behaviors, by name, and why others are left out.

    A file that is called like a behavior counts; any other counts if it begins with a line of numbers.
    """
    found: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for file in sorted(path.glob("*.txt")):
        if file.stem == "train" or canonical_split(file.stem) or file.name.startswith(".") or not file.is_file():
            continue
        words = [] if is_known(file.stem) else first_words(file)
        if file.stem in _DERIVED:
            left_out[file.name] = "derived from the others"
        elif is_known(file.stem) or (words and all(word.isdigit() for word in words)):
            found[file.stem] = file
        else:
            left_out[file.name] = "no lists of items"
    return found, left_out


def read(
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Read a folder of adjacency files.

    Parameters
    ----------
    path : Path
    target : str, optional
        What to call the pairs of ``train.txt``; by default ``"buy"``.
    name : str, optional
    users, items : int, optional
        Numbers of them.

    Raises
    ------
    DataError
        If a file is missing, empty or broken, or a user has two lines.
    """
    target = target or "buy"
    others, left_out = behavior_files(path)
    if target in others:
        raise UsageError(
            f"{path} holds {target}.txt, but train.txt is the target of this format", "name the target otherwise"
        )
    files = {target: path / "train.txt", **others}
    held_out = split_files(path, "{}.txt")
    most = 0
    parts: dict[str, Pairs] = {}
    for part, file in {**files, **held_out}.items():
        parts[part], seen = read_adjacency(file, users=users, items=items)
        most = max(most, seen)
    source = Origin(path, "adjacency", 0, [file.name for file in (*files.values(), *held_out.values())], left_out)
    edges, splits = ({part: parts[part] for part in names} for names in (files, held_out))
    return assemble(source, edges, target, splits, name=name, users=most if users is None else users, items=items)
