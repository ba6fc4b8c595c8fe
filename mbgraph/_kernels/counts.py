"""The compiled counting loops; used when numba is installed.

Scores that a scorer gives come item by item, (I, B): the users of a row are the lanes of a vector. Threads take items
in pieces and count into rows of their own.

Products of embeddings are computed and counted a few users and items at a time, so that no score reaches the memory.
Threads take users in pieces. Every product is one chain of additions, whoever asks for it: a pair's own score is equal
to the one that it meets in the row of all items.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mbgraph._kernels.compiled import compiled
from mbgraph._kernels.parallel import even_chunks, run_chunks, run_tasks, tasks_of
from mbgraph.keys import runs
from mbgraph.typing import IntArray

try:
    import numba  # noqa: F401

    from mbgraph._kernels import vectors

    available = True
except ImportError:  # numba is optional
    available = False

__all__ = ["available", "count_above", "count_products", "subtract_masked", "subtract_masked_products"]

_CHUNK_BYTES = 2**17  # scores that are compared with every pair of their users before the next ones: they stay cached
_ITEMS = 120  # items whose products with a few users are counted before the next users: they stay cached
_TILE = 6  # items whose products with two vectors of users are summed at once, in registers
_NOTHING = np.empty(0, np.float32)
_USERS = 256  # of a task at most: they share what is read of the item table

if available:

    @compiled()
    def _subtract_masked(scores, where, items, users, indptr, indices, greater, equal):
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

    @compiled()
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


def subtract_masked(
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
    _subtract_masked(scores, where, items, users, indptr, indices, greater, equal)


@lru_cache(maxsize=8)
def _product_kernels(width: int) -> tuple[Any, Any]:
    """Return the loops of `count_products` and `subtract_masked_products` for embeddings of ``width`` numbers.

    ``count(start, stop, users, items, rows, pointers, held_out, extra, own, greater, equal)`` does users
    ``rows[start:stop]``, two vectors of them at a time; the pairs of ``rows[n]`` are ``pointers[n]`` to
    ``pointers[n + 1]``, and ``extra`` is added to their own scores.

    ``back(start, stop, users, items, who, held_out, own, indptr, indices, bonus, greater, equal)`` does pairs ``start``
    to ``stop``; with a ``bonus`` per index, an item comes back with its bonus.
    """
    build = vectors.BUILD  # a variable of this function, which numba's cache sees
    chunk, tile, lanes = _ITEMS, _TILE, 2 * vectors.processor().lanes

    @compiled()
    def count(start, stop, users, items, rows, pointers, held_out, extra, own, greater, equal):
        vectors.wide(build)
        groups = (stop - start + lanes - 1) // lanes
        packed = np.empty((groups, width, lanes), np.float32)
        slots = np.zeros(groups + 1, np.int64)  # a user's first pair, the second, ..., for all users of a group at once
        for group in range(groups):
            low, high = start + group * lanes, min(start + (group + 1) * lanes, stop)
            slots[group + 1] = slots[group] + max(1, (pointers[high] - pointers[low] + lanes // 2) // lanes)
            for lane in range(lanes):
                user = rows[min(low + lane, stop - 1)]
                for k in range(width):
                    packed[group, k, lane] = users[user, k]
        bounds = np.full(slots[groups] * lanes, np.inf, np.float32)
        above, same = np.zeros(len(bounds), np.int32), np.zeros(len(bounds), np.int32)
        for n in range(start, stop):
            group, lane = (n - start) // lanes, (n - start) % lanes
            room = slots[group + 1] - slots[group]
            for pair in range(pointers[n], pointers[n + 1]):
                score = vectors.product(users, rows[n], items, held_out[pair], width)
                own[pair] = score + extra[pair] if len(extra) else score
                if pair - pointers[n] < room:
                    bounds[(slots[group] + pair - pointers[n]) * lanes + lane] = own[pair]
                greater[pair], equal[pair] = -(score > own[pair]), -(score == own[pair])  # it meets itself
        scores = np.empty((chunk, lanes), np.float32)
        for first in range(0, len(items), chunk):
            several = min(chunk, len(items) - first)
            tiled = several - several % tile
            for group in range(groups):
                for row in range(0, tiled, tile):
                    vectors.multiply(items, first + row, packed, group, scores, row, width, lanes, tile)
                for row in range(tiled, several):
                    vectors.multiply(items, first + row, packed, group, scores, row, width, lanes, 1)
                for slot in range(slots[group], slots[group + 1]):
                    vectors.count_above(scores, 0, several, 0, lanes, bounds, slot * lanes, above, same)
                room = slots[group + 1] - slots[group]
                low = start + group * lanes
                for n in range(low, min(low + lanes, stop)):
                    for pair in range(pointers[n] + room, pointers[n + 1]):  # of users who have more than the others
                        for row in range(several):
                            greater[pair] += scores[row, n - low] > own[pair]
                            equal[pair] += scores[row, n - low] == own[pair]
        for n in range(start, stop):
            group, lane = (n - start) // lanes, (n - start) % lanes
            room = slots[group + 1] - slots[group]
            for pair in range(pointers[n], min(pointers[n] + room, pointers[n + 1])):
                place = (slots[group] + pair - pointers[n]) * lanes + lane
                greater[pair] += above[place]
                equal[pair] += same[place]

    @compiled()
    def back(start, stop, users, items, who, held_out, own, indptr, indices, bonus, greater, equal):
        vectors.wide(build)
        for pair in range(start, stop):
            user = who[pair]
            for edge in range(indptr[user], indptr[user + 1]):
                item = indices[edge]
                if item != held_out[pair]:
                    score = vectors.product(users, user, items, item, width)
                    greater[pair] -= score > own[pair]
                    equal[pair] -= score == own[pair]
                    if len(bonus):
                        score += bonus[edge]
                        greater[pair] += score > own[pair]
                        equal[pair] += score == own[pair]

    return count, back


def count_products(
    users: np.ndarray[Any, Any],
    items: np.ndarray[Any, Any],
    who: IntArray,
    held_out: IntArray,
    threads: int,
    extra: np.ndarray[Any, Any] = _NOTHING,
) -> tuple[np.ndarray[Any, Any], IntArray, IntArray]:
    """Return the score of every pair, and how many other items score higher and the same.

    Scores are products of finite float32 embeddings, contiguous: (U, D), (I, D), (M,), (M,) -> (M,), (M,), (M,).
    ``extra`` float32 (M,) is added to the pairs' own scores.
    """
    order = np.argsort(who, kind="stable")
    rows, starts = np.unique(who[order], return_index=True)
    pointers = np.append(starts, len(who))
    own, (greater, equal) = np.empty(len(who), np.float32), np.empty((2, len(who)), np.int64)
    extra = extra[order] if len(extra) else extra
    bounds = even_chunks(len(rows), max(threads, -(-len(rows) // _USERS)))
    count, _ = _product_kernels(users.shape[1])
    run_tasks(
        tasks_of(count, bounds, (users, items, rows, pointers, held_out[order], extra, own, greater, equal)), threads
    )
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return own[back], greater[back], equal[back]


def subtract_masked_products(
    users: np.ndarray[Any, Any],
    items: np.ndarray[Any, Any],
    who: IntArray,
    held_out: IntArray,
    own: np.ndarray[Any, Any],
    indptr: IntArray,
    indices: IntArray,
    greater: IntArray,
    equal: IntArray,
    threads: int,
    bonus: np.ndarray[Any, Any] = _NOTHING,
) -> None:
    """Subtract from the counts of `count_products` the items that are no candidates, in place.

    User ``u`` loses items ``indices[indptr[u]:indptr[u + 1]]``. With a ``bonus`` float32 (E,) they come back, scoring
    so much more.
    """
    _, back = _product_kernels(users.shape[1])
    arguments = (users, items, who, held_out, own, indptr, indices, bonus, greater, equal)
    run_chunks(back, even_chunks(len(who), 4 * threads), arguments, threads)
