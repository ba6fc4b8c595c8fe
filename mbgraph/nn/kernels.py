"""Compiled row kernels of the hand-written pass; used when numba is installed, replaced by DGL and torch when not.

Each kernel walks destination rows once: it sums the neighbours' rows and finishes the row (scale, add, normalise or
derive the normalisation) while it is still in the cache. Rows are independent, so the sum of a row has one order
whatever the number of threads. Work is cut into chunks of equal edge counts, because popular items would otherwise
leave one core waiting for the other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

try:
    import numba
    from numba import njit, prange

    available = True
except ImportError:  # numba is optional
    available = False

__all__ = ["available", "balanced_chunks", "even_chunks", "set_threads", "width_kernels"]

_TINY = np.float32(1e-12)


def balanced_chunks(indptr: np.ndarray[Any, Any], chunks: int = 64) -> np.ndarray[Any, Any]:
    """Return row boundaries that cut the rows into pieces of about equal edges + rows: (R + 1,) -> (chunks + 1,)."""
    rows = len(indptr) - 1
    cost = indptr + 2 * np.arange(rows + 1)  # finishing a row costs about as much as two edges
    bounds = np.searchsorted(cost, np.linspace(0, cost[-1], chunks + 1)).astype(np.int64)
    bounds[0], bounds[-1] = 0, rows
    return bounds


def even_chunks(count: int, chunks: int = 64) -> np.ndarray[Any, Any]:
    """Return boundaries that cut ``count`` rows evenly: (chunks + 1,)."""
    return np.linspace(0, count, min(chunks, max(count, 1)) + 1).astype(np.int64)


def set_threads(count: int) -> None:
    """Run the kernels on ``count`` threads, as far as numba has them."""
    if available:
        most: int = vars(numba.config)["NUMBA_NUM_THREADS"]
        numba.set_num_threads(max(1, min(count, most)))


@lru_cache(maxsize=8)
def width_kernels(width: int) -> tuple[Any, Any]:
    """Return ``(forward_layer, gather_back)`` compiled for rows of ``width`` numbers.

    The width is a constant of the compiled code: only then do the inner loops become a few vector instructions.

    ``forward_layer(bounds, indptr, indices, scale_in, source, rows, whole, scale_out, norm, out, inverse)`` writes
    ``out[k] = finish(sum over c in N(rows[k]) of scale_in[c] * source[c])``; ``whole`` means rows are 0, 1, 2, ...;
    finish divides by the norm (kept in ``inverse``) or multiplies by ``scale_out``.

    ``gather_back(bounds, indptr, indices, source, position, scale_out, base, base_position, unit, inverse, norm,
    scale_self, out)`` writes ``base[r] + scale_out[r] * sum over c in N(r) of source[c]`` and takes it back through the
    layer below: its normalisation (``norm``), its receiver's scale (``scale_self``), or nothing (both off).
    ``position`` maps a node to its row in a compact ``source``, -1 where the gradient is zero; empty means all rows.
    """

    @njit(parallel=True, fastmath=True, cache=True)
    def forward_layer(bounds, indptr, indices, scale_in, source, rows, whole, scale_out, norm, out, inverse):
        for chunk in prange(bounds.shape[0] - 1):
            total = np.empty(width, np.float32)
            for k in range(bounds[chunk], bounds[chunk + 1]):
                row = k if whole else rows[k]
                for d in range(width):
                    total[d] = np.float32(0)
                for edge in range(indptr[row], indptr[row + 1]):
                    column = indices[edge]
                    factor = scale_in[column]
                    for d in range(width):
                        total[d] += factor * source[column, d]
                if norm:
                    square = np.float32(0)
                    for d in range(width):
                        square += total[d] * total[d]
                    length = np.sqrt(square)
                    factor = np.float32(1) / length if length > _TINY else np.float32(0)
                    inverse[k] = factor
                else:
                    factor = scale_out[row]
                for d in range(width):
                    out[k, d] = total[d] * factor

    @njit(parallel=True, fastmath=True, cache=True)
    def gather_back(
        bounds,
        indptr,
        indices,
        source,
        position,
        scale_out,
        base,
        base_position,
        unit,
        inverse,
        norm,
        scale_self,
        out,
    ):
        compact = position.shape[0] > 0
        for chunk in prange(bounds.shape[0] - 1):
            total = np.empty(width, np.float32)
            for row in range(bounds[chunk], bounds[chunk + 1]):
                for d in range(width):
                    total[d] = np.float32(0)
                for edge in range(indptr[row], indptr[row + 1]):
                    column = np.int64(indices[edge])
                    if compact:
                        column = np.int64(position[column])
                        if column < 0:
                            continue
                    for d in range(width):
                        total[d] += source[column, d]
                factor = scale_out[row]
                where = base_position[row]
                if where >= 0:
                    for d in range(width):
                        total[d] = factor * total[d] + base[where, d]
                else:
                    for d in range(width):
                        total[d] *= factor
                if norm:
                    along = np.float32(0)
                    for d in range(width):
                        along += total[d] * unit[row, d]
                    factor = inverse[row]
                    for d in range(width):
                        out[row, d] = (total[d] - along * unit[row, d]) * factor
                elif scale_self.shape[0] > 0:
                    factor = scale_self[row]
                    for d in range(width):
                        out[row, d] = total[d] * factor
                else:
                    for d in range(width):
                        out[row, d] = total[d]

    return forward_layer, gather_back
