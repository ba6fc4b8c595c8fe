"""LightGCN on the target behavior alone, or on the union of all behaviors as one graph."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from mbgraph._kernels import Workspace
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.batches import TripleBatch
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, TrainingOptions
from mbgraph.nn import bpr, mean_of_rows, propagate, triple_margin
from mbgraph.nn.lightgcn import layer_weights
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, Regularizer, StepOutputs

__all__ = ["LightGCN", "LightGCNOptions", "OneGraphOptions", "OneGraphRecommender"]


class OneGraphOptions(EmbeddingOptions):
    """Options of models that read one graph."""

    union: bool = False
    """Read the pairs of all behaviors as one graph. Training is on the target's pairs either way."""


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

    def sampled_behaviors(self) -> tuple[str, ...]:
        """Return the target."""
        return (self.target,)


class LightGCNOptions(OneGraphOptions):
    """Options of `LightGCN`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "target": {},
        "union": {"union": True, "layer_norm": True, "combine": "sum"},
    }

    variant: Literal["target", "union"] = "target"
    """``target`` is LightGCN as published, on the target's pairs. ``union`` is the anchor of every table: the union of
    all behaviors as one graph, RMBRec's norms and layer sum, RMBRec's training, and nothing else."""
    layer_norm: bool = False
    """Divide every propagated row by its Euclidean norm (published RMBRec)."""
    combine: Literal["mean", "sum"] = "mean"
    """How layers 0..L become one embedding."""
    gamma: Annotated[float, Field(ge=0)] = 0.0
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""
    init_std: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the normal initialisation."""

    def training(self) -> TrainingOptions:
        """Return batches of 2,048 users drawn with replacement, negatives outside their target history; or RMBRec's."""
        if self.variant == "union":
            return TrainingOptions(weight_decay=1e-3)
        return TrainingOptions(epochs=1000, patience=50, batch_size=2048, sampler="with-replacement", history="target")

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return L2 with weight 1e-4 on the batch's table rows."""
        return (L2(weight=1e-4, on="ego"),)


@MODELS.register("lightgcn")
class LightGCN(OneGraphRecommender):
    r"""Mean over the layers of a plain propagation.

    .. math::
        X^{(l+1)} = D^{-1/2} A D^{-1/2} X^{(l)}, \qquad Z = \frac{1}{L+1} \sum_{l=0}^{L} X^{(l)}, \qquad
        \mathcal L = \operatorname{mean} \operatorname{softplus}(s_{uj} - s_{ui})
        + \lambda \frac{1}{2B} \sum \lVert x_u \rVert^2 + \lVert x_i \rVert^2 + \lVert x_j \rVert^2

    with the norms of layer 0.

    References
    ----------
    He et al., SIGIR 2020; published code ``gusye1234/LightGCN-PyTorch`` at commit 947ca2b.
    """

    name = "lightgcn"
    Options = LightGCNOptions
    options: LightGCNOptions
    citation = "He et al., LightGCN, SIGIR 2020 (arXiv 2002.02126)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        self.make_tables(self.options.embedding_dim, std=self.options.init_std)
        self._space = Workspace()

    def _propagated(self, relation: Relation, **changes: Any) -> tuple[Any, Any]:
        chosen = self.options
        return propagate(
            relation,
            *self.tables,
            chosen.num_layers,
            layer_norm=chosen.layer_norm,
            weights=layer_weights(chosen.combine, chosen.num_layers),
            space=self._space,
            **changes,
        )

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return embeddings of all nodes."""
        users, items = self._propagated(self.relation(graph))
        return Encoded(users, items, {self.target: (users, items)})

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Return the BPR loss of the batch's target triples."""
        return target_step(self, batch, partial(self._propagated, row_dtype=self.options.row_dtype), self.options.gamma)


def target_step(
    model: OneGraphRecommender, batch: TripleBatch, propagated: Any, gamma: float, **entries: Any
) -> StepOutputs:
    """Return the BPR loss of the target's triples; ``propagated(relation, at=rows)`` gives embeddings at rows."""
    rows = batch.rows(model.target)
    users, positives, negatives = rows
    at = (users, torch.cat([positives, negatives.flatten()]))
    at_users, at_items = propagated(model.relation(), at=at)
    positive, negative = at_items.split([len(positives), negatives.numel()])
    triple = (at_users, positive, negative.view(*negatives.shape, negative.shape[-1]))  # (B, D), (B, D), (B, [n,] D)
    margin = triple_margin(*triple)
    risk = mean_of_rows(bpr(margin, gamma))
    present = len(users) > 0
    return StepOutputs(
        model.target,
        losses={"main": risk},
        risks={model.target: risk} if present else {},
        margins={model.target: margin} if present else {},
        triples={model.target: triple},
        ego=partial(model.ego_triples, {model.target: rows}),
        tables=model.tables,
        **entries,
    )
