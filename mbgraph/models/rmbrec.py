"""RMBRec: robust multi-behavior recommendation (arXiv 2601.08705), in three variants.

The paper and its published code differ in a dozen points, so the variant is part of the model's name:

* ``"mbgraph"``: the published mathematics without its accidents. Users who lack a behavior are left out of its risk
  instead of counting as a constant, and the padding node is gone.
* ``"official"``: the published code, padded rows included.
* ``"paper"``: the equations as printed; what they leave open (the encoder's depth, norms and layer sum) as published.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, NonNegative, TrainingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import BehaviorEncoder, bpr, mean_fusion, mean_of_rows, triple_margin
from mbgraph.nn.lightgcn import At
from mbgraph.nn.relations import GraphLike
from mbgraph.regularizers import L2, InfoNCE, Regularizer, REx, StepOutputs
from mbgraph.regularizers.outputs import Triple

__all__ = ["RMBRec"]


class RMBRecOptions(EmbeddingOptions):
    """Options of `RMBRec`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"padding": True, "gamma": 1e-10},
        "paper": {},
    }

    variant: Literal["mbgraph", "official", "paper"] = "mbgraph"
    """Preset of the options below, of training and of the regularizers."""
    layer_norm: bool = True
    """Divide every propagated row by its Euclidean norm."""
    combine: Literal["sum", "mean"] = "sum"
    """How layers 0..L become one embedding."""
    padding: bool = False
    """Keep the published code's padding node: users who lack a behavior become a row of it, which adds ``ln 2`` to the
    sum of that behavior's losses and stays in the divisor."""
    gamma: NonNegative = 0.0
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""

    def training(self) -> TrainingOptions:
        """Return batches of 1,024 users, Adam 1e-3 with coupled weight decay (mbgraph, official)."""
        if self.variant == "paper":
            return TrainingOptions(history="behavior")
        return TrainingOptions(weight_decay=1e-3)

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return RRM, ORM and L2 as the variant defines them."""
        if self.variant == "paper":
            contrast = InfoNCE(
                direction="other", negatives="intra", include_positive=False, reduce_behaviors="mean"
            )  # Eq. 3: the auxiliary row is the anchor and meets rows of its own behavior
            # Eq. 10 leaves lambda open; half of the published weight decay is the same pull on the tables.
            return contrast, REx(unbiased=False), L2(weight=5e-4, on="tables")
        return InfoNCE(), REx(), L2(weight=1e-3, on="propagated")


@MODELS.register("rmbrec")
class RMBRec(EmbeddingRecommender):
    r"""Per-behavior LightGCN, user-side contrast with the target, equal risks across behaviors, mean fusion.

    .. math:: \mathcal L = \mathcal L_{main} + \lambda_1 \mathcal L_{RRM} + \lambda_2 \mathcal L_{ORM} + \text{L2}

    The last three are regularizers (`InfoNCE`, `REx`, `L2`), those of ``options.regularizers()``.

    References
    ----------
    RMBRec Eq. 1-11 and Algorithm 1; published code at commit 5e7827c.
    """

    name = "rmbrec"
    reads_blocks = True
    Options = RMBRecOptions
    options: RMBRecOptions
    needs_auxiliary = True
    citation = "Cai et al., RMBRec, WWW 2026 (arXiv 2601.08705)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        chosen = self.options
        self.encoder = BehaviorEncoder(
            self.relations,
            embedding_dim=chosen.embedding_dim,
            num_layers=chosen.num_layers,
            layer_norm=chosen.layer_norm,
            combine=chosen.combine,
            padding=int(chosen.padding),
            backend=chosen.backend,
            row_dtype=chosen.row_dtype,
            rng=self.rng,
        )

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """User table and item table, the padding row last where there is one."""
        return self.encoder.tables

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return fused and per-behavior embeddings of the real nodes (Eq. 1 and 8)."""
        other = None if graph is None else self.other_relations(graph)
        behaviors = {
            behavior: (users[: self.num_users], items[: self.num_items])
            for behavior, (users, items) in self.encoder(other).items()
        }
        users = mean_fusion(users for users, _ in behaviors.values())
        items = mean_fusion(items for _, items in behaviors.values())
        return Encoded(users, items, behaviors)

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Run Algorithm 1, lines 5-17, for one batch.

        Returns
        -------
        StepOutputs
            ``losses["main"]`` is Eq. 10 without its norm term; ``risks`` are Eq. 2.
        """
        padding = (self.num_users, self.num_items) if self.options.padding else None
        rows = {behavior: batch.rows(behavior, padding) for behavior in self.behaviors}  # K x 3 x (B_b,)
        users, positives, negatives = rows[self.target]
        # (N,) users with a target edge, the padding node once
        anchors = batch.distinct("user", self.target, None if padding is None else padding[0])
        at_users: dict[str, dict[str, Tensor]] = {}
        at_items: dict[str, dict[str, Tensor]] = {}
        for behavior, own in rows.items():
            at_users[behavior] = {"anchor": anchors, "target": users}
            at_items[behavior] = {"target positive": positives, "target negative": negatives.flatten()}
            if behavior != self.target:
                at_users[behavior] |= {"own": own[0]}
                at_items[behavior] |= {"own positive": own[1], "own negative": own[2].flatten()}
        encoded = self.encoder.at(at_users, at_items)

        def triple(at: At, which: str, shape: torch.Size) -> Triple:
            negative = at.items[f"{which} negative"]
            return at.users[which], at.items[f"{which} positive"], negative.view(*shape, negative.shape[-1])

        triples = {
            behavior: triple(at, "target" if behavior == self.target else "own", rows[behavior][2].shape)
            for behavior, at in encoded.items()
        }  # K x ((B_b, D), (B_b, D), (B_b, D) or (B_b, n, D))
        fused = [triple(at, "target", negatives.shape) for at in encoded.values()]
        margins = {behavior: triple_margin(*triple) for behavior, triple in triples.items() if len(triple[0])}
        main = bpr(triple_margin(*(mean_fusion(parts) for parts in zip(*fused, strict=True))), self.options.gamma)
        return StepOutputs(
            self.target,
            losses={"main": mean_of_rows(main)},
            risks={behavior: bpr(margin, self.options.gamma).mean() for behavior, margin in margins.items()},
            margins=margins,
            anchors={"user": {behavior: at.users["anchor"] for behavior, at in encoded.items()}},
            anchor_weights=lambda: {"user": self.encoder.relations.presence("user", anchors, self.tables[0].dtype)},
            alignment=lambda: {"user": {name: self._alignment(name, anchors) for name in self.behaviors}},
            alignment_levels=lambda: self.alignment_levels,
            triples=triples,
            ego=partial(self.ego_triples, {self.target: rows[self.target]}),
            tables=self.tables,
        )

    def _alignment(self, behavior: str, users: Tensor) -> Tensor:
        """Return how much a behavior says about what users buy, 0 for the padding node: (N,) -> float (N,)."""
        return torch.nn.functional.pad(self.alignment_like(self.tables[0])[behavior], (0, 1))[users]
