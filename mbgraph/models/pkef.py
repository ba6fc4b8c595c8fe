"""PKEF: a cascade corrected by what each behavior says alone, and a gate over experts of all behaviors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.evaluation.scorers import BlockScorer
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import CascadeOptions, Layers, NonNegative, Positive, TrainingOptions
from mbgraph.models.ragged import RaggedBatch, RaggedBatches
from mbgraph.nn import Experts, bpr, hop, mean_of_rows, triple_at, triple_margin, xavier
from mbgraph.nn.projection import projected, rejected
from mbgraph.nn.propagation import Rows, rows_added
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, Regularizer, StepOutputs

__all__ = ["PKEF"]


class PKEFOptions(CascadeOptions):
    """Options of `PKEF`."""

    presets = {"mbgraph": {}, "official": {"users_per_epoch": 10_000}}  # noqa: RUF012 (a ClassVar of the base)

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, whose epochs read 10,000 users; ``mbgraph`` reads all of them."""
    num_layers: Layers = 4
    """Propagation steps of the first behavior; each other one has 1."""
    coefficients: tuple[NonNegative, ...] = ()
    """Weight of each behavior's losses, in order; empty: 2/3 of the last auxiliary one, 1/3 of the target."""
    loss_factor: Positive = 3.0
    """Factor on all losses."""
    scale: Positive = 300.0
    """Factor on all scores."""
    fused: NonNegative = 0.3
    """Share of the parallel layer, projected on the cascade's, that a cascade layer takes up."""
    shared: NonNegative = 0.01
    """Factor on the other behaviors' embeddings, projected on a behavior's own, and on what the projection leaves."""
    not_unique: tuple[str, ...] = ()
    """Behaviors without losses of unique pairs (published: the cart of TMall)."""
    users_per_epoch: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Users that an epoch reads, drawn anew; 0: all."""
    positives_per_user: Annotated[int, Field(ge=1, le=1000)] = 40
    """Most rows of a user in each group of triples."""

    def layers_of(self, behaviors: Sequence[str]) -> dict[str, int]:
        """See `CascadeOptions.layers_of`."""
        return self.by_behavior("layers", self.layers or (self.num_layers, *[1] * (len(behaviors) - 1)), behaviors)

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`; each layer stands alone and in the cascade."""
        return 2 * super().propagations(behaviors)

    def training(self) -> TrainingOptions:
        """Return 100 epochs of batches of 256 users, with a step size that falls by 4 % every 39 steps."""
        return TrainingOptions(batch_size=256, epochs=100, history="behavior", lr_decay=0.96, lr_decay_steps=39)

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the squared norms of both tables and of the gate's weights."""
        return L2(weight=1e-2, on="tables"), L2(label="l2-gate", weight=1e-2, on="parameters")


