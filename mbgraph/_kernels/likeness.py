"""The compiled loop over the users of an item, for how like they are to another; used when numba is installed."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

import numpy as np

from mbgraph._kernels.compiled import compiled
from mbgraph._kernels.parallel import run_chunks
from mbgraph.typing import FloatArray, IntArray

with contextlib.suppress(ImportError):  # numba is optional
    from mbgraph._kernels import vectors

__all__ = ["add_likeness"]

_AHEAD = 8  # rows that are asked for before they are read: users of an item stand anywhere in a table of any size
_PIECES = 8  # per thread: items differ much in how many users they have


@lru_cache(maxsize=8)
def _adder(width: int) -> Any:
    """Return the compiled loop of `add_likeness` for rows of ``width`` numbers."""
    build = vectors.BUILD  # a variable of this function, which numba's cache sees

    @compiled()
    def add(start, stop, rows, first, members, marked, order, users, items, sums):
        vectors.wide(build)
        for place in range(start, stop):
            pair = order[place]
            user, low, high = users[pair], first[items[pair]], first[items[pair] + 1]
            every, some = 0.0, 0.0
            for at in range(low, min(low + _AHEAD, high)):
                vectors.prefetch(rows, members[at], width)
            for at in range(low, high):
                vectors.prefetch(rows, members[min(at + _AHEAD, high - 1)], width)
                if members[at] != user:
                    like = max(vectors.inner(rows, user, rows, members[at], width), np.float32(0.0))
                    every += like * like
                    some += like * like if marked[at] else 0.0
            sums[pair, 0], sums[pair, 1] = every, some

    return add


def add_likeness(
    rows: FloatArray,
    pool: tuple[IntArray, IntArray],
    marked: np.ndarray[Any, Any],
    users: IntArray,
    items: IntArray,
    threads: int,
) -> FloatArray:
    """Return the squared positive products of a user's row with those of an item's other users, added up.

    Parameters
    ----------
    rows : float32 array (U, D)
        Contiguous.
    pool : users of every item
        int64 (I + 1,), int64 (N,).
    marked : bool array (N,)
        Which of them the second sum counts.
    users, items : int64 array (P,)
        Pairs, in any order.
    threads : int

    Returns
    -------
    float64 array (P, 2)
        Over all users of the item but the pair's own, and over the marked ones.
    """
    sums = np.empty((len(users), 2))
    order = np.argsort(items, kind="stable")  # pairs of one item follow each other: its users' rows stay cached
    work = np.r_[0, np.cumsum(np.diff(pool[0])[items[order]])]
    bounds = np.searchsorted(work, np.linspace(0, work[-1], threads * _PIECES + 1)[1:-1])
    arguments = (rows, *pool, marked, order, users, items, sums)
    run_chunks(_adder(rows.shape[1]), [0, *bounds.tolist(), len(users)], arguments, threads)
    return sums
