"""One side's neighbour lists, cut for caches and threads; all cuts are computed once."""

from __future__ import annotations

from typing import Any

import numpy as np

from mbgraph._kernels.rows import balanced_chunks, block_pointers

__all__ = ["Adjacency"]

Array = np.ndarray[Any, Any]


class Adjacency:
    """Neighbours of every node of one side of a bipartite relation.

    Parameters
    ----------
    pointers : int64 array (R + 1,)
    indices : uint32 array (E,)
        Row ``r`` has neighbours ``indices[pointers[r]:pointers[r + 1]]``, ascending.
    columns : int
        Number of nodes on the other side.
    """

    def __init__(self, pointers: Array, indices: Array, columns: int) -> None:
        self.pointers, self.indices, self.columns = pointers, indices, columns
        self._most: int | None = None
        self._blocks: dict[int, Array] = {}
        self._chunks: dict[int, list[int]] = {}

    @property
    def most(self) -> int:
        """The largest degree."""
        if self._most is None:
            self._most = int(np.diff(self.pointers).max(initial=0))
        return self._most

    def blocks(self, row_bytes: int) -> Array:
        """Return `mbgraph._kernels.rows.block_pointers` for source rows of so many bytes: (blocks + 1, R)."""
        if row_bytes not in self._blocks:
            self._blocks[row_bytes] = block_pointers(self.pointers, self.indices, self.columns, row_bytes)
        return self._blocks[row_bytes]

    def chunks(self, count: int) -> list[int]:
        """Return boundaries that cut the rows into so many pieces of about equal work."""
        if count not in self._chunks:
            self._chunks[count] = balanced_chunks(self.pointers, count)
        return self._chunks[count]
