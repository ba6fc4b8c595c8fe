"""SimGCL: LightGCN without layer 0, and a contrast of two encodings with random noise."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbgraph.derivatives import TINY
from mbgraph.models.base import MODELS
from mbgraph.models.context import StepContext
from mbgraph.models.one_graph import OneGraphOptions, OneGraphRecommender, target_step
from mbgraph.models.options import Layers, NonNegative, TrainingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import hop, propagate
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike
from mbgraph.regularizers import L2, InfoNCE, Regularizer, StepOutputs

__all__ = ["SimGCL"]


class SimGCLOptions(OneGraphOptions):
    """Options of `SimGCL`."""

    num_layers: Layers = 2
    """Number of propagation steps."""
    eps: NonNegative = 0.1
    """Length of the noise that is added to every row of every layer."""
    gamma: NonNegative = 1e-5
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`; the first layer is the same in all three encodings."""
        return 3 * self.num_layers - 2

    def training(self) -> TrainingOptions:
        """Return batches of 2,048 target edges; negatives from outside the user's target history."""
        return TrainingOptions(epochs=500, patience=50, batch_size=2048, sampler="per-edge", history="target")

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return a contrast for users, one for items, and norms of propagated rows that are not squared."""
        users, items = (
            InfoNCE(label=f"{side}s", weight=0.5, temperature=0.2, between="views", side=side, direction="anchor")
            for side in ("user", "item")
        )
        return users, items, L2(weight=1e-4, on="propagated", power=1, negatives=False)


@MODELS.register("simgcl")
class SimGCL(OneGraphRecommender):
    r"""LightGCN whose layers 1..L are averaged, contrasted with itself under noise.

    .. math::
        \tilde X^{(l+1)} = \hat A \tilde X^{(l)} + \varepsilon\, \operatorname{sign}(\hat A \tilde X^{(l)}) \odot
        \frac{n}{\lVert n \rVert}, \quad n \sim U(0, 1)^D \text{ per row}, \qquad
        Z = \frac{1}{L} \sum_{l=1}^{L} X^{(l)}

    Two such encodings with independent noise are the views that `InfoNCE` contrasts, for the batch's distinct users and
    for its distinct positive items; ranking and BPR use the encoding without noise.

    References
    ----------
    Yu et al., SIGIR 2022 (arXiv 2112.08679); published code ``Coder-Yu/SELFRec`` at commit 5b02294, whose norms are not
    squared and leave the negatives out.
    """

    name = "simgcl"
    reads_blocks = True
    Options = SimGCLOptions
    options: SimGCLOptions
    citation = "Yu et al., SimGCL, SIGIR 2022 (arXiv 2112.08679)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        self.make_tables(self.options.embedding_dim)

    def _propagated(self, relation: Relation, **changes: Any) -> Rows:
        count = self.options.num_layers
        return propagate(
            relation, *self.tables, count, weights=(0.0, *[1.0 / count] * count), space=self.space, **changes
        )

    def noise(self, view: int, layer: int, side: str, shape: torch.Size, context: StepContext) -> Tensor:
        """Return uniform noise in [0, 1) for one layer of one view: (N, D)."""
        return context.uniform(f"view {view} layer {layer} {side}", shape)

    def _perturbed(self, view: int, below: int, context: StepContext, layer: int, users: Tensor, items: Tensor) -> Rows:
        """Return both sides' rows of layer ``below + layer`` with noise, from which no gradient comes."""
        made = []
        for side, rows in (("user", users), ("item", items)):
            with torch.no_grad():  # the derivative of a sign is 0
                drawn = self.noise(view, below + layer, side, rows.shape, context).to(rows)
                lengths = torch.linalg.vector_norm(drawn, dim=1, keepdim=True).clamp_min(TINY)  # (N, 1)
                signed = torch.sign(rows).mul_(drawn)
            made.append(torch.addcmul(rows, signed, self.options.eps / lengths))
        return made[0], made[1]

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Return the BPR loss of the target's triples and two views of their users and positive items.

        All three encodings share the first layer before its noise, which is propagated once.
        """
        count = self.options.num_layers
        at = (batch.distinct("user", self.target), batch.distinct("item", self.target))
        further = partial(
            propagate, num_layers=count - 1, weights=[1.0 / count] * count, row_dtype=self.options.row_dtype,
            space=self.space,
        )  # fmt: skip
        first = hop(self.relation(), *self.tables, row_dtype=self.options.row_dtype, space=self.space)

        def views() -> dict[str, tuple[Tensor, Tensor]]:
            one, two = (
                further(
                    self.relation(), *self._perturbed(view, 0, context, 1, *first), at=at,
                    between=partial(self._perturbed, view, 1, context),
                )
                for view in (1, 2)
            )  # fmt: skip
            return {"user": (one[0], two[0]), "item": (one[1], two[1])}

        def clean(relation: Relation, at: Rows) -> Rows:
            return further(relation, *first, at=at)

        return target_step(self, batch, clean, self.options.gamma, views=views)
