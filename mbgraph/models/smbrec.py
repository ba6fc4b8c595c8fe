"""S-MBRec: behaviors fused by what a user does, and contrasted with the target one by one, like the rays of a star."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, Positive, TrainingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import linear, mean_of_rows, propagate_each, sampled_softmax, triple_margin, weighted_fusion
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, InfoNCE, Regularizer, StepOutputs

__all__ = ["SMBRec"]


class SMBRecOptions(EmbeddingOptions):
    """Options of `SMBRec`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {
            "init": "xavier",
            "embedding_dim": 256,
            "projection": "linear",
            "negative_projection": True,
            "score": "behaviors",
            "round_shares": True,
            "anchors": "rows",
            "user_temperatures": (1.0,),
        },
    }

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, which projects negatives by other weights than positives and ranks by
    embeddings that its main loss never compares; ``mbgraph`` ranks by what it trains."""
    init: Literal["normal", "xavier"] = "normal"
    """How tables start: normal with standard deviation 0.1, from which training takes off sooner, or Xavier."""
    projection: Literal["mlp", "linear"] = "mlp"
    """What follows the fusion: of users a layer with PReLU and of items two layers, or a matrix of each."""
    negative_projection: bool = False
    """Project negative items by weights of their own."""
    score: Literal["projected", "behaviors"] = "projected"
    """Rank by projected embeddings, or by the sum of the behaviors' own products."""
    round_shares: bool = False
    """Round the shares of a user's behaviors to two decimals."""
    anchors: Literal["nodes", "rows"] = "nodes"
    """What is contrasted: the batch's distinct nodes, or those of its rows, where a node meets itself as a negative."""
    user_temperatures: tuple[Positive, ...] = ()
    """Temperatures of the users' contrast with the first auxiliary behaviors, in order; with those that follow it is
    0.2, or 0.5 in ``official``."""
    item_temperatures: tuple[Positive, ...] = ()
    """The same for items, where it is 0.2 in both."""

    def training(self) -> TrainingOptions:
        """Return target edges with five negatives from outside the user's target history."""
        shared: dict[str, Any] = {"sampler": "per-edge", "history": "target", "negatives": 5}
        if self.variant == "official":
            return TrainingOptions(batch_size=4096, lr=1e-4, **shared)
        return TrainingOptions(batch_size=1024, **shared)

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the contrasts of users and of items, and L2 on the batch's table rows."""
        rest = 0.5 if self.variant == "official" else 0.2
        users = InfoNCE(label="users", weight=0.2, temperature=rest, temperatures=self.user_temperatures)
        items = InfoNCE(label="items", weight=0.2, temperature=0.2, temperatures=self.item_temperatures, side="item")
        return users, items, L2(weight=1e-4, on="ego")


