"""MB-CGCN's folders: one per behavior, each with ``train.txt`` and ``test.txt``, tab separated adjacency from 0.

Only the target's test file is what models are judged on. Those of the other behaviors hold pairs that their train files
lack; as in the published code they are in no graph, and the dataset's metadata says that they were left out.
"""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.content import split_files
from mbgraph.data.formats.text import read_adjacency
from mbgraph.data.interactions import Pairs

__all__ = ["read"]


def read(
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Read the folders of all behaviors.

    Parameters
    ----------
    path : Path
    target : str, optional
        By default the behavior that is called buy or the like.
    name : str, optional
    users, items : int, optional
        Numbers of them; by default the largest id plus one, of the files that are read.

    Raises
    ------
    DataError
        If a file is missing, empty or broken, or a user has two lines.
    UsageError
        If the target cannot be guessed.
    """
    folders = {folder.name: folder for folder in sorted(path.iterdir()) if (folder / "train.txt").is_file()}
    target = find_target(path, folders, target)
    held_out = split_files(folders[target], "{}.txt")
    left_out = {
        f"{behavior}/{file.name}": "held-out pairs of an auxiliary behavior"
        for behavior, folder in folders.items()
        if behavior != target
        for file in split_files(folder, "{}.txt").values()
    }
    files = {**{behavior: folder / "train.txt" for behavior, folder in folders.items()}, **held_out}
    most = 0
    parts: dict[str, Pairs] = {}
    for part, file in files.items():
        parts[part], seen = read_adjacency(file, users=users, items=items)
        most = max(most, seen)
    source = Origin(path, "mbcgcn", 0, [f"{file.parent.name}/{file.name}" for file in files.values()], left_out)
    edges, splits = ({part: parts[part] for part in names} for names in (folders, held_out))
    return assemble(source, edges, target, splits, name=name, users=most if users is None else users, items=items)
