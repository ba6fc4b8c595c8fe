"""Popularity: every user gets the items that most users bought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mbgraph.models.base import MODELS, Recommender

if TYPE_CHECKING:
    import dgl

__all__ = ["Popularity", "PopularityScorer", "target_popularity"]


def target_popularity(graph: dgl.DGLGraph, target: str) -> Tensor:
    """Return the number of train users of every item under the target behavior: float64 (I,)."""
    return graph.in_degrees(etype=target).double()


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


@MODELS.register("popularity")
class Popularity(Recommender):
    """Rank items by their number of train buyers; not personal, not trained.

    Items with the same number tie; the tie policy of the evaluation decides.

    Parameters
    ----------
    graph, target
        See `Recommender`.
    """

    name = "popularity"
    trainable = False

    def __init__(self, graph: dgl.DGLGraph, target: str) -> None:
        super().__init__(graph, target)
        self._graph = graph

    def scorer(self, graph: dgl.DGLGraph | None = None) -> PopularityScorer:
        """Return the scorer; it reads the target's edges only."""
        graph = self._graph if graph is None else graph
        return PopularityScorer(target_popularity(graph, self.target), graph.num_nodes("user"))
