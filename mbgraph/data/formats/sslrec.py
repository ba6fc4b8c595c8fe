"""SSLRec's pickled matrices: ``train_mat_<behavior>.pkl`` (CSR, values may be times) and ``test_mat.pkl`` (COO)."""

from __future__ import annotations

from pathlib import Path

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.csr_pickle import check_shapes
from mbgraph.data.formats.matrices import read_matrix
from mbgraph.errors import DataError

__all__ = ["read"]

_PREFIX, _SUFFIX = "train_mat_", ".pkl"
_SPLITS = {"valid_mat.pkl": "valid", "val_mat.pkl": "valid", "test_mat.pkl": "test"}


def read(path: Path, *, target: str | None = None, name: str | None = None) -> MultiBehaviorDataset:
    """Read a folder of SSLRec's matrices.

    ``train_mat_click_buy.pkl`` and the like, which join behaviors that have files of their own, are left out. Held-out
    pairs lose their values.

    Raises
    ------
    DataError
        If a file is missing, truncated, holds anything but a matrix, or shapes differ.
    UsageError
        If the target cannot be guessed.
    """
    files = {
        file.name.removeprefix(_PREFIX).removesuffix(_SUFFIX): file
        for file in sorted(path.glob(f"{_PREFIX}*{_SUFFIX}"))
    }
    joined = [stem for stem in files if "_" in stem and all(part in files for part in stem.split("_"))]
    left_out = {files.pop(stem).name: "derived from the others" for stem in joined}
    target = find_target(path, files, target)
    matrices = {file: read_matrix(file) for file in files.values()}
    source = Origin(path, "sslrec", 0, [file.name for file in files.values()], left_out)
    held_out = {}
    for file_name, split in _SPLITS.items():
        if (path / file_name).exists():
            if split in held_out:
                raise DataError(f"{path} holds two files of {split} pairs", "remove one")
            held_out[split] = path / file_name
            matrices[path / file_name] = read_matrix(path / file_name)
            source.files.append(file_name)
    users, items = check_shapes(matrices)
    source.notes = {
        behavior: "values are neither 1 nor times and were left out"
        for behavior, file in files.items()
        if matrices[file].values == "dropped"
    }
    edges = {behavior: matrices[file].pairs for behavior, file in files.items()}
    splits = {split: matrices[file].pairs for split, file in held_out.items()}
    return assemble(source, edges, target, splits, name=name, users=users, items=items)
