"""Popularity: every user gets the items that most users bought."""

from __future__ import annotations

from torch import Tensor

from mbgraph.models.base import MODELS, Recommender
from mbgraph.models.options import ModelOptions
from mbgraph.nn.relations import GraphLike, Relations

__all__ = ["Popularity", "PopularityScorer", "target_popularity", "tie_breaker"]

_TIE = 1e-9  # popularity's part of a score: below any difference that matters, above float64's grain


def target_popularity(relations: Relations, target: str) -> Tensor:
    """Return the number of train users of every item under the target behavior: float64 (I,)."""
    return relations[target].degree("item").double()


def tie_breaker(popularity: Tensor) -> Tensor:
    """Return what orders equal scores by popularity when it is added to them: float64 (I,), from 0 to 1e-9."""
    return popularity * (_TIE / (float(popularity.max()) + 1.0))


class PopularityScorer:
    """Scores items alike for every user."""

    def __init__(self, popularity: Tensor, num_users: int) -> None:
        self.popularity = popularity
        self.num_users, self.num_items = num_users, len(popularity)

    def scores(self, users: Tensor) -> Tensor:
        """Return (B, I) scores for user rows (B,)."""
        return self.popularity.repeat(len(users), 1)

    def scores_into(self, users: Tensor, out: Tensor) -> Tensor:
        """Write (B, I) scores for user rows (B,) to ``out`` and return it."""
        return out.copy_(self.popularity)


class PopularityOptions(ModelOptions):
    """`Popularity` has no options."""


@MODELS.register("popularity")
class Popularity(Recommender):
    """Rank items by their number of train buyers; not personal, not trained.

    Items with the same number tie; the tie policy of the evaluation decides.
    """

    name = "popularity"
    trainable = False
    Options = PopularityOptions

    def reads(self, relations: Relations) -> Relations:
        """Return the target's relation."""
        return relations.select((self.target,))

    def scorer(self, graph: GraphLike | None = None) -> PopularityScorer:
        """Return the scorer; it reads the target's edges only."""
        return PopularityScorer(target_popularity(self.other_relations(graph), self.target), self.num_users)
