"""LightGCN on the target behavior alone, or on the union of all behaviors as one graph."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from mbgraph.models.base import MODELS
from mbgraph.models.context import StepContext
from mbgraph.models.one_graph import OneGraphOptions, OneGraphRecommender, target_step
from mbgraph.models.options import NonNegative, Positive, TrainingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import propagate
from mbgraph.nn.lightgcn import layer_weights
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike
from mbgraph.regularizers import L2, Regularizer, StepOutputs

__all__ = ["LightGCN"]


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
    gamma: NonNegative = 0.0
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""
    init_std: Positive = 0.1
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
    reads_blocks = True
    Options = LightGCNOptions
    options: LightGCNOptions
    citation = "He et al., LightGCN, SIGIR 2020 (arXiv 2002.02126)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        self.make_tables(self.options.embedding_dim, std=self.options.init_std)

    def _propagated(self, relation: Relation, **changes: Any) -> Rows:
        chosen = self.options
        return propagate(
            relation,
            *self.tables,
            chosen.num_layers,
            layer_norm=chosen.layer_norm,
            weights=layer_weights(chosen.combine, chosen.num_layers),
            space=self.space,
            **changes,
        )

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Return the BPR loss of the batch's target triples."""
        return target_step(self, batch, partial(self._propagated, row_dtype=self.options.row_dtype), self.options.gamma)
