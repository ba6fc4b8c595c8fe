"""Pickled matrices: ``trn_<behavior>`` and ``tst_int`` (MB-GMN, PKEF, CIGF).

Every ``trn_`` file of a behavior is a SciPy CSR matrix of users x items; ``tst_int`` is a list with an item id or None
for every user. See `mbgraph.data.formats.pickles` for how they are read without running what they say.
"""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.content import split_files
from mbgraph.data.formats.matrices import read_held_out, read_matrix
from mbgraph.data.formats.matrix_folder import check_shapes, leave_out_mixtures, read_matrices
from mbgraph.data.interactions import Pairs

__all__ = ["SPLIT_NAMES", "held_out_files", "read", "read_part"]

SPLIT_NAMES = {"valid": ("val", "valid", "validation"), "test": ("tst", "test")}
_LISTS = tuple(f"{name}_int" for names in SPLIT_NAMES.values() for name in names)


def read_part(path: Path, *, users: int | None = None, items: int | None = None) -> Pairs:
    """Read one matrix, or the list of held-out items that ``tst_int`` is."""
    if path.name.removesuffix(".pkl") in _LISTS:
        return read_held_out(path, users, items)[0]
    matrix = read_matrix(path)
    check_shapes({path: matrix}, users, items)
    return matrix.pairs


def held_out_files(path: Path) -> dict[str, Path]:
    """Return the lists of held-out items by split."""
    return {**split_files(path, "{}_int.pkl", SPLIT_NAMES), **split_files(path, "{}_int", SPLIT_NAMES)}


def read(
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Read a folder of pickled matrices; values that are times are kept as times.

    Files that hold no matrix of users and items, such as ``trn_catDict``, are left out.

    Parameters
    ----------
    path : Path
    target : str, optional
        By default the behavior that is called buy or the like.
    name : str, optional
    users, items : int, optional
        Numbers of them, checked against the matrices.

    Raises
    ------
    DataError
        If a behavior's file is truncated or holds anything but a matrix, or shapes differ.
    UsageError
        If the target cannot be guessed.
    """
    found = read_matrices(path, "trn_")
    target = find_target(path, found.files, target)
    users, items = check_shapes(
        {file: found.matrices[behavior] for behavior, file in found.files.items()}, users, items
    )
    lists = held_out_files(path)
    splits = {split: read_held_out(file, users, items)[0] for split, file in lists.items()}
    leave_out_mixtures(found, splits.values(), items)
    files = [file.name for file in (*found.files.values(), *lists.values())]
    source = Origin(path, "csr-pickle", 0, files, found.left_out, found.notes)
    edges = {behavior: matrix.pairs for behavior, matrix in found.matrices.items()}
    return assemble(source, edges, target, splits, name=name, users=users, items=items)
