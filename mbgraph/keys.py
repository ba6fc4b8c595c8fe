"""Sets of pairs as sorted int64 keys ``user * num_items + item``: no hashing, no dense matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mbgraph.typing import IntArray

__all__ = ["contains", "runs", "union"]


def contains(keys: IntArray, sorted_keys: IntArray) -> NDArray[np.bool_]:
    """Say which ``keys`` stand in ``sorted_keys``; several times faster when ``keys`` ascend too.

    Shapes: (N,), (M,) -> (N,).
    """
    if len(sorted_keys) == 0:
        return np.zeros(len(keys), bool)
    position = np.searchsorted(sorted_keys, keys)
    np.minimum(position, len(sorted_keys) - 1, out=position)
    return sorted_keys[position] == keys


def union(*parts: IntArray) -> IntArray:
    """Return all keys of all parts, ascending, each once."""
    keys = np.sort(np.concatenate(parts))
    return keys[np.r_[True, keys[1:] != keys[:-1]]] if len(keys) else keys


def runs(groups: IntArray) -> IntArray:
    """Return each entry's position inside its run of equal, adjacent groups: [7, 7, 9] -> [0, 1, 0]."""
    if len(groups) == 0:
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[starts, len(groups)])
    return np.arange(len(groups), dtype=np.int64) - np.repeat(starts, lengths)