@MODELS.register("smbrec")
class SMBRec(EmbeddingRecommender):
    r"""LightGCN per behavior, users fused by weights of their own, items by a projection of all behaviors.

    With :math:`n_{ub}` the share of behavior b among the user's pairs and :math:`w` learned,

    .. math::
        a_{ub} = \operatorname{softmax}_b(w_b\, n_{ub}), \qquad
        z_u = f\Big(\sum_b a_{ub} u_b\Big), \qquad z_i = g\big([i_1; \dots; i_K]\big), \qquad
        \mathcal L = \operatorname{mean} \log\Big(1 + \sum_{k=1}^{5} e^{z_u \cdot z_{j_k} - z_u \cdot z_i}\Big)

    beside contrasts of the target with every auxiliary behavior, for users and for items (`InfoNCE`).

    References
    ----------
    Gu et al., IJCAI 2022; published code ``GuShuyun/MBRec``. The paper also takes users who bought alike as positives
    of the contrast; the published code does not, and neither does this.
    """

    name = "smbrec"
    Options = SMBRecOptions
    options: SMBRecOptions
    needs_auxiliary = True
    citation = "Gu et al., S-MBRec, IJCAI 2022"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        width, count = self.options.embedding_dim, len(self.behaviors)
        self.make_tables(width, std=0.1 if self.options.init == "normal" else None)
        self.behavior_weight = nn.Parameter(torch.tensor([*[0.6 / (count - 1)] * (count - 1), 0.4]))  # (K,)
        generator = torch.Generator().manual_seed(self.rng + 1)
        if self.options.projection == "linear":
            self.of_users: nn.Module = linear(width, width, generator, bias=False)
        else:
            self.of_users = nn.Sequential(linear(width, width, generator), nn.PReLU())
        self.of_items = self._item_projection(generator)
        self.of_negatives = self._item_projection(generator) if self.options.negative_projection else None
        self._own_shares: Tensor
        self.register_buffer("_own_shares", self._shares(self.relations), persistent=False)

    def _item_projection(self, generator: torch.Generator) -> nn.Module:
        width = self.options.embedding_dim
        inputs = width * len(self.behaviors)
        if self.options.projection == "linear":
            return linear(inputs, width, generator, bias=False)
        # a bias of the last layer would be the same for all items, and cancel in every margin
        last = linear(width, width, generator, bias=False)
        return nn.Sequential(linear(inputs, width, generator), nn.PReLU(), last)

    def _shares(self, relations: Relations) -> Tensor:
        """Return the share of each behavior among a user's pairs, 0 for users without any: float64 (U, K)."""
        shares = relations.shares("user")
        return shares.round(decimals=2) if self.options.round_shares else shares

    def _per_behavior(self, relations: Relations, **changes: Any) -> list[Rows]:
        return propagate_each(
            list(relations.values()), *self.tables, self.options.num_layers, space=self.space, **changes
        )

    def _fused_users(self, pairs: list[Rows], shares: Tensor) -> Tensor:
        """Return projected users: K x (N, D), (N, K) -> (N, D)."""
        attention = torch.softmax(self.behavior_weight * shares.to(self.behavior_weight), 1)  # (N, K)
        projected: Tensor = self.of_users(weighted_fusion([users for users, _ in pairs], attention))
        return projected

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return what ranks, and the behaviors' embeddings, of all nodes."""
        relations = self.relations if graph is None else self.other_relations(graph)
        pairs = self._per_behavior(relations)
        behaviors = dict(zip(self.behaviors, pairs, strict=True))
        joined = torch.cat([items for _, items in pairs], 1)  # (I, K D)
        if self.options.score == "behaviors":
            return Encoded(torch.cat([users for users, _ in pairs], 1), joined, behaviors)
        shares = self._own_shares if graph is None else self._shares(relations)
        return Encoded(self._fused_users(pairs, shares), self.of_items(joined), behaviors)

    def sampled_behaviors(self) -> tuple[str, ...]:
        """Return the target."""
        return (self.target,)

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Return the loss of the target's triples, and its users and positive items in every behavior."""
        rows, places = batch.rows(self.target), batch.places(self.target)
        # the batch's distinct nodes are propagated and projected, and rows are picked among them
        nodes = tuple(batch.distinct(side, self.target) for side in ("user", "item", "negative"))
        at = (nodes[0], torch.cat(nodes[1:]))
        pairs = self._per_behavior(self.relations, at=[at] * len(self.behaviors), row_dtype=self.options.row_dtype)
        parts = [items.split([len(nodes[1]), len(nodes[2])]) for _, items in pairs]  # K x ((M, D), (J, D))
        joined, against = (torch.cat(part, 1) for part in zip(*parts, strict=True))  # (M, K D), (J, K D)
        fused = self._fused_users(pairs, self._own_shares[nodes[0]])  # (N, D)
        of_negatives = self.of_items if self.of_negatives is None else self.of_negatives
        users, positives, negatives = (
            of_nodes.index_select(0, place.flatten()).view(*place.shape, of_nodes.shape[1])
            for of_nodes, place in zip((fused, self.of_items(joined), of_negatives(against)), places, strict=True)
        )  # (B, D), (B, D), (B, [n,] D)
        margin = triple_margin(users, positives, negatives)  # (B,) or (B, n)
        whole = self.options.anchors == "nodes"
        contrasted = dict(zip(("user", "item"), nodes if whole else rows, strict=False))  # 2 x (N,)

        def anchors() -> dict[str, dict[str, Tensor]]:
            found = {"user": [pair[0] for pair in pairs], "item": [part[0] for part in parts]}  # 2 x K x (N, D)
            picked = {
                side: values if whole else [rows[place] for rows in values]
                for (side, values), place in zip(found.items(), places, strict=False)
            }
            return {side: dict(zip(self.behaviors, values, strict=True)) for side, values in picked.items()}

        dtype, alignment = self.tables[0].dtype, partial(self.alignment_like, self.tables[0])
        return self.target_outputs(
            rows,
            (users, positives, negatives),
            margin,
            mean_of_rows(sampled_softmax(margin)),
            anchors=anchors,
            anchor_weights=lambda: {
                side: self.relations.presence(side, own, dtype) for side, own in contrasted.items()
            },
            alignment=lambda: {"user": {name: each[contrasted["user"]] for name, each in alignment().items()}},
            alignment_levels=lambda: self.alignment_levels,
            parameters={name: entry for name, entry in self.named_parameters() if not name.endswith("_embedding")},
        )
