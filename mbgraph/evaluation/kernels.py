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

from mbgraph.data.keys import runs
from mbgraph.parallel import run_chunks
from mbgraph.typing import IntArray

__all__ = ["available", "count_above", "take_back"]

available = numba is not None
_LANES = 64
_ITEMS = 512

if available:

    @njit(cache=True, nogil=True, fastmath=True)
    def _count(start, stop, piece, scores, first, columns, others, above, same):
        slots, users = first.shape
        place = start // piece
        for tile in range(0, users, _LANES):
            for low in range(start, stop, _ITEMS):  # scores of so many items stay in the cache for every slot
                for slot in range(slots):
                    # arrays of their own, one row each: only then does the compiler compare all lanes at once
                    own = first[slot, tile : tile + _LANES].copy()
                    lanes = own.shape[0]
                    higher, equal = np.zeros(lanes, np.int32), np.zeros(lanes, np.int32)
                    for item in range(low, min(low + _ITEMS, stop)):
                        row = scores[item, tile : tile + lanes]
                        for user in range(lanes):
                            higher[user] += np.int32(row[user] > own[user])
                            equal[user] += np.int32(row[user] == own[user])
                    for user in range(lanes):
                        above[place, slot * users + tile + user] += higher[user]
                        same[place, slot * users + tile + user] += equal[user]
        for item in range(start, stop):
            for lane in range(others.shape[0]):  # the pairs of users who have more than the others
                value = scores[item, columns[lane]]
                above[place, slots * users + lane] += np.int32(value > others[lane])
                same[place, slots * users + lane] += np.int32(value == others[lane])

    @njit(cache=True, nogil=True)
    def _take_back(scores, where, items, users, indptr, indices, greater, equal):
        for pair in range(where.shape[0]):
            column, own_item = where[pair], items[pair]
            own = scores[column, own_item]
            user = users[column]
            for edge in range(indptr[user], indptr[user + 1]):
                item = indices[edge]
                if item != own_item:
                    greater[pair] -= scores[column, item] > own
                    equal[pair] -= scores[column, item] == own


def count_above(
    scores: np.ndarray[Any, Any], where: IntArray, items: IntArray, threads: int
) -> tuple[IntArray, IntArray]:
    """Count higher and equal scores of each pair's user: (I, B), (M,), (M,) -> (M,), (M,)."""
    own = scores[items, where]  # (M,)
    users = scores.shape[1]
    order = np.argsort(where, kind="stable")
    slot = np.empty(len(where), np.int64)  # a user's first pair, the second, ...
    slot[order] = runs(where[order])
    slots = max(1, round(len(where) / users))
    in_lanes = slot < slots
    first = np.full((slots, users), np.inf, scores.dtype)
    first[slot[in_lanes], where[in_lanes]] = own[in_lanes]
    columns, others = where[~in_lanes], own[~in_lanes]
    count = 2 * threads if threads > 1 else 1
    piece = -(-scores.shape[0] // count)
    shape = (count, slots * users + len(others))
    above, same = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    bounds = [min(place * piece, scores.shape[0]) for place in range(count + 1)]
    run_chunks(_count, bounds, (piece, scores, first, columns, others, above, same), threads)
    lanes = np.empty(len(where), np.int64)
    lanes[in_lanes] = slot[in_lanes] * users + where[in_lanes]
    lanes[~in_lanes] = slots * users + np.arange(len(others))
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
    """Subtract from the counts the items of ``indices`` that are no candidates, in place; scores are (B, I)."""
    _take_back(scores, where, items, users, indptr, indices, greater, equal)
