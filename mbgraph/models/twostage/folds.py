"""How well weights rank labels of users on whom they were not fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mbgraph.evaluation.metrics import per_user_metrics
from mbgraph.evaluation.ranking import rank_from_counts
from mbgraph.models.twostage import logit
from mbgraph.random import stream
from mbgraph.typing import FloatArray, IntArray

__all__ = ["FOLDS", "Rerank", "cross_fitted", "fold_of", "within_lists"]

Rerank = Callable[[np.ndarray, FloatArray], FloatArray]
"""From which users are asked for, bool (n,), and the weighted scores of their seen lists, to other scores of these."""

FOLDS = 3
_CUTOFFS = (10, 20)


def fold_of(count: int, seed: int) -> IntArray:
    """Return the fold of every user, equally many in each: (count,)."""
    return stream(seed, "folds").permutation(count) % FOLDS


def cross_fitted(
    choices: logit.Choices, l2: float, fold: IntArray, start: FloatArray, rerank: Rerank | None = None
) -> dict[str, float]:
    """Return HR and NDCG of labels within their user's lists, weights fitted on the labels of users of other folds.

    A user whose label stands on no list counts as a miss. Nothing is returned where the users of a fold have no label.
    The fits begin at ``start``, which changes how long they take and not where they end: the loss is convex.
    ``rerank`` takes which users are scored (n,) and the weighted scores of their seen lists, and gives others.
    """
    labelled = choices.labels > 0
    totals: dict[str, float] = {}
    for number in range(FOLDS):
        own = fold == number
        if not (labelled & own).any() or not (labelled & ~own).any():
            return {}
        weights = logit.fit(choices.of(labelled & ~own), l2, start).weights
        part = choices.of(labelled & own)
        scores: list[FloatArray] = [rows @ each for rows, each in zip(part.rows, part.split(weights), strict=True)]
        if rerank is not None:
            scores[0] = rerank(labelled & own, scores[0])
        for name, values in within_lists(part, scores).items():
            totals[name] = totals.get(name, 0.0) + float(values.sum())
    return {name: value / choices.count for name, value in totals.items()}


def within_lists(choices: logit.Choices, scores: Sequence[FloatArray]) -> dict[str, FloatArray]:
    """Return each user's metrics of the labels among the user's lists; equal scores share their places.

    Shapes: scores (P_l,) per list -> (n,) by name of the metric, 0 for users without a label.
    """
    owner, values = np.concatenate(choices.owner), np.concatenate(scores)
    chosen = np.concatenate(choices.chosen) > 0
    order = np.lexsort((-values, owner))
    owner, values, chosen = owner[order], values[order], chosen[order]
    first = np.searchsorted(owner, np.arange(choices.count))
    fresh = np.r_[True, (owner[1:] != owner[:-1]) | (values[1:] != values[:-1])]
    tied = np.cumsum(fresh) - 1
    start = np.flatnonzero(fresh)
    size = np.diff(np.r_[start, len(owner)])
    greater, equal = start[tied] - first[owner], size[tied] - 1
    ranks = rank_from_counts(greater, equal, "realistic")[chosen]
    users, number = np.unique(owner[chosen], return_inverse=True)
    found = per_user_metrics(ranks, number, num_owners=len(users), cutoffs=_CUTOFFS)
    made: dict[str, FloatArray] = {f"{name}@{k}": np.zeros(choices.count) for k in _CUTOFFS for name in ("HR", "NDCG")}
    for name, values in made.items():
        values[users] = found[name]
    return made
