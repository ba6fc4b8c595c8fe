r"""Conversion: re-surface what the user has touched, by how often such a touch becomes a purchase.

.. math::
    s(u, i) = \sum_{b: (u, i) \in R_b} \rho_b(i), \qquad
    \rho_b(i) = \frac{n_{bt}(i) + c\,\rho_b}{n_b(i) + c}

over auxiliary behaviors b, where :math:`n_b(i)` counts the train users of item i in b, :math:`n_{bt}(i)` those of them
who bought i, and :math:`\rho_b` is the same share over all items. Ties go to the more bought item, and items the user
never touched follow all touched ones, by popularity: one float64 says all three, because popularity adds less than 1e-9
and untouched items start at -1.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mbgraph.data.interactions import CSR
from mbgraph.keys import contains
from mbgraph.models.base import MODELS, Recommender
from mbgraph.models.options import ModelOptions, Positive
from mbgraph.models.popularity import target_popularity, tie_breaker
from mbgraph.nn.relations import GraphLike

__all__ = ["Conversion", "ConversionScorer", "conversion_rates"]


def conversion_rates(
    users: np.ndarray, items: np.ndarray, target_keys: np.ndarray, num_items: int, smoothing: float
) -> np.ndarray:
    """Return the smoothed share of an auxiliary behavior's users who bought each item: (E,), (E,) -> float64 (I,).

    ``target_keys`` are the sorted ``user * num_items + item`` of the target's train pairs.
    """
    bought = contains(users * np.int64(num_items) + items, target_keys)
    count = np.bincount(items, minlength=num_items)
    converted = np.bincount(items, weights=bought, minlength=num_items)
    overall = float(bought.mean()) if len(bought) else 0.0
    return (converted + smoothing * overall) / (count + smoothing)


class ConversionScorer:
    """Adds up the rates of a user's own auxiliary edges."""

    def __init__(self, adjacency: list[CSR], rates: list[np.ndarray], popularity: Tensor, num_users: int) -> None:
        self.adjacency, self.rates = adjacency, rates
        self.popularity = tie_breaker(popularity)  # (I,)
        self.untouched = self.popularity - 1.0  # behind every touched item, even where nothing touched was ever bought
        self.num_users, self.num_items = num_users, len(popularity)

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,)."""
        return self.scores_into(users, self.untouched.new_empty(len(users), self.num_items))

    def scores_into(self, users: Tensor, out: Tensor) -> Tensor:
        """Write (B, I) scores for user rows (B,) to ``out`` and return it."""
        scores, popularity = out.copy_(self.untouched).numpy(), self.popularity.numpy()
        touched = [csr.gather(users.numpy()) for csr in self.adjacency]
        for where, columns in touched:
            scores[where, columns] = popularity[columns]
        for (where, columns), rate in zip(touched, self.rates, strict=True):
            scores[where, columns] += rate[columns]
        return out


class ConversionOptions(ModelOptions):
    """Options of `Conversion`."""

    smoothing: Positive = 10.0
    """The c of the formula: how many users' worth of the overall rate every item starts with."""


@MODELS.register("conversion")
class Conversion(Recommender):
    """Rank a user's touched items by their conversion rate; not trained.

    It says nothing about discovery: every item it puts on top is one the user has already seen.
    """

    name = "conversion"
    trainable = False
    Options = ConversionOptions
    options: ConversionOptions
    needs_auxiliary = True

    def scorer(self, graph: GraphLike | None = None) -> ConversionScorer:
        """Return the scorer of a graph's auxiliary and target edges."""
        relations = self.other_relations(graph)
        bought = relations[self.target]
        target_keys = np.sort((bought.users * self.num_items + bought.items).numpy())
        adjacency, rates = [], []
        for behavior in relations.auxiliary:
            users, items = relations[behavior].users.numpy(), relations[behavior].items.numpy()
            adjacency.append(CSR.from_pairs(users, items, self.num_users))
            rates.append(conversion_rates(users, items, target_keys, self.num_items, self.options.smoothing))
        return ConversionScorer(adjacency, rates, target_popularity(relations, self.target), self.num_users)
