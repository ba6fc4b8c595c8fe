"""Which pickles of a folder are matrices of behaviors: what formats of pickled matrices share.

A file counts if it holds a matrix of users x items. One that is called like a behavior must; any other file with the
format's prefix, such as ``trn_catDict``, is left out with a word if it holds something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mbgraph.data.aliases import is_known
from mbgraph.data.formats.content import archive
from mbgraph.data.formats.matrices import Matrix, read_matrix
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.keys import contains, union

__all__ = ["MatrixFolder", "check_shapes", "leave_out_mixtures", "read_matrices"]

_SUFFIXES = (".pkl", ".pickle")
_VALUES = "values are neither 1 nor times and were left out"


@dataclass
class MatrixFolder:
    """Matrices by behavior, the files they came from, and why other files are left out."""

    matrices: dict[str, Matrix] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, behavior: str, reason: str) -> None:
        """Take a behavior away, with a word."""
        self.left_out[self.files.pop(behavior).name] = reason
        self.matrices.pop(behavior, None)

    @property
    def notes(self) -> dict[str, str]:
        """What became of values, by behavior."""
        return {behavior: _VALUES for behavior, matrix in self.matrices.items() if matrix.values == "dropped"}


def stem_of(file: Path, prefix: str) -> str:
    """Return what a file is called without the format's prefix and the suffixes of pickles."""
    stem = file.name.removeprefix(prefix)
    return next((stem.removesuffix(suffix) for suffix in _SUFFIXES if stem.endswith(suffix)), stem)


def read_matrices(path: Path, prefix: str, joined: Mapping[str, str] | None = None) -> MatrixFolder:
    """Read the files of a folder that begin with a prefix.

    Parameters
    ----------
    path : Path
    prefix : str
    joined : mapping of str to str, optional
        Stems that are not even read, with the reason.

    Raises
    ------
    DataError
        If a file that is called like a behavior holds no matrix, or two of them have different shapes.
    """
    found = MatrixFolder()
    for file in sorted(path.glob(f"{prefix}*")):
        stem = stem_of(file, prefix)
        packed = archive(file) if file.is_file() else None
        if not file.is_file() or not stem:
            continue
        if stem in (joined or {}):
            found.left_out[file.name] = (joined or {})[stem]
        elif packed is not None:
            found.left_out[file.name] = f"{packed}: unpack it to read what it holds"
        elif is_known(stem):
            found.files[stem], found.matrices[stem] = file, read_matrix(file)
        else:
            try:
                found.matrices[stem] = read_matrix(file)
            except DataError:
                found.left_out[file.name] = "no matrix of users and items"
            else:
                found.files[stem] = file
    known = [stem for stem in found.files if is_known(stem)] or list(found.files)[:1]
    if known:
        users, items = check_shapes({found.files[stem]: found.matrices[stem] for stem in known})
        for stem in list(found.files):
            matrix = found.matrices[stem]
            if (matrix.users, matrix.items) != (users, items):
                found.leave_out(stem, f"{matrix.users} x {matrix.items}, where users x items are {users} x {items}")
    return found


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


def leave_out_mixtures(found: MatrixFolder, held_out: Iterable[Pairs], items: int) -> None:
    """Leave out matrices of other names that join the behaviors, or that hold all held-out pairs of a split.

    Both are no behavior of their own; the second would tell a model what it is asked for.
    """
    keys = {stem: np.sort(matrix.pairs.keys(items)) for stem, matrix in found.matrices.items()}
    splits = [np.sort(pairs.keys(items)) for pairs in held_out if len(pairs)]
    known = [stem for stem in keys if is_known(stem)]
    for stem in [stem for stem in keys if not is_known(stem)]:
        if any(contains(split, keys[stem]).all() for split in splits):
            found.leave_out(stem, "holds the held-out pairs too")
        elif len(known) > 1 and np.array_equal(keys[stem], union(*(keys[name] for name in known))):
            found.leave_out(stem, f"joins {', '.join(known)}")
