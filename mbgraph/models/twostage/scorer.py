"""Scores of the two lists, computed for blocks of users when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from mbgraph.models.popularity import target_popularity, tie_breaker
from mbgraph.models.twostage.candidates import Candidates, candidates_of
from mbgraph.models.twostage.facts import Facts
from mbgraph.typing import FloatArray, IntArray

__all__ = ["TwoStageScorer", "block_of_users"]

_PAIRS = 2**19  # of a block of users, about


def block_of_users(facts: Facts) -> int:
    """Return the number of users whose lists are made together: a power of 2 that the graph alone decides.

    A product of many rows may round otherwise than one of few, and a user's scores must not depend on who else is
    asked for.
    """
    mean = len(facts.seen.indices) / max(1, facts.num_users) + 1
    mean += facts.options.retrieved * len(facts.retrievers)
    return 1 << max(6, int(_PAIRS / mean).bit_length() - 1)


class TwoStageScorer:
    """Ranks a user's lists by their scores, and behind them all other items by item cosine.

    Memory is that of the lists of the users asked for.

    Parameters
    ----------
    facts : Facts
    score : callable
        Candidates to scores, (P,) -> float64 (P,).
    """

    def __init__(self, facts: Facts, score: Callable[[Candidates], FloatArray]) -> None:
        self.facts, self.score = facts, score
        self.num_users, self.num_items = facts.num_users, facts.num_items
        self.ties = tie_breaker(target_popularity(facts.relations, facts.setting.target))
        self._made: dict[int, tuple[Candidates, FloatArray]] = {}
        self._block = block_of_users(facts)

    def lists(self, users: IntArray) -> tuple[IntArray, Candidates, FloatArray]:
        """Return the lists of some users: positions in ``users`` (P,), the pairs, their scores (P,)."""
        where, pairs, scores = [], [], []
        for place, user in enumerate(users.tolist()):
            block, made = self._of(user // self._block)
            low, high = np.searchsorted(block.users, [user, user + 1])
            where.append(np.full(high - low, place))
            pairs.append(block[slice(low, high)])
            scores.append(made[low:high])
        return np.concatenate(where), Candidates.joined(pairs), np.concatenate(scores)

    def alike(self, users: IntArray) -> FloatArray:
        """Return how like every item is to what users touched, the order behind the lists: (B,) -> float32 (B, I)."""
        made: FloatArray = (self.facts.weights[users] @ self.facts.similar("all")).toarray()
        return made

    def _of(self, block: int) -> tuple[Candidates, FloatArray]:
        if block not in self._made:
            users = np.arange(block * self._block, min((block + 1) * self._block, self.num_users))
            pairs = candidates_of(self.facts, users)
            self._made[block] = (pairs, self.score(pairs))
        return self._made[block]

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,)."""
        return self.scores_into(users, self.ties.new_empty(len(users), self.num_items))

    def scores_into(self, users: Tensor, out: Tensor) -> Tensor:
        """Write (B, I) scores for user rows (B,) to ``out`` and return it."""
        rows = users.numpy(force=True)
        scores = out.copy_(self.ties).numpy()
        alike = self.alike(rows).astype(np.float64)  # (B, I)
        scores += alike / (1.0 + alike)  # below 1, in the same order
        where, pairs, values = self.lists(rows)
        lowest = np.zeros(len(rows))
        np.minimum.at(lowest, where, values)
        scores += lowest[:, None] - 2.0
        scores[where, pairs.items] = values + self.ties.numpy()[pairs.items]
        return out
