"""SSLRec's pickled matrices: ``train_mat_<behavior>.pkl`` (CSR, values may be times) and ``test_mat.pkl`` (COO).

``train_mat_pv_buy.pkl`` and the like hold pairs of several behaviors at once, made of the others.
"""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.aliases import is_known
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.content import split_files
from mbgraph.data.formats.matrices import read_matrix
from mbgraph.data.formats.matrix_folder import check_shapes, leave_out_mixtures, read_matrices, stem_of

__all__ = ["read"]

_PREFIX = "train_mat_"


def read(path: Path, *, target: str | None = None, name: str | None = None) -> MultiBehaviorDataset:
    """Read a folder of SSLRec's matrices.

    Files of several behaviors are left out, and a behavior that only they name is told. Held-out pairs lose their
    values.

    Raises
    ------
    DataError
        If a behavior's file is truncated or holds anything but a matrix, or shapes differ.
    UsageError
        If the target cannot be guessed.
    """
    stems = {stem_of(file, _PREFIX) for file in path.glob(f"{_PREFIX}*")}
    found = read_matrices(path, _PREFIX, _joined(stems))
    target = find_target(path, found.files, target)
    held_out = split_files(path, "{}_mat.pkl")
    matrices = {split: read_matrix(file) for split, file in held_out.items()}
    shaped = {found.files[behavior]: matrix for behavior, matrix in found.matrices.items()}
    users, items = check_shapes({**shaped, **{held_out[split]: matrix for split, matrix in matrices.items()}})
    leave_out_mixtures(found, [matrix.pairs for matrix in matrices.values()], items)
    files = [file.name for file in (*found.files.values(), *held_out.values())]
    source = Origin(path, "sslrec", 0, files, found.left_out, found.notes)
    edges = {behavior: matrix.pairs for behavior, matrix in found.matrices.items()}
    splits = {split: matrix.pairs for split, matrix in matrices.items()}
    return assemble(source, edges, target, splits, name=name, users=users, items=items)


def _joined(stems: set[str]) -> dict[str, str]:
    """Return the stems that join several behaviors, with the reason to leave them out."""
    joined = {}
    for stem in stems:
        parts = stem.split("_")
        if is_known(stem) or len(parts) < 2 or not all(is_known(part) or part in stems for part in parts):
            continue
        missing = [f"{_PREFIX}{part}.pkl" for part in parts if part not in stems]
        joined[stem] = f"joins {' and '.join(parts)}" + (
            f"; {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""
        )
    return joined
