"""Read the results per user that an evaluation saved, with numpy alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.formats.archive import opened_npz
from mbgraph.errors import DataError
from mbgraph.evaluation.metrics import METRICS
from mbgraph.typing import FloatArray

__all__ = ["PerUser", "read_per_user"]

REMEDY = "write it again with: mbgraph evaluate RUN --per-user FILE"


@dataclass(frozen=True, eq=False)
class PerUser:
    """Metrics of every evaluated user.

    Attributes
    ----------
    split, mask, ties : str
        What was evaluated, and how.
    user_id : array (n,)
        Original ids, int64 or str, each once.
    metrics : mapping of str to float64 array (n,)
        ``{"HR@10": values, ...}``.
    """

    split: str
    mask: str
    ties: str
    user_id: np.ndarray[Any, Any]
    metrics: Mapping[str, FloatArray]


def read_per_user(path: str | os.PathLike[str]) -> PerUser:
    """Read what `EvaluationResult.save_per_user` wrote.

    Raises
    ------
    DataError
        If the file is missing, broken or something else.
    """
    path = Path(path)
    with opened_npz(path, REMEDY, f"cannot read per-user results from {path}") as archive:
        metrics = {name: archive[name] for name in archive.files if name.partition("@")[0] in METRICS}
        split, mask, ties = (str(archive[name]) for name in ("split", "mask", "ties"))
        ids = archive["user_id"]
    if ids.ndim != 1 or any(values.shape != ids.shape for values in metrics.values()):
        raise DataError(f"arrays in {path} disagree about the number of users", REMEDY)
    if any(values.dtype.kind not in "fiub" for values in metrics.values()):
        raise DataError(f"metrics in {path} are not numbers", REMEDY)
    if len(np.unique(ids)) != len(ids):
        raise DataError(f"{path} names a user twice", REMEDY)
    return PerUser(split, mask, ties, ids, metrics)
