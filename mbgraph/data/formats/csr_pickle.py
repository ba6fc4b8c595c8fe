"""Pickled matrices: ``trn_<behavior>`` and ``tst_int`` (MB-GMN, PKEF, CIGF).

Every ``trn_`` file is a SciPy CSR matrix of users x items; ``tst_int`` is a list with an item id or None for every
user. See `mbgraph.data.formats.pickles` for how they are read without running what they say.
"""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.matrices import Matrix, read_held_out, read_matrix
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError

__all__ = ["check_shapes", "read", "read_part"]

_SPLITS = {"val_int": "valid", "tst_int": "test"}
_VALUES = "values are neither 1 nor times and were left out"


def read_part(path: Path, *, users: int | None = None, items: int | None = None) -> Pairs:
    """Read one matrix, or the list of held-out items that ``tst_int`` is."""
    if path.name.removesuffix(".pkl") in _SPLITS:
        return read_held_out(path, users, items)[0]
    matrix = read_matrix(path)
    check_shapes({path: matrix}, users, items)
    return matrix.pairs


def check_shapes(matrices: dict[Path, Matrix], users: int | None = None, items: int | None = None) -> tuple[int, int]:
    """Return the shape that all matrices have; `DataError` names the first that has another."""
    first = next(iter(matrices.values()))
    wanted = (first.users if users is None else users, first.items if items is None else items)
    for file, matrix in matrices.items():
        if (matrix.users, matrix.items) != wanted:
            raise DataError(
                f"{file} is {matrix.users} x {matrix.items}, not {wanted[0]} x {wanted[1]}",
                "all files must be of one dataset",
            )
    return wanted


def read(
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Read a folder of pickled matrices; values that are times are kept as times.

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
        If a file is missing, truncated, holds anything but arrays and matrices, or shapes differ.
    UsageError
        If the target cannot be guessed.
    """
    files = {file.name.removesuffix(".pkl").removeprefix("trn_"): file for file in sorted(path.glob("trn_*"))}
    target = find_target(path, files, target)
    matrices = {behavior: read_matrix(file) for behavior, file in files.items()}
    users, items = check_shapes({files[behavior]: matrix for behavior, matrix in matrices.items()}, users, items)
    source = Origin(path, "csr-pickle", 0, [file.name for file in files.values()])
    source.notes = {behavior: _VALUES for behavior, matrix in matrices.items() if matrix.values == "dropped"}
    splits: dict[str, Pairs] = {}
    for stem, split in _SPLITS.items():
        for file in (path / stem, path / f"{stem}.pkl"):
            if file.exists():
                splits[split] = read_held_out(file, users, items)[0]
                source.files.append(file.name)
                break
    edges = {behavior: matrix.pairs for behavior, matrix in matrices.items()}
    return assemble(source, edges, target, splits, name=name, users=users, items=items)