@MODELS.register("pkef")
class PKEF(EmbeddingRecommender):
    r"""Each behavior alone (parallel), all in a cascade that takes from it, and gated experts on top.

    With :math:`\bar A = D^{-1} A` and :math:`\operatorname{proj}(x | y) = \tfrac{\langle x, y\rangle}{\lVert y
    \rVert^2} y` per row,

    .. math::
        P_b^{l+1} = \bar A_b P_b^l + P_b^l, \qquad
        S = \bar A_b X^l, \quad X^{l+1} = S + X^l + 0.3 \operatorname{proj}(P_b^{l+1} | S), \qquad
        P_b = \sum_l P_b^l, \quad C_b = \sum_l X^l

    where the next behavior starts from the last layer plus what this one started from. Behavior s scores by experts
    (`mbgraph.nn.Experts`), its own :math:`E_s = C_s` and for every other k :math:`E_k = 0.01 \operatorname{proj}(C_k |
    C_s)`:

    .. math::
        y_s(u, i) = 300 \sum_k g_k \langle E_k[u], E_k[i] \rangle, \qquad
        g = \operatorname{softmax}\big([C_s[u]; C_s[i]] W + b\big)

    Losses are BPR of :math:`y_s`, of the parallel embeddings and, for every k, of the unique parts :math:`0.01\, C_k -
    E_k` on pairs of s that k lacks.

    References
    ----------
    Meng et al., CIKM 2023 (arXiv 2308.04807); published code ``MC-CV/PKEF`` at commit af4772f.
    """

    name = "pkef"
    Options = PKEFOptions
    options: PKEFOptions
    ordered = True
    needs_auxiliary = True
    citation = "Meng et al., PKEF, CIKM 2023 (arXiv 2308.04807)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        chosen, count = self.options, len(self.behaviors)
        coefficients = chosen.coefficients or (*[0.0] * (count - 2), 2 / 3, 1 / 3)
        self.layers = chosen.layers_of(self.behaviors)
        weights = chosen.by_behavior("coefficients", coefficients, self.behaviors)
        for name in chosen.not_unique:
            if name not in self.behaviors:
                raise UnknownNameError("behavior in not_unique", name, self.behaviors)
        if not any(coefficients):
            raise UsageError("coefficients of model 'pkef' are all 0", "weigh at least one behavior")
        self.coefficients = {name: chosen.loss_factor * weight for name, weight in weights.items() if weight > 0}
        self.unique = {
            f"{one}-without-{other}": (one, other)
            for one, other in itertools.product(self.coefficients, self.behaviors)
            if one != other and not {one, other} & set(chosen.not_unique)
        }  # groups of pairs of one behavior that another lacks
        self.make_tables(chosen.embedding_dim)
        self.gate_weight = xavier(torch.Generator().manual_seed(self.rng + 1), 2 * chosen.embedding_dim, count)
        self.gate_bias = nn.Parameter(torch.zeros(count))
        self._means = self.relations.replace(norm="left")

    def propagated(self, relations: Relations) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """Return the parallel and the cascade embeddings of all nodes per behavior: 2 x K x ((U, D), (I, D))."""
        made: tuple[dict[str, Rows], dict[str, Rows]] = ({}, {})
        start: Rows = self.tables
        for behavior, count in self.layers.items():
            read = partial(hop, relations[behavior], row_dtype=self.options.row_dtype, space=self.space)
            alone, layer = total_alone, total = self.tables, start
            for _ in range(count):
                alone = rows_added(read(*alone), alone)
                summed = read(*layer)
                layer = rows_added(summed, layer)
                users, items = (projected(*pair, self.options.fused) for pair in zip(alone, summed, strict=True))
                layer = rows_added(layer, (users, items))
                total_alone, total = rows_added(total_alone, alone), rows_added(total, layer)
            made[0][behavior], made[1][behavior] = total_alone, total
            start = rows_added(layer, start)
        return made

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return the cascade's embeddings of all nodes, the target's as final ones; the score is not their product."""
        _, cascade = self.propagated(self._means if graph is None else self.other_relations(graph).replace(norm="left"))
        return Encoded(*cascade[self.target], cascade)

    def experts(self, behavior: str, cascade: Mapping[str, Rows]) -> Experts:
        """Return what scores a behavior, made of the cascade's embeddings."""
        others = [rows for name, rows in cascade.items() if name != behavior]
        gate, chosen = (self.gate_weight, self.gate_bias), self.options
        return Experts.of(cascade[behavior], others, *gate, share=chosen.shared, scale=chosen.scale)

    @torch.no_grad()
    def scorer(self, graph: GraphLike | None = None) -> BlockScorer:  # type: ignore[override]
        """Return a scorer whose blocks are one product of embeddings and a gate over experts."""
        cascade = self.encode(graph).behaviors
        return BlockScorer(self.experts(self.target, cascade).scores, self.num_users, self.num_items)

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> RaggedBatches:
        """Return triples of every behavior with a weight, and of its pairs that another behavior lacks."""
        relations = {name: self.relations[name] for name in (*self.coefficients, self.target)}
        relations |= {group: self.relations.minus(*pair) for group, pair in self.unique.items()}
        groups = {name: relation.keys() for name, relation in relations.items() if relation.num_edges}
        count, users = self.options.positives_per_user, self.options.users_per_epoch
        return RaggedBatches(dataset, groups, training, per_user=count, users_per_epoch=users, rng=rng)

    def step(self, batch: RaggedBatch, context: StepContext) -> StepOutputs:
        """Return the weighted losses of experts, parallel embeddings and unique parts."""
        chosen = self.options
        parallel, cascade = self.propagated(self._means)
        losses: dict[str, Tensor] = {}
        rows = {name: batch.rows(name) for name in self.coefficients if name in batch.groups}  # 3 x (B,)
        margins = {name: self.experts(name, cascade).margin(*own) for name, own in rows.items()}  # (B,) or (B, n)
        for behavior, margin in margins.items():
            alone = chosen.scale * triple_margin(*triple_at(parallel[behavior], rows[behavior]))
            losses[f"expert.{behavior}"] = self.coefficients[behavior] * mean_of_rows(bpr(margin, gamma=0))
            losses[f"parallel.{behavior}"] = self.coefficients[behavior] * mean_of_rows(bpr(alone, gamma=0))
        for group, (one, other) in self.unique.items():
            if group in batch.groups:
                left = [rejected(*pair) for pair in zip(cascade[other], cascade[one], strict=True)]  # (U, D), (I, D)
                margin = chosen.scale * chosen.shared**2 * triple_margin(*triple_at(left, batch.rows(group)))
                losses[f"unique.{group}"] = self.coefficients[one] * mean_of_rows(bpr(margin, gamma=0))
        nodes = batch.distinct("user", self.target)
        return StepOutputs(
            self.target,
            losses=losses,
            risks={behavior: bpr(margin, gamma=0).mean() for behavior, margin in margins.items() if len(margin)},
            margins={behavior: margin for behavior, margin in margins.items() if len(margin)},
            anchors=lambda: {"user": {name: rows[0][nodes] for name, rows in cascade.items()}},
            triples=lambda: {name: triple_at(cascade[name], own) for name, own in rows.items()},
            ego=partial(self.ego_triples, {self.target: batch.rows(self.target)}),
            tables=self.tables,
            parameters={"gate": self.gate_weight},
        )
