"""MBGCN's folder: ``data_size.txt`` with the numbers of users and items, and files of ``user item`` lines from 0.

``train.txt``, ``validation.txt`` and ``test.txt`` hold the target; ``cart.txt``, ``click.txt``, ``collect.txt`` the
other behaviors. ``buy.txt``, where there is one, is ``train.txt`` over again.
"""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble
from mbgraph.data.formats.content import first_words, same_pairs, split_files
from mbgraph.data.formats.text import read_pairs
from mbgraph.errors import DataError

__all__ = ["SIZES", "read", "read_sizes"]

SIZES = "data_size.txt"
_MAX = 2**31 - 1


def read_sizes(path: Path) -> tuple[int, int]:
    """Return the numbers of users and items in ``data_size.txt``; `DataError` if it is anything else."""
    words = first_words(path / SIZES)
    if len(words) != 2 or not all(word.isdigit() and len(word) < 12 and 0 < int(word) <= _MAX for word in words):
        raise DataError(f"{path / SIZES} does not hold two numbers", "write the numbers of users and items")
    return int(words[0]), int(words[1])


def read(path: Path, *, target: str | None = None, name: str | None = None) -> MultiBehaviorDataset:
    """Read MBGCN's folder.

    Parameters
    ----------
    path : Path
    target : str, optional
        What to call the pairs of ``train.txt``; by default ``"buy"``.
    name : str, optional

    Raises
    ------
    DataError
        If a file is missing, empty or broken (with line), an id is beyond its count, or ``buy.txt`` differs from
        ``train.txt``.
    """
    from mbgraph.data.formats.pairs import pair_files

    target = target or "buy"
    users, items = read_sizes(path)
    found, left_out = pair_files(path, but=("train", SIZES.removesuffix(".txt")))
    files = {**{target: path / "train.txt"}, **{stem: file for stem, file in found.items() if stem != target}}
    held_out = split_files(path, "{}.txt")
    parts = {part: read_pairs(file, users=users, items=items) for part, file in {**files, **held_out}.items()}
    if target in found:
        if not same_pairs(parts[target], read_pairs(found[target], users=users, items=items)):
            raise DataError(
                f"{path / 'train.txt'} differs from {found[target].name}", "remove the one that is not the train set"
            )
        left_out[found[target].name] = "the same as train.txt"
    read_files = [SIZES, *(file.name for file in (*files.values(), *held_out.values()))]
    edges, splits = ({part: parts[part] for part in names} for names in (files, held_out))
    return assemble(
        Origin(path, "mbgcn", 0, read_files, left_out), edges, target, splits, name=name, users=users, items=items
    )
