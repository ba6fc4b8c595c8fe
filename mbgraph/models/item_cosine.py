r"""Item cosine: items like those that the user touched, by who touched both.

With :math:`W = A_t + \sum_b \omega_b A_b` over the target's train pairs and those of every auxiliary behavior b,

.. math::
    S_{ij} = \frac{\sum_u W_{ui} W_{uj}\, d_u^{-p}}{\sqrt{(d_i + c)(d_j + c)}}, \quad S_{ii} = 0, \qquad
    s(u, i) = \sum_j W_{uj} S_{ji},

where :math:`d_u = \max(1, \sum_i W_{ui})` and :math:`d_i = \sum_u W_{ui}`. Of S the largest entries of each item are
kept. It is computed a block of items at a time: no items x items array exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from mbgraph.data.aliases import canonical_behavior
from mbgraph.models.base import MODELS, Recommender
from mbgraph.models.options import Count, ModelOptions, NonNegative, Share
from mbgraph.models.popularity import target_popularity, tie_breaker
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations

__all__ = ["ItemCosine", "ItemCosineOptions", "ItemCosineScorer", "item_similarities", "matrix_of", "weighted_union"]

_DELIBERATE = ("cart", "collect")
_CELLS = 2**23  # of a block of similarities, at most: 100 MB

Matrix = Any  # scipy has no type for a sparse array that it would keep through a product


class CosineOptions(ModelOptions):
    """Options of models that compare items by who touched both."""

    deliberate_weight: NonNegative = 0.5
    """Weight of a pair of cart or collect (by any of their usual names) beside a target pair's 1."""
    casual_weight: NonNegative = 0.2
    """Weight of a pair of any other auxiliary behavior, such as a view."""
    neighbors: Count = 500
    """Most similar items that are kept of each item."""
    shrink: NonNegative = 5.0
    """The c of the formula: weight of nobody's touches that every item starts with."""
    user_power: Share = 0.5
    """The p of the formula: how much less a user with many touches says about two items."""


class ItemCosineOptions(CosineOptions):
    """Options of `ItemCosine`."""


def matrix_of(relation: Relation, weight: float = 1.0) -> Matrix:
    """Return the pairs of a relation as a sparse matrix, each with the same value: float32 (U, I)."""
    pointers, indices = relation.neighbors("user")
    values = np.full(len(indices), weight, np.float32)
    shape = (relation.num_users, relation.num_items)
    return sparse.csr_array((values, indices.astype(np.int32), pointers), shape=shape)


def weighted_union(relations: Relations, options: CosineOptions) -> Matrix:
    """Return the weighted sum of all behaviors' pairs, target pairs with weight 1: sparse float32 (U, I)."""
    total = matrix_of(relations[relations.target or ""])
    for name in relations.auxiliary:
        deliberate = canonical_behavior(name) in _DELIBERATE
        weight = options.deliberate_weight if deliberate else options.casual_weight
        if weight:
            total = total + matrix_of(relations[name], weight)
    total.sort_indices()
    return total.tocsr()


def item_similarities(weights: Matrix, options: CosineOptions) -> Matrix:
    """Return the cosine of every two items, the largest of each item.

    Parameters
    ----------
    weights : sparse matrix (U, I)
        What each user did with each item.
    options : CosineOptions
        ``neighbors``, ``shrink`` and ``user_power``.

    Returns
    -------
    sparse float32 matrix (I, I)
        Symmetric: an entry is kept where it is among the ``neighbors`` largest of either item. Of equal ones the lower
        item is kept. Nothing on the diagonal.
    """
    users = np.maximum(1.0, weights.sum(1)) ** (-options.user_power / 2)  # (U,)
    items = (weights.sum(0) + options.shrink) ** -0.5  # (I,)
    items[~np.isfinite(items)] = 0.0  # an item that nobody touched, where shrink is 0
    scaled = (sparse.diags_array(users) @ weights.astype(np.float64) @ sparse.diags_array(items)).tocsc()  # (U, I)
    by_user, num_items = scaled.tocsr(), scaled.shape[1]
    rows = max(1, _CELLS // num_items)
    kept = [
        _largest((scaled[:, start : start + rows].T @ by_user).tocsr(), start, options.neighbors)
        for start in range(0, num_items, rows)
    ]
    found = sparse.vstack(kept, format="csr")
    return found.maximum(found.T).tocsr()


def _largest(block: Matrix, start: int, count: int) -> Matrix:
    """Return the ``count`` largest entries of each row of a block of similarities, without those of an item itself.

    Shapes: sparse (R, I), of the items from ``start`` on -> sparse float32 (R, I).
    """
    block.sort_indices()
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    values = np.where(block.indices == rows + start, -np.inf, block.data)
    keep = values > 0
    for row in np.flatnonzero(np.diff(block.indptr) > count):
        part = slice(block.indptr[row], block.indptr[row + 1])
        own = values[part]
        least = np.partition(own, -count)[-count]
        above, level = own > least, own == least
        keep[part] &= above | (level & (level.cumsum() <= count - above.sum()))
    pointers = np.concatenate([[0], np.bincount(rows[keep], minlength=block.shape[0]).cumsum()])
    return sparse.csr_array((values[keep].astype(np.float32), block.indices[keep], pointers), shape=block.shape)


class ItemCosineScorer:
    """Adds up the similarities of an item to all that a user touched; equal sums go to the more bought item."""

    def __init__(self, weights: Matrix, similarities: Matrix, popularity: Tensor) -> None:
        self.weights, self.similarities = weights, similarities
        self.ties = tie_breaker(popularity)  # (I,)
        self.num_users, self.num_items = weights.shape

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,)."""
        return self.scores_into(users, self.ties.new_empty(len(users), self.num_items))

    def scores_into(self, users: Tensor, out: Tensor) -> Tensor:
        """Write (B, I) scores for user rows (B,) to ``out`` and return it."""
        sums = self.weights[users.numpy(force=True)] @ self.similarities  # sparse (B, I)
        out.copy_(self.ties).numpy()[...] += sums.toarray()
        return out


@MODELS.register("item-cosine")
class ItemCosine(Recommender):
    """Rank items by their likeness to all that the user touched, a purchase counting most; not trained.

    A retriever of items that the user has not touched yet.
    """

    name = "item-cosine"
    trainable = False
    Options = ItemCosineOptions
    options: ItemCosineOptions
    citation = "item-based collaborative filtering: Deshpande and Karypis, TOIS 2004"

    def scorer(self, graph: GraphLike | None = None) -> ItemCosineScorer:
        """Return the scorer of a graph's edges of all behaviors."""
        relations = self.other_relations(graph)
        weights = weighted_union(relations, self.options)
        return ItemCosineScorer(
            weights, item_similarities(weights, self.options), target_popularity(relations, self.target)
        )
