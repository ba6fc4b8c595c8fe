"""What users had, as sorted keys: positives are drawn from it, negatives from outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import CSR
from mbgraph.errors import UsageError
from mbgraph.keys import contains, union
from mbgraph.models.options import TrainingOptions
from mbgraph.typing import IntArray

__all__ = ["History", "draw_positives", "trained_users"]

_REJECTION_ROUNDS = 30


def trained_users(dataset: MultiBehaviorDataset, history: History, training: TrainingOptions) -> IntArray:
    """Return the users with a target item and an item outside their history: (R,); raises `UsageError` for none."""
    users = np.flatnonzero((dataset.csr(dataset.target).degrees() > 0) & (history.sizes() < dataset.num_items))
    if not len(users):
        raise UsageError(
            f"no user of {dataset.name!r} has both a {dataset.target!r} and an item outside the history "
            f"({training.history}), so there is nothing to train on",
            "choose a smaller history: --set history=behavior or --set history=target",
        )
    return users


def draw_positives(csr: CSR, users: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw one item of each user uniformly: (R,) -> (R,), -1 for users without any."""
    starts = csr.indptr[users]
    counts = csr.indptr[users + 1] - starts
    picks = starts + (rng.random(len(users)) * counts).astype(np.int64)
    drawn = csr.indices[np.minimum(picks, len(csr.indices) - 1)]
    return np.where(counts > 0, drawn, -1)


class History:
    """Items of every user, as sorted keys: what is no negative.

    Parameters
    ----------
    keys : int64 array (N,)
        ``user * num_items + item``, ascending.
    num_users, num_items : int
    """

    def __init__(self, keys: IntArray, num_users: int, num_items: int) -> None:
        self.keys, self.num_items = keys, num_items
        self.indptr = np.searchsorted(keys, np.arange(num_users + 1, dtype=np.int64) * num_items)

    @classmethod
    def of(cls, dataset: MultiBehaviorDataset, behaviors: Sequence[str]) -> History:
        """Return the items of every user in any of the behaviors."""
        keys = union(*(dataset.edges[name].keys(dataset.num_items) for name in behaviors))
        return cls(keys, dataset.num_users, dataset.num_items)

    def csr(self) -> CSR:
        """Return the items by user."""
        return CSR(self.indptr, self.keys % self.num_items)

    def sizes(self) -> IntArray:
        """Return the number of items of every user: (U,)."""
        return np.diff(self.indptr)

    def contains(self, users: IntArray, items: IntArray) -> np.ndarray:
        """Return whether each (user, item) stands in the history: two (R,) -> bool (R,)."""
        keys = users * np.int64(self.num_items) + items
        order = np.argsort(keys)  # keys that ascend are found five times as fast
        found = np.empty(len(keys), bool)
        found[order] = contains(keys[order], self.keys)
        return found

    def draw_outside(self, users: IntArray, rng: np.random.Generator) -> IntArray:
        """Draw one item outside each user's history uniformly: (R,) -> (R,), -1 where none is left."""
        drawn = rng.integers(0, self.num_items, len(users))
        open_rows = np.flatnonzero(self.contains(users, drawn))
        for _ in range(_REJECTION_ROUNDS):
            if len(open_rows) == 0:
                return drawn
            again = rng.integers(0, self.num_items, len(open_rows))
            drawn[open_rows] = again
            open_rows = open_rows[self.contains(users[open_rows], again)]
        for row in open_rows:
            user = users[row]
            seen = self.keys[self.indptr[user] : self.indptr[user + 1]] - user * self.num_items
            free = np.setdiff1d(np.arange(self.num_items), seen, assume_unique=True)
            drawn[row] = rng.choice(free) if len(free) else -1
        return drawn
