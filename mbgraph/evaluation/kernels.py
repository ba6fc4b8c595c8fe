"""The compiled counting loops; used when numba is installed.

Scores come item by item, (I, B): a product in that form runs on all cores, and the users of a row are the lanes of a
vector. Threads take items in pieces and count into rows of their own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mbgraph.data.keys import runs
from mbgraph.parallel import run_chunks
from mbgraph.typing import IntArray

try:
    from numba import njit

    from mbgraph import vectors

    available = True
except ImportError:  # numba is optional
    available = False

__all__ = ["available", "count_above", "take_back"]

_CHUNK_BYTES = 2**17  # scores that are compared with every pair of their users before the next ones: they stay cached

if available:

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


@lru_cache(maxsize=1)
def _counter() -> Any:
    """Return the compiled loop of `count_above`.

    ``count(start, stop, piece, chunk, scores, first, columns, others, above, same)`` counts in items ``start`` to
    ``stop``, ``chunk`` of them at a time, and adds to row ``start / piece`` of ``above`` and ``same``: for the pairs in
    ``first`` (slots x B), then for those of ``columns`` and ``others``.
    """
    build = vectors.BUILD  # a variable of this function, which numba's cache sees

    @njit(cache=True, nogil=True)
    def count(start, stop, piece, chunk, scores, first, columns, others, above, same):
        vectors.wide(build)
        users = scores.shape[1]
        place = start // piece
        higher, equal = above[place], same[place]
        by_32, by_4 = users - users % 32, users - users % 4  # lanes are constants of the compiled code
        for low in range(start, stop, chunk):
            high = min(low + chunk, stop)
            for at in range(0, first.shape[0], users):
                for user in range(0, by_32, 32):
                    vectors.count_above(scores, low, high, user, 32, first, at + user, higher, equal)
                for user in range(by_32, by_4, 4):
                    vectors.count_above(scores, low, high, user, 4, first, at + user, higher, equal)
                for user in range(by_4, users):
                    vectors.count_above(scores, low, high, user, 1, first, at + user, higher, equal)
        for item in range(start, stop):
            for lane in range(others.shape[0]):  # the pairs of users who have more than the others
                value = scores[item, columns[lane]]
                higher[first.shape[0] + lane] += np.int32(value > others[lane])
                equal[first.shape[0] + lane] += np.int32(value == others[lane])

    return count


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
    lanes = np.empty(len(where), np.int64)
    lanes[in_lanes] = slot[in_lanes] * users + where[in_lanes]
    columns, others = where[~in_lanes], own[~in_lanes]
    lanes[~in_lanes] = slots * users + np.arange(len(others))
    first = np.full(slots * users, np.inf, scores.dtype)
    first[lanes[in_lanes]] = own[in_lanes]
    count = 2 * threads if threads > 1 else 1
    piece = -(-scores.shape[0] // count)
    above, same = (np.zeros((count, slots * users + len(others)), np.int32) for _ in range(2))
    bounds = [min(place * piece, scores.shape[0]) for place in range(count + 1)]
    chunk = max(1, _CHUNK_BYTES // (users * scores.itemsize))
    run_chunks(_counter(), bounds, (piece, chunk, scores, first, columns, others, above, same), threads)
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
