"""From what users touched to what is like it: two steps on the items' similarities, compiled where numba is there."""

from __future__ import annotations

import numpy as np
import torch

from mbgraph import _kernels
from mbgraph.data.interactions import CSR
from mbgraph.models.item_cosine import Matrix
from mbgraph.typing import FloatArray, IntArray

__all__ = ["nearest", "walk"]

_CELLS = 2**22  # users x items of a block of the plain paths


def walk(touched: CSR, similar: Matrix, users: IntArray, items: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the sum and the largest of the similarities of each pair's item to what its user touched.

    Parameters
    ----------
    touched : CSR
        Items of every user.
    similar : sparse matrix (I, I)
        Without a diagonal, so that an item is not like itself.
    users, items : int64 array (P,)
        Pairs, users ascending.

    Returns
    -------
    float64 array (P,), float32 array (P,)
    """
    if _kernels.available:
        lists = (touched.indptr, touched.indices)
        return _kernels.walk(lists, _lists(similar), users, items, torch.get_num_threads())
    num_items = similar.shape[1]
    rows_of = CSR(similar.indptr.astype(np.int64), similar.indices.astype(np.int64))
    sums, largest = np.zeros(len(users)), np.zeros(len(users), np.float32)
    rows = max(1, _CELLS // num_items)
    distinct = np.unique(users)
    for start in range(0, len(distinct), rows):
        block = distinct[start : start + rows]
        low, high = np.searchsorted(users, [block[0], block[-1] + 1])
        where, near = touched.gather(block)
        step, places = rows_of.places(near)
        cells = where[step] * num_items + rows_of.indices[places]
        best = np.zeros(len(block) * num_items, np.float32)
        np.maximum.at(best, cells, similar.data[places])
        total = np.bincount(cells, similar.data[places], len(best))
        own = np.searchsorted(block, users[low:high]) * num_items + items[low:high]
        sums[low:high], largest[low:high] = total[own], best[own]
    return sums, largest


def nearest(
    weights: Matrix, similar: Matrix, known: CSR, popularity: FloatArray, users: IntArray, count: int
) -> IntArray:
    """Return the items most like what users touched, without those that they know.

    Parameters
    ----------
    weights : sparse matrix (U, I)
        How much a touched item counts, above 0.
    similar : sparse matrix (I, I)
    known : CSR
        Items that every user knows.
    popularity : float64 array (I,)
        Decides among equal ones; then the lower item is first.
    users : int64 array (B,)
    count : int

    Returns
    -------
    int64 array (B, count)
        Best first; -1 where there are fewer that are like anything the user touched.
    """
    if _kernels.available:
        lists = (known.indptr, known.indices)
        threads = torch.get_num_threads()
        return _kernels.nearest(_lists(weights), _lists(similar), lists, popularity, users, count, threads)
    found = np.full((len(users), count), -1, np.int64)
    rows = max(1, _CELLS // similar.shape[1])
    for start in range(0, len(users), rows):
        scores = (weights[users[start : start + rows]] @ similar.astype(np.float64)).tocsr()
        for row in range(scores.shape[0]):
            part = slice(scores.indptr[row], scores.indptr[row + 1])
            items, values = scores.indices[part].astype(np.int64), scores.data[part]
            kept = ~np.isin(items, known.row(users[start + row]))
            items, values = items[kept], values[kept]
            best = items[np.lexsort((items, -popularity[items], -values))[:count]]
            found[start + row, : len(best)] = best
    return found


def _lists(matrix: Matrix) -> tuple[IntArray, IntArray, FloatArray]:
    return matrix.indptr, matrix.indices, matrix.data
