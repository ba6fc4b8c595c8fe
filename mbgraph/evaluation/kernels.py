"""The compiled counting loop; used when numba is installed."""

from __future__ import annotations

try:
    import numba
    from numba import njit, prange
except ImportError:  # numba is optional
    numba = None  # type: ignore[assignment]

import numpy as np

__all__ = ["available", "count_above", "set_threads"]

available = numba is not None


def set_threads(count: int) -> None:
    """Run the kernel on ``count`` threads, as far as numba has them."""
    if numba is not None:
        most: int = vars(numba.config)["NUMBA_NUM_THREADS"]
        numba.set_num_threads(max(1, min(count, most)))


if available:

    @njit(parallel=True, cache=True)
    def count_above(scores, where, items):
        """Count higher and equal scores of each pair's row in one pass: (C, I), (M,), (M,) -> (M,), (M,)."""
        greater = np.empty(where.shape[0], np.int64)
        equal = np.empty(where.shape[0], np.int64)
        width = scores.shape[1]
        for pair in prange(where.shape[0]):
            row = scores[where[pair]]
            own = row[items[pair]]
            above, same = np.int32(0), np.int32(0)
            for item in range(width):
                above += np.int32(row[item] > own)
                same += np.int32(row[item] == own)
            greater[pair] = above
            equal[pair] = same - 1
        return greater, equal
