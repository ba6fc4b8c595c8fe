"""The compiled counting loops; used when numba is installed.

Scores come item by item, (I, B): a product in that form runs on all cores, and the users of a row are the lanes of a
vector. Threads take items in pieces and count into rows of their own.
"""

from __future__ import annotations

try:
    import numba
    from numba import njit
except ImportError:  # numba is optional
    numba = None  # type: ignore[assignment]

from typing import Any

import numpy as np

from mbgraph.parallel import run_chunks
from mbgraph.typing import IntArray

__all__ = ["available", "count_above", "take_back"]

available = numba is not None

if available:

    @njit(cache=True, nogil=True)
    def _count(start, stop, piece, scores, first, columns, others, above, same):
        users, more = first.shape[0], others.shape[0]
        place = start // piece
        higher, equal = above[place], same[place]
        for item in range(start, stop):
            for user in range(users):  # the first pair of every user: all lanes side by side
                higher[user] += np.int32(scores[item, user] > first[user])
                equal[user] += np.int32(scores[item, user] == first[user])
            for lane in range(more):  # further pairs of a user
                value = scores[item, columns[lane]]
                higher[users + lane] += np.int32(value > others[lane])
                equal[users + lane] += np.int32(value == others[lane])

    @njit(cache=True, nogil=True)
    def _take_back(scores, where, items, users, indptr, indices, greater, equal):
        for pair in range(where.shape[0]):
            column, own_item = where[pair], items[pair]
            own = scores[own_item, column]
            user = users[column]
            for edge in range(indptr[user], indptr[user + 1]):
                item = indices[edge]
                if item != own_item:
                    greater[pair] -= scores[item, column] > own
                    equal[pair] -= scores[item, column] == own


def count_above(
    scores: np.ndarray[Any, Any], where: IntArray, items: IntArray, threads: int
) -> tuple[IntArray, IntArray]:
    """Count higher and equal scores of each pair's user: (I, B), (M,) ascending, (M,) -> (M,), (M,)."""
    own = scores[items, where]  # (M,)
    is_first = np.ones(len(where), bool)
    is_first[1:] = where[1:] != where[:-1]
    first = np.full(scores.shape[1], np.inf, scores.dtype)
    first[where[is_first]] = own[is_first]
    columns, others = where[~is_first], own[~is_first]
    count = 4 * threads if threads > 1 else 1
    piece = -(-scores.shape[0] // count)
    shape = (count, len(first) + len(others))
    above, same = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    bounds = [min(place * piece, scores.shape[0]) for place in range(count + 1)]
    run_chunks(_count, bounds, (piece, scores, first, columns, others, above, same), threads)
    lanes = np.empty(len(where), np.int64)
    lanes[is_first] = where[is_first]
    lanes[~is_first] = len(first) + np.arange(len(others))
    return above.sum(0)[lanes].astype(np.int64), same.sum(0)[lanes].astype(np.int64) - 1


def take_back(
    scores: np.ndarray[Any, Any],
    where: IntArray,
    items: IntArray,
    users: IntArray,
    indptr: IntArray,
    indices: IntArray,
    greater: IntArray,
    equal: IntArray,
) -> None:
    """Subtract from the counts the items of ``indices`` that are no candidates, in place."""
    _take_back(scores, where, items, users, indptr, indices, greater, equal)
