"""The compiled loops from what users touched to what is like it; used when numba is installed."""

from __future__ import annotations

import numpy as np

from mbgraph._kernels.compiled import compiled
from mbgraph._kernels.parallel import even_chunks, run_chunks
from mbgraph.typing import FloatArray, IntArray

try:
    import numba  # noqa: F401

    available = True
except ImportError:  # numba is optional
    available = False

__all__ = ["nearest", "walk"]

_PIECES = 8  # per thread: users differ much in what they touched

Lists = tuple[IntArray, IntArray]
"""Items of every user: int64 (U + 1,), int (E,)."""
Weighted = tuple[IntArray, IntArray, FloatArray]
"""Items of every row, and a float32 number each: int (R + 1,), int (N,), float32 (N,)."""

if available:

    @compiled()
    def _walk(start, stop, first, touched, pointers, indices, values, bounds, users, items, sums, largest):
        num_items = pointers.shape[0] - 1
        total, best = np.zeros(num_items, np.float64), np.zeros(num_items, np.float32)
        reached = np.empty(num_items, np.int64)
        for place in range(start, stop):
            user, count = users[bounds[place]], 0
            for edge in range(first[user], first[user + 1]):
                item = touched[edge]
                for near in range(pointers[item], pointers[item + 1]):
                    other, value = indices[near], values[near]
                    if best[other] == 0:
                        reached[count] = other
                        count += 1
                    total[other] += value
                    best[other] = max(best[other], value)
            for pair in range(bounds[place], bounds[place + 1]):
                sums[pair] = total[items[pair]]
                largest[pair] = best[items[pair]]
            for number in range(count):
                total[reached[number]] = 0.0
                best[reached[number]] = 0.0

    @compiled()
    def _nearest(
        start, stop, first, touched, weights, pointers, indices, values, known_first, known, popular, users, found
    ):
        num_items = pointers.shape[0] - 1
        total, reached = np.zeros(num_items, np.float64), np.empty(num_items, np.int64)
        ahead = np.empty(found.shape[1], np.float64)
        for place in range(start, stop):
            user, count, taken = users[place], 0, 0
            for edge in range(first[user], first[user + 1]):
                item, weight = touched[edge], np.float64(weights[edge])
                for near in range(pointers[item], pointers[item + 1]):
                    other = indices[near]
                    if total[other] == 0.0:
                        reached[count] = other
                        count += 1
                    total[other] += weight * values[near]
            for edge in range(known_first[user], known_first[user + 1]):
                total[known[edge]] = 0.0
            for number in range(count):
                item = reached[number]
                score = total[item]
                total[item] = 0.0
                if score <= 0.0:
                    continue
                at = taken
                while at > 0:  # where it belongs among the best so far
                    other, level = found[place, at - 1], ahead[at - 1]
                    if level > score:
                        break
                    if level == score:
                        if popular[other] > popular[item]:
                            break
                        if popular[other] == popular[item] and other < item:
                            break
                    at -= 1
                if at == found.shape[1]:
                    continue
                taken = min(taken + 1, found.shape[1])
                for lower in range(taken - 1, at, -1):
                    found[place, lower], ahead[lower] = found[place, lower - 1], ahead[lower - 1]
                found[place, at], ahead[at] = item, score


def walk(
    touched: Lists, similar: Weighted, users: IntArray, items: IntArray, threads: int
) -> tuple[FloatArray, FloatArray]:
    """Return the sum and the largest of the similarities of each pair's item to what its user touched.

    Parameters
    ----------
    touched : items of every user
    similar : similar items of every item, and how similar they are: above 0
    users, items : int64 array (P,)
        Pairs, users ascending.
    threads : int

    Returns
    -------
    float64 array (P,), float32 array (P,)
        0 where nothing that the user touched is similar.
    """
    sums, largest = np.zeros(len(users)), np.zeros(len(users), np.float32)
    bounds = np.flatnonzero(np.r_[True, users[1:] != users[:-1], True]) if len(users) else np.zeros(1, np.int64)
    arguments = (*touched, *similar, bounds, users, items, sums, largest)
    run_chunks(_walk, even_chunks(len(bounds) - 1, threads * _PIECES), arguments, threads)
    return sums, largest


def nearest(
    weights: Weighted,
    similar: Weighted,
    known: Lists,
    popularity: FloatArray,
    users: IntArray,
    count: int,
    threads: int,
) -> IntArray:
    """Return the items most like what users touched, without those that they know.

    Parameters
    ----------
    weights : items that every user touched, and how much they count: above 0
    similar : similar items of every item, and how similar they are: above 0
    known : items that every user knows
    popularity : float64 array (I,)
        Decides among equal ones; then the lower item is first.
    users : int64 array (B,)
    count, threads : int

    Returns
    -------
    int64 array (B, count)
        Best first, -1 where there are fewer.
    """
    found = np.full((len(users), count), -1, np.int64)
    if count:
        arguments = (*weights, *similar, *known, popularity, users, found)
        run_chunks(_nearest, even_chunks(len(users), threads * _PIECES), arguments, threads)
    return found
