"""The compiled counting loop; used when numba is installed."""

from __future__ import annotations

try:
    import numba
    from numba import njit
except ImportError:  # numba is optional
    numba = None  # type: ignore[assignment]

import numpy as np

__all__ = ["available", "count_above"]

available = numba is not None

if available:
    # One thread, a trade: on two idle cores a parallel loop ranked a fifth faster, but numba's pool spins beside
    # torch's, and with other work on the cores (and OMP_WAIT_POLICY unset, as for callers from Python) it took up to
    # three times as long. So the loss is bounded: counting 64 rows of 40,000 items takes half a millisecond.
    @njit(cache=True, nogil=True)
    def count_above(scores, where, items):
        """Count higher and equal scores of each pair's row in one pass: (C, I), (M,), (M,) -> (M,), (M,)."""
        greater = np.empty(where.shape[0], np.int64)
        equal = np.empty(where.shape[0], np.int64)
        width = scores.shape[1]
        for pair in range(where.shape[0]):
            row = scores[where[pair]]
            own = row[items[pair]]
            above, same = np.int32(0), np.int32(0)
            for item in range(width):
                above += np.int32(row[item] > own)
                same += np.int32(row[item] == own)
            greater[pair] = above
            equal[pair] = same - 1
        return greater, equal
