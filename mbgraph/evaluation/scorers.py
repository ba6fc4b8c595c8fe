"""What ranks items: dot products of embeddings, the same plus bonuses on given pairs, or blocks from a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mbgraph.data.interactions import CSR
from mbgraph.errors import RunError, UsageError
from mbgraph.keys import contains
from mbgraph.typing import IntArray

__all__ = ["BlockScorer", "EmbeddingScorer", "PairBonusScorer", "Scorer", "nan_scores"]


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores all items for a block of users; higher is better.

    A scorer may also have ``scores_into(users, out)``, which writes the same scores to a tensor like the one that
    `scores` returned before; all blocks then share that memory.
    """

    num_users: int
    num_items: int

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,)."""
        ...


class EmbeddingScorer:
    """Dot products of user and item embeddings.

    Parameters
    ----------
    users, items : Tensor (U, D), (I, D)

    Raises
    ------
    RunError
        If an embedding is not finite, or so large that a product may not be.
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
            raise UsageError(f"embeddings must be (U, D) and (I, D), got {tuple(users.shape)} and {tuple(items.shape)}")
        for side, table in (("user", users), ("item", items)):
            if not torch.isfinite(table).all():
                raise RunError(f"{side} embeddings are not finite", "train with a lower --lr")
        # Cauchy-Schwarz bounds every partial sum of every product, so scores need not be searched for NaN
        if _longest(users) * _longest(items) > torch.finfo(users.dtype).max:
            raise RunError("the embeddings are so large that scores overflow", "train with a lower --lr")
        self.users, self.items = users.detach(), items.detach()
        self.num_users, self.num_items = len(users), len(items)

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,); the memory is item by item."""
        return self.scores_into(users, self.users.new_empty(self.num_items, len(users)).T)

    def scores_into(self, users: Tensor, out: Tensor) -> Tensor:
        """Write (B, I) scores for user rows (B,) to ``out``, made by `scores`, and return it."""
        rows = self.users.index_select(0, users.to(self.users.device))  # (B, D)
        torch.mm(self.items, rows.T, out=out.T)  # a product of many rows uses all cores, one of few does not
        return out


class PairBonusScorer(EmbeddingScorer):
    """Dot products plus a bonus on given pairs: what a user's own edges say, beside what embeddings say.

    Parameters
    ----------
    users, items : Tensor (U, D), (I, D)
    pairs : CSR
        Items of every user that have a bonus, ascending.
    bonus : float array (N,)
        In the order of ``pairs.indices``; ``-inf`` bars a pair.

    Raises
    ------
    UsageError
        If there is not one bonus per pair, a pair stands twice or outside the tables.
    RunError
        If a bonus is NaN or positive infinity, or see `EmbeddingScorer`.
    """

    def __init__(self, users: Tensor, items: Tensor, pairs: CSR, bonus: Any) -> None:
        super().__init__(users, items)
        values = np.asarray(bonus, np.float32)
        # neighbour lists of a relation hold 32-bit numbers, which torch does not take as indices
        pairs = CSR(np.asarray(pairs.indptr, np.int64), np.asarray(pairs.indices, np.int64))
        if len(pairs.indptr) != self.num_users + 1 or values.shape != pairs.indices.shape:
            raise UsageError(
                f"{values.shape} bonuses for {len(pairs.indices)} pairs of {len(pairs.indptr) - 1} users, "
                f"the scorer has {self.num_users} users",
                "give one bonus per pair, and a list of pairs per user",
            )
        keys = np.repeat(np.arange(self.num_users), np.diff(pairs.indptr)) * np.int64(self.num_items) + pairs.indices
        inside = not len(keys) or 0 <= pairs.indices.min() <= pairs.indices.max() < self.num_items
        if not inside or not (keys[1:] > keys[:-1]).all():
            raise UsageError("pairs of bonuses must be items of the catalogue, ascending per user, each once")
        if np.isnan(values).any() or np.isposinf(values).any():
            raise RunError("a bonus is NaN or infinite", "train with a lower --lr")
        self.pairs, self.bonus = pairs, values

    def gathered(self, users: IntArray) -> tuple[IntArray, IntArray, np.ndarray]:
        """Return all pairs with a bonus of some users: positions in ``users``, items, bonuses; each (M,)."""
        where, places = self.pairs.places(users)
        return where, self.pairs.indices[places], self.bonus[places]

    def bonus_of(self, users: IntArray, items: IntArray) -> np.ndarray:
        """Return the bonus of pairs, 0 where they have none: (N,), (N,) -> float32 (N,)."""
        where, columns, values = self.gathered(users)
        hit = columns == items[where]
        found = np.zeros(len(users), np.float32)
        found[where[hit]] = values[hit]
        return found

    def without(self, masked: CSR | None) -> tuple[CSR, np.ndarray]:
        """Return the pairs and bonuses that a mask leaves: as ``pairs`` and ``bonus``."""
        if masked is None:
            return self.pairs, self.bonus
        keys, others = (
            np.repeat(np.arange(self.num_users), lists.degrees()) * np.int64(self.num_items) + lists.indices
            for lists in (self.pairs, masked)
        )
        kept = ~contains(keys, others)
        counts = np.bincount(keys[kept] // self.num_items, minlength=self.num_users)
        return CSR(np.concatenate([[0], np.cumsum(counts)]), self.pairs.indices[kept]), self.bonus[kept]

    def scores_into(self, users: Tensor, out: Tensor) -> Tensor:
        """Write (B, I) scores for user rows (B,) to ``out`` and return it."""
        super().scores_into(users, out)
        where, columns, values = self.gathered(users.numpy(force=True))
        at = (torch.from_numpy(where).to(out.device), torch.from_numpy(columns).to(out.device))
        out[at] += torch.from_numpy(values).to(out)  # each pair stands once
        return out


class BlockScorer:
    """Blocks of scores from a function, for models that are neither.

    Parameters
    ----------
    function : callable
        User rows int64 (B,) to scores (B, I).
    num_users, num_items : int
    """

    def __init__(self, function: Callable[[Tensor], Tensor], num_users: int, num_items: int) -> None:
        self.function, self.num_users, self.num_items = function, num_users, num_items

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,)."""
        made = self.function(users)
        if made.shape != (len(users), self.num_items):
            raise UsageError(f"a scorer gave {tuple(made.shape)} scores, expected {(len(users), self.num_items)}")
        return made


def _longest(table: Tensor) -> float:
    """Return the largest row norm, in float64: (N, D) -> ()."""
    return float(torch.linalg.vector_norm(table.detach(), dim=1, dtype=torch.float64).max()) if len(table) else 0.0


def nan_scores() -> RunError:
    """Return the error of whoever meets a score that cannot be ranked."""
    return RunError("the model gives NaN scores", "train with a lower --lr")
