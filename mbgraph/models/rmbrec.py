"""RMBRec: robust multi-behavior recommendation (arXiv 2601.08705), in three variants.

The paper and its published code differ in a dozen points, so the variant is part of the model's name:

* ``"mbgraph"``: the published mathematics without its accidents. Users who lack a behavior are left out of its risk
  instead of counting as a constant, and the padding node is gone.
* ``"official"``: the published code, padded rows included.
* ``"paper"``: the equations as printed; what they leave open (the encoder's depth, norms and layer sum) as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError
from mbgraph.evaluation.ranking import EmbeddingScorer
from mbgraph.models.base import MODELS, Batch, Encoded, Recommender, TrainingDefaults
from mbgraph.nn import BehaviorEncoder, bpr, mean_fusion
from mbgraph.nn.losses import triple_margin
from mbgraph.regularizers import L2, InfoNCE, Regularizer, REx, StepOutputs

if TYPE_CHECKING:
    import dgl

__all__ = ["RMBRec"]


@dataclass(frozen=True)
class _Preset:
    """Where the variants differ, before regularizers."""

    layer_norm: bool
    combine: str
    padding: bool
    gamma: float
    weight_decay: float
    history: str


_PRESETS: Mapping[str, _Preset] = {
    "mbgraph": _Preset(True, "sum", False, 0.0, 1e-3, "all"),
    "official": _Preset(True, "sum", True, 1e-10, 1e-3, "all"),
    "paper": _Preset(True, "sum", False, 0.0, 0.0, "behavior"),
}


@MODELS.register("rmbrec")
class RMBRec(Recommender):
    r"""Per-behavior LightGCN, user-side contrast with the target, equal risks across behaviors, mean fusion.

    .. math:: \mathcal L = \mathcal L_{main} + \lambda_1 \mathcal L_{RRM} + \lambda_2 \mathcal L_{ORM} + \text{L2}

    The last three are regularizers (`InfoNCE`, `REx`, `L2`): see `default_regularizers`.

    Parameters
    ----------
    graph : DGLGraph
        Train heterograph, one edge type per behavior.
    target : str
        Behavior to predict.
    variant : {"mbgraph", "official", "paper"}
        Preset of all options below and of the regularizers.
    embedding_dim, num_layers : int
        Width of the tables and number of propagation steps.
    layer_norm, combine : bool, str
        See `mbgraph.nn.LightGCN`; None takes the variant's.
    padding : bool
        Keep the published code's padding node: users who lack a behavior become a row of it, which adds ``ln 2`` to
        the sum of that behavior's losses and stays in the divisor. None takes the variant's.
    gamma : float
        See `mbgraph.nn.bpr`; None takes the variant's.
    backend : str
        See `mbgraph.nn.propagation.Relation`.
    row_dtype : {"float32", "bfloat16"}
        See `mbgraph.nn.BehaviorEncoder`.
    rng : int
        Seed of the initialisation.

    References
    ----------
    RMBRec Eq. 1-11 and Algorithm 1; published code at commit 5e7827c.
    """

    name = "rmbrec"
    variants: ClassVar[tuple[str, ...]] = tuple(_PRESETS)

    def __init__(
        self,
        graph: dgl.DGLGraph,
        target: str,
        *,
        variant: str = "mbgraph",
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_norm: bool | None = None,
        combine: str | None = None,
        padding: bool | None = None,
        gamma: float | None = None,
        backend: str = "auto",
        row_dtype: str = "float32",
        rng: int = 0,
    ) -> None:
        super().__init__(graph, target)
        if variant not in _PRESETS:
            raise UnknownNameError("variant of rmbrec", variant, _PRESETS)
        preset = _PRESETS[variant]
        self.variant, self.embedding_dim, self.num_layers = variant, embedding_dim, num_layers
        self.backend, self.row_dtype = backend, row_dtype
        self.layer_norm = preset.layer_norm if layer_norm is None else layer_norm
        self.combine = preset.combine if combine is None else combine
        self.padding = preset.padding if padding is None else padding
        self.gamma = preset.gamma if gamma is None else gamma
        self.encoder = BehaviorEncoder(
            graph,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            layer_norm=self.layer_norm,
            combine=self.combine,
            padding=int(self.padding),
            backend=backend,
            row_dtype=row_dtype,
            rng=rng,
        )
        self.behaviors = self.encoder.behaviors

    @property
    def training_defaults(self) -> TrainingDefaults:
        """Batches of 1,024 users, Adam 1e-3 with coupled weight decay (mbgraph, official)."""
        preset = _PRESETS[self.variant]
        return TrainingDefaults(weight_decay=preset.weight_decay, history=preset.history)

    def default_regularizers(self) -> list[Regularizer]:
        """Return RRM, ORM and L2 as the variant defines them."""
        if self.variant == "paper":
            contrast = InfoNCE(
                direction="other", negatives="intra", include_positive=False, reduce_behaviors="mean"
            )  # Eq. 3: the auxiliary row is the anchor and meets rows of its own behavior
            # Eq. 10 leaves lambda open; half of the published weight decay is the same pull on the tables.
            return [contrast, REx(unbiased=False), L2(weight=5e-4, on="tables")]
        return [InfoNCE(), REx(), L2(weight=1e-3, on="propagated")]

    def encode(self, graph: dgl.DGLGraph | None = None) -> Encoded:
        """Return fused and per-behavior embeddings of the real nodes (Eq. 1 and 8)."""
        behaviors = {
            behavior: (users[: self.num_users], items[: self.num_items])
            for behavior, (users, items) in self.encoder(graph).items()
        }
        users = mean_fusion(users for users, _ in behaviors.values())
        items = mean_fusion(items for _, items in behaviors.values())
        return Encoded(users, items, behaviors)

    @torch.no_grad()
    def scorer(self, graph: dgl.DGLGraph | None = None) -> EmbeddingScorer:
        """Return the dot-product scorer of the fused embeddings (Eq. 9)."""
        encoded = self.encode(graph)
        return EmbeddingScorer(encoded.users, encoded.items)

    def step(self, batch: Batch, *, double_backward: bool = False) -> StepOutputs:
        """Run Algorithm 1, lines 5-17, for one batch.

        Returns
        -------
        StepOutputs
            ``losses["main"]`` is Eq. 10 without its norm term; ``risks`` are Eq. 2.
        """
        rows = {behavior: self._triple_rows(batch, behavior) for behavior in self.behaviors}
        own_users, own_positives, own_negatives = rows[self.target]
        contrasted = torch.unique(own_users)  # (M,) users with a target edge, the padding node once
        user_rows, item_rows = {}, {}
        for behavior, (users, positives, negatives) in rows.items():
            at_users, at_items = [contrasted, own_users], [own_positives, own_negatives]
            if behavior != self.target:
                at_users.append(users)
                at_items += [positives, negatives]
            user_rows[behavior], item_rows[behavior] = torch.cat(at_users), torch.cat(at_items)
        encoded = self.encoder.rows(user_rows, item_rows, fast=not double_backward)

        triples, fused, anchors = {}, [], {}
        at_target, tables = len(own_users), (self.encoder.user_embedding, self.encoder.item_embedding)
        for behavior, (users, items) in encoded.items():
            size = len(rows[behavior][0])
            own_sizes = [] if behavior == self.target else [size]
            # split, not sliced: the derivative of a slice is a table of zeros around it
            anchors[behavior], *users_of = users.split([len(contrasted), at_target, *own_sizes])
            items_of = items.split([at_target, at_target, *own_sizes, *own_sizes])
            fused.append((users_of[0], *items_of[:2]))  # 3 x (B_t, D)
            triples[behavior] = (users_of[-1], *items_of[-2:])  # 3 x (B_b, D)
        margins = {behavior: triple_margin(*triple) for behavior, triple in triples.items() if len(triple[0])}
        main = bpr(triple_margin(*(mean_fusion(parts) for parts in zip(*fused, strict=True))), self.gamma)  # (B_t,)
        return StepOutputs(
            target=self.target,
            losses={"main": main.mean() if len(main) else main.sum()},
            risks={behavior: bpr(margin, self.gamma).mean() for behavior, margin in margins.items()},
            margins=margins,
            users=anchors,
            triples=triples,
            ego={self.target: (tables[0][own_users], tables[1][own_positives], tables[1][own_negatives])},
            tables=tables,
            user_mask={behavior: torch.isin(contrasted, users) for behavior, (users, _, _) in rows.items()},
        )

    def _triple_rows(self, batch: Batch, behavior: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return users, positive items and negative items of a behavior's triples, 3 x (B_b,)."""
        positives, negatives = batch.positives[behavior], batch.negatives[behavior]
        present = positives >= 0
        if self.padding:
            absent = ~present
            return (
                batch.users.masked_fill(absent, self.num_users),
                positives.masked_fill(absent, self.num_items),
                negatives.masked_fill(absent, self.num_items),
            )
        return batch.users[present], positives[present], negatives[present]

    def options(self) -> dict[str, Any]:
        """Return the resolved options."""
        return {**super().options(), "variant": self.variant}
