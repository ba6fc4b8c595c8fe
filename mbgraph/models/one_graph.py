"""What models share that read one graph: the target's, or the union of all behaviors."""

from __future__ import annotations

from typing import Any

import torch

from mbgraph.models.base import EmbeddingRecommender, Encoded
from mbgraph.models.options import EmbeddingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import bpr, mean_of_rows, part_triple, triple_margin
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import StepOutputs

__all__ = ["OneGraphOptions", "OneGraphRecommender", "target_step"]


class OneGraphOptions(EmbeddingOptions):
    """Options of models that read one graph."""

    union: bool = False
    """Read the pairs of all behaviors as one graph. Training is on the target's pairs either way."""

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`."""
        return self.num_layers


class OneGraphRecommender(EmbeddingRecommender):
    """A model that reads the target's graph, or the union of all behaviors, as one."""

    options: OneGraphOptions

    def reads(self, relations: Relations) -> Relations:
        """Return all relations for the union, the target's otherwise."""
        return relations if self.options.union else relations.select((self.target,))

    def relation(self, graph: GraphLike | None = None) -> Relation:
        """Return the one relation that the model reads, of another graph if one is given."""
        if graph is None:
            if self._relation is None:
                self._relation = self._joined(self.relations)
            return self._relation
        return self._joined(self.other_relations(graph))

    _relation: Relation | None = None

    def _joined(self, relations: Relations) -> Relation:
        return relations.union() if self.options.union else relations[self.target]

    def _propagated(self, relation: Relation, **changes: Any) -> Rows:
        """Return what the tables become on the relation; ``changes`` are options of `mbgraph.nn.propagate`."""
        raise NotImplementedError

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return embeddings of all nodes, without noise."""
        users, items = self._propagated(self.relation(graph))
        return Encoded(users, items, {self.target: (users, items)})

    def sampled_behaviors(self) -> tuple[str, ...]:
        """Return the target."""
        return (self.target,)


def target_step(
    model: OneGraphRecommender, batch: TripleBatch, propagated: Any, gamma: float, **entries: Any
) -> StepOutputs:
    """Return the BPR loss of the target's triples; ``propagated(relation, at=rows)`` gives embeddings at rows."""
    rows = batch.rows(model.target)
    users, positives, negatives = rows
    at = (users, torch.cat([positives, negatives.flatten()]))
    at_users, at_items = propagated(model.relation(), at=at)
    triple = part_triple(at_users, at_items, negatives)  # (B, D), (B, D), (B, [n,] D)
    margin = triple_margin(*triple)
    return model.target_outputs(rows, triple, margin, mean_of_rows(bpr(margin, gamma)), **entries)
