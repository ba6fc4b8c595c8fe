"""PKEF: a cascade corrected by what each behavior says alone, and a gate over experts of all behaviors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mbgraph._kernels import Workspace
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.evaluation.scorers import BlockScorer
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, Layers, NonNegative, Positive, TrainingOptions
from mbgraph.models.ragged import RaggedBatch, RaggedBatches
from mbgraph.nn import bpr, mean_of_rows, propagate, triple_margin
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, Regularizer, StepOutputs

__all__ = ["PKEF"]

_TINY = 1e-12  # added to squared norms
_SCORES = 2**24  # numbers that a block of scores may take per expert


class PKEFOptions(EmbeddingOptions):
    """Options of `PKEF`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"users_per_epoch": 10_000},
    }

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, whose epochs read 10,000 users; ``mbgraph`` reads all of them."""
    num_layers: Layers = 4
    """Propagation steps of the first behavior; each other one has 1."""
    layers: tuple[Layers, ...] = ()
    """Propagation steps of each behavior, in order; empty: ``num_layers`` of the first, 1 of each other."""
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

    where the next behavior starts from the last layer plus what this one started from. Behavior s scores by experts:
    its own product, and for every other k the product of :math:`0.01 \operatorname{proj}(C_k | C_s)`. All of these
    are multiples of one product, so a score is

    .. math::
        y_s(u, i) = 300\, \langle C_s[u], C_s[i] \rangle \sum_k g_k h_k(u) h_k(i), \qquad
        g = \operatorname{softmax}\big([C_s[u]; C_s[i]] W + b\big)

    with :math:`h_s = 1` and :math:`h_k = 0.01 \langle C_k, C_s \rangle / \lVert C_s \rVert^2`. Losses are BPR of
    :math:`y_s`, of the parallel embeddings and, for every k, of the unique parts :math:`0.01 (C_k -
    \operatorname{proj}(C_k | C_s))` on pairs of s that k lacks.

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
        layers = chosen.layers or (chosen.num_layers, *[1] * (count - 1))
        coefficients = chosen.coefficients or (*[0.0] * (count - 2), 2 / 3, 1 / 3)
        self.layers = chosen.by_behavior("layers", layers, self.behaviors)
        weights = chosen.by_behavior("coefficients", coefficients, self.behaviors)
        for name in chosen.not_unique:
            if name not in self.behaviors:
                raise UnknownNameError("behavior in not_unique", name, self.behaviors)
        if not any(coefficients):
            raise UsageError("coefficients of model 'pkef' are all 0", "weigh at least one behavior")
        self.coefficients = {name: weight for name, weight in weights.items() if weight > 0}
        width = chosen.embedding_dim
        self.make_tables(width)
        generator = torch.Generator().manual_seed(self.rng + 1)
        self.gate_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2 * width, count), generator=generator))
        self.gate_bias = nn.Parameter(torch.zeros(count))
        self._space = Workspace()
        self._means = self.relations.replace(norm="left")

    # --- embeddings -------------------------------------------------------------------------------------------------

    def _hop(self, relation: Relation, rows: Rows) -> Rows:
        return propagate(relation, *rows, 1, weights=(0.0, 1.0), row_dtype=self.options.row_dtype, space=self._space)

    def propagated(self, relations: Relations) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """Return the parallel and the cascade embeddings of all nodes per behavior: 2 x K x ((U, D), (I, D))."""
        parallel: dict[str, Rows] = {}
        cascade: dict[str, Rows] = {}
        start: Rows = self.tables
        for behavior, count in self.layers.items():
            relation = relations[behavior]
            alone, layer = self.tables, start
            total_alone, total = alone, layer
            for _ in range(count):
                alone = _added(self._hop(relation, alone), alone)
                summed = self._hop(relation, layer)
                taken = (
                    self.options.fused * _along(own, there) * there for own, there in zip(alone, summed, strict=True)
                )
                layer = _added(_added(summed, layer), taken)
                total_alone, total = _added(total_alone, alone), _added(total, layer)
            parallel[behavior], cascade[behavior] = total_alone, total
            start = _added(layer, start)
        return parallel, cascade

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return the cascade's embeddings of all nodes, the target's as final ones; the score is not their product."""
        relations = self._means if graph is None else self.other_relations(graph).replace(norm="left")
        _, cascade = self.propagated(relations)
        return Encoded(*cascade[self.target], cascade)

    def _experts(self, behavior: str, cascade: dict[str, Rows]) -> tuple[Rows, Rows]:
        """Return what a behavior's score is made of: logits of the gate and factors h: 2 x ((U, K), (I, K))."""
        own = cascade[behavior]
        others = [cascade[name] for name in cascade if name != behavior]  # the gate's first column is the behavior's
        factors = tuple(
            torch.cat(
                [torch.ones_like(rows[:, :1]), *(self.options.shared * _along(other[side], rows) for other in others)],
                1,
            )
            for side, rows in enumerate(own)
        )
        of_users, of_items = self.gate_weight.chunk(2)  # 2 x (D, K)
        return (own[0] @ of_users, own[1] @ of_items + self.gate_bias), (factors[0], factors[1])

    @torch.no_grad()
    def scorer(self, graph: GraphLike | None = None) -> BlockScorer:  # type: ignore[override]
        """Return a scorer whose blocks are one product of embeddings and a gate over experts."""
        encoded = self.encode(graph)
        logits, factors = self._experts(self.target, dict(encoded.behaviors))
        block = max(1, _SCORES // max(1, self.num_items))

        def scores(users: Tensor) -> Tensor:
            made = []
            for rows in users.to(encoded.users.device).split(block):
                gate = torch.softmax(logits[0][rows].T.unsqueeze(2) + logits[1].T.unsqueeze(1), 0)  # (K, B, I)
                mixed = sum(
                    gate[k].mul_(factors[0][rows, k].unsqueeze(1)).mul_(factors[1][:, k]) for k in range(len(gate))
                )
                made.append(self.options.scale * mixed * (encoded.users[rows] @ encoded.items.T))
            return torch.cat(made) if made else encoded.users.new_zeros(0, self.num_items)

        return BlockScorer(scores, self.num_users, self.num_items)

    # --- training ---------------------------------------------------------------------------------------------------

    def _unique(self) -> Iterator[tuple[str, str, str]]:
        """Yield the pairs of behaviors whose difference is trained on, and the name of their group."""
        for one in self.coefficients:
            for other in self.behaviors:
                if other != one and not {one, other} & set(self.options.not_unique):
                    yield one, other, f"{one}-without-{other}"

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> RaggedBatches:
        """Return triples of every behavior with a weight, and of its pairs that another behavior lacks."""
        relations = [(name, self.relations[name]) for name in dict.fromkeys((*self.coefficients, self.target))]
        relations += [(group, self.relations.minus(one, other)) for one, other, group in self._unique()]
        return RaggedBatches(
            dataset,
            {name: relation.keys() for name, relation in relations if relation.num_edges},
            training,
            per_user=self.options.positives_per_user,
            users_per_epoch=self.options.users_per_epoch,
            rng=rng,
        )

    def step(self, batch: RaggedBatch, context: StepContext) -> StepOutputs:
        """Return the weighted losses of experts, parallel embeddings and unique parts."""
        chosen = self.options
        parallel, cascade = self.propagated(self._means)
        losses: dict[str, Tensor] = {}
        margins = {
            behavior: self._margin(behavior, cascade, batch)
            for behavior in self.coefficients
            if behavior in batch.groups
        }
        for behavior, margin in margins.items():
            alone = chosen.scale * triple_margin(*_picked(parallel[behavior], batch.rows(behavior)))
            losses[f"expert.{behavior}"] = self._loss(behavior, margin)
            losses[f"parallel.{behavior}"] = self._loss(behavior, alone)
        for one, other, group in self._unique():
            if group in batch.groups:
                left = tuple(
                    of_other - _along(of_other, own) * own
                    for of_other, own in zip(cascade[other], cascade[one], strict=True)
                )
                margin = chosen.scale * chosen.shared**2 * triple_margin(*_picked(left, batch.rows(group)))
                losses[f"unique.{group}"] = self._loss(one, margin)
        present = {behavior: margin for behavior, margin in margins.items() if len(margin)}
        return StepOutputs(
            self.target,
            losses=losses,
            risks={behavior: bpr(margin, gamma=0).mean() for behavior, margin in present.items()},
            margins=present,
            anchors=lambda: {
                "user": {name: rows[0][batch.distinct("user", self.target)] for name, rows in cascade.items()}
            },
            triples=lambda: {behavior: _picked(cascade[behavior], batch.rows(behavior)) for behavior in margins},
            ego=partial(self.ego_triples, {self.target: batch.rows(self.target)}),
            tables=self.tables,
            parameters={"gate": self.gate_weight},
        )

    def _loss(self, behavior: str, margin: Tensor) -> Tensor:
        return self.options.loss_factor * self.coefficients[behavior] * mean_of_rows(bpr(margin, gamma=0))

    def _margin(self, behavior: str, cascade: dict[str, Rows], batch: RaggedBatch) -> Tensor:
        """Return the experts' score of the positive minus that of the negative item: (B,) or (B, n)."""
        logits, factors = self._experts(behavior, cascade)
        users, *items = batch.rows(behavior)
        own = cascade[behavior][0][users]  # (B, D)
        made = []
        for item in items:
            many = (slice(None), *[None] * (item.ndim - 1))  # one user row per negative
            gate = torch.softmax(logits[0][users][many] + logits[1][item], -1)  # (B, K)
            mixed = (gate * factors[0][users][many] * factors[1][item]).sum(-1)
            made.append(mixed * torch.linalg.vecdot(own[many], cascade[behavior][1][item]))
        positive = made[0] if made[0].ndim == made[1].ndim else made[0].unsqueeze(1)
        return self.options.scale * (positive - made[1])


def _along(rows: Tensor, other: Tensor) -> Tensor:
    """Return how far rows point along others, in lengths of the others: (N, D), (N, D) -> (N, 1)."""
    return (rows * other).sum(1, keepdim=True) / (other.square().sum(1, keepdim=True) + _TINY)


def _added(one: Any, other: Any) -> Rows:
    users, items = (left + right for left, right in zip(one, other, strict=True))
    return users, items


def _picked(sides: Any, rows: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    users, positives, negatives = rows
    return sides[0][users], sides[1][positives], sides[1][negatives]
