"""CRGCN: a cascade of residual graph convolutions, each behavior starting from the one before."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mbgraph.derivatives import TINY, derive_plainly
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import CascadeOptions, NonNegative, TrainingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import bpr, part_triple, propagate, triple_margin
from mbgraph.nn.propagation import Rows, rows_at
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, Regularizer, StepOutputs
from mbgraph.regularizers.outputs import Triple

__all__ = ["CRGCN"]


class CRGCNOptions(CascadeOptions):
    """Options of `CRGCN`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"padding": True, "gamma": 1e-10},
    }

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, padded rows included; ``mbgraph`` leaves users who lack a behavior out of its
    loss."""
    padding: bool = False
    """Keep the published code's padding node, see `RMBRec`."""
    gamma: NonNegative = 0.0
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""

    def training(self) -> TrainingOptions:
        """Return batches of 1,024 users, Adam with step size 1e-3."""
        return TrainingOptions()

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the norms of both tables, not squared, divided by the number of items."""
        return (L2(weight=1e-3, on="tables", power=1, divide_by="items"),)


@MODELS.register("crgcn")
class CRGCN(EmbeddingRecommender):
    r"""Behaviors in their order, the target last; each adds its normalised propagation to what came before.

    .. math::
        X \leftarrow \hat A_b X + \beta_{b,l} \quad (L_b \text{ times, from } E_{b-1}), \qquad
        E_b = \frac{X}{\lVert X \rVert} + E_{b-1}, \qquad
        \mathcal L = \sum_b \operatorname{mean} -\log \sigma\big(e_u^{b} \cdot (e_i^{b} - e_j^{b})\big)

    The bias is added to every node, those without an edge included. The target's embeddings score.

    References
    ----------
    Yan et al., "Cascading Residual Graph Convolutional Network for Multi-Behavior Recommendation", TOIS 2023
    (arXiv 2205.13128); published code ``MingshiYan/CRGCN`` at commit 86fbe26.
    """

    name = "crgcn"
    reads_blocks = True
    Options = CRGCNOptions
    options: CRGCNOptions
    ordered = True
    needs_auxiliary = True
    citation = "Yan et al., CRGCN, TOIS 2023 (arXiv 2205.13128)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        self.layers = self.options.layers_of(self.behaviors)
        self.make_tables(self.options.embedding_dim, padding=int(self.options.padding))
        width = self.options.embedding_dim
        # by number: a name of a behavior need not be one of a parameter
        self.biases = nn.ParameterList([torch.zeros(count, width) for count in self.layers.values()])
        self._padded = self.relations.padded(int(self.options.padding))

    def _cascade(self, relations: Relations, at: Rows | None = None, **changes: Any) -> dict[str, Rows]:
        """Return both sides after every behavior, padding rows included: K x ((U, D), (I, D)); the target's at rows."""
        ends: Rows = self.tables
        made: dict[str, Rows] = {}
        for biases, (behavior, count) in zip(self.biases, self.layers.items(), strict=True):
            last, chosen = [0.0] * count + [1.0], at if behavior == self.target else None
            users, items = propagate(
                relations[behavior], *ends, count, weights=last, between=partial(_biased, biases), at=chosen,
                space=self.space, **changes,
            )  # fmt: skip
            start = rows_at(ends, chosen)
            ends = made[behavior] = (_with_unit(start[0], users), _with_unit(start[1], items))
        return made

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return embeddings of all nodes after every behavior; the target's are the final ones."""
        relations = self._padded if graph is None else self.other_relations(graph).padded(int(self.options.padding))
        made = {
            behavior: (users[: self.num_users], items[: self.num_items])
            for behavior, (users, items) in self._cascade(relations).items()
        }
        return Encoded(*made[self.target], made)

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Return the sum of the behaviors' BPR losses, one term each."""
        padding = (self.num_users, self.num_items) if self.options.padding else None
        rows = {behavior: batch.rows(behavior, padding) for behavior in self.behaviors}  # K x 3 x (B_b,)
        users, positives, negatives = rows[self.target]
        nodes = batch.distinct("user", self.target)  # (N,)
        at = (torch.cat([users, nodes]), torch.cat([positives, negatives.flatten()]))
        made = self._cascade(self._padded, at, row_dtype=self.options.row_dtype)
        found = {behavior: _picked(ends, rows[behavior]) for behavior, ends in made.items() if behavior != self.target}
        of_users, of_items = made[self.target]  # (B + N, D), (B (1 + n), D)
        own = part_triple(of_users[: len(users)], of_items, negatives)
        triples = {**found, self.target: own}

        def anchors() -> dict[str, dict[str, Tensor]]:
            others = {behavior: ends[0][nodes] for behavior, ends in made.items() if behavior != self.target}
            return {"user": {**others, self.target: of_users[len(users) :]}}

        margins = {behavior: triple_margin(*triple) for behavior, triple in triples.items() if len(triple[0])}
        risks = {behavior: bpr(margin, self.options.gamma).mean() for behavior, margin in margins.items()}
        return StepOutputs(
            self.target,
            losses=risks,
            risks=risks,
            margins=margins,
            anchors=anchors,
            triples=triples,
            ego=partial(self.ego_triples, {self.target: rows[self.target]}),
            tables=self.tables,
        )


def _with_unit(rows: Tensor, other: Tensor) -> Tensor:
    """Return rows plus the others divided by their norms: (N, D), (N, D) -> (N, D)."""
    made: Tensor = _WithUnit.apply(rows, other)
    return made


class _WithUnit(torch.autograd.Function):
    """The sum, whose derivative takes two passes of the table where autograd's takes eight."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, other: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(other, dim=1, keepdim=True).clamp_min_(TINY).reciprocal_()  # (N, 1)
        ctx.save_for_backward(other, scale)
        return torch.addcmul(rows, other, scale)  # dividing the table costs as much again

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        other, scale = ctx.saved_tensors
        (gradient,) = gradients  # (N, D)
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            (made,) = derive_plainly(lambda table: [torch.nn.functional.normalize(table, dim=1)], (other,), gradients)
            return gradient, made
        along = torch.linalg.vecdot(gradient, other).unsqueeze(1) * scale.square()  # (N, 1)
        along = along.masked_fill_(scale >= 1 / TINY, 0.0)  # divided by a constant
        return gradient, torch.addcmul(gradient, other, along, value=-1).mul_(scale)


def _picked(ends: Rows, rows: Triple) -> Triple:
    """Return the rows of triples; one gather per table, as each costs a gradient of the table's size."""
    users, positives, negatives = rows
    return part_triple(*rows_at(ends, (users, torch.cat([positives, negatives.flatten()]))), negatives)


def _biased(biases: Tensor, layer: int, users: Tensor, items: Tensor) -> Rows:
    return users + biases[layer - 1], items + biases[layer - 1]
