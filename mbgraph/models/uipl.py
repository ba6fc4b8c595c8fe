"""UIPL: invariant preferences across environments, each a subset of the behaviors."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.batches import TripleBatches
from mbgraph.models.context import StepContext
from mbgraph.models.extended import ExtendedBatches, UIPLBatch, standard_normal, with_noise
from mbgraph.models.options import EmbeddingOptions, NonNegative, Positive, TrainingOptions
from mbgraph.models.triples import ANY
from mbgraph.nn import Relation, VariationalAutoencoder, bpr, environments, label_entropies, mean_of_rows
from mbgraph.nn.autoencoder import prior_divergence
from mbgraph.nn.fusion import weighted_fusion
from mbgraph.nn.propagation import Rows, propagate_each
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.nn.triples import negative_columns, triple_margin
from mbgraph.random import stream
from mbgraph.regularizers import L2, Regularizer, StepOutputs, infonce_among

__all__ = ["UIPL"]


class UIPLOptions(EmbeddingOptions):
    """Options of `UIPL`."""

    presets = {"mbgraph": {}, "official": {"padding": True, "gamma": 1e-10, "sampled_scores": True}}  # noqa: RUF012

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, with padded rows and scores that draw noise; ``mbgraph`` leaves users who
    lack a behavior out of its terms and scores with the mean."""
    num_layers: Annotated[int, Field(ge=0, le=64)] = 2
    """Propagation steps per environment."""
    environments: Literal["subsets", "singles"] = "subsets"
    """``subsets``: every non-empty set of behaviors, 2^K - 1; ``singles``: each and all together, K + 1, cheaper."""
    ranking_weight: NonNegative = 1.0
    """Factor of the BPR loss."""
    prior_weight: NonNegative = 0.01
    """Factor of the divergence of the encoder from the standard normal distribution."""
    orthogonal_weight: NonNegative = 1e-4
    """Factor of the squared product of the invariant and the specific part."""
    cross_weight: NonNegative = 0.01
    """Factor of the cross entropy that the invariant part of every environment must keep low."""
    contrast_weight: NonNegative = 0.01
    """Factor of the contrast between invariant and specific parts."""
    temperature: Positive = 0.1
    """Of that contrast."""
    sampled_scores: bool = False
    """Draw the encoder's noise for scores, too (published code; seeded here), instead of scoring with its mean."""
    padding: bool = False
    """Keep the published code's padding node, see `RMBRec`; its rows start as zeros."""
    gamma: NonNegative = 0.0
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`; of the union and of every environment."""
        return self.num_layers * (behaviors + 2 if self.environments == "singles" else 2**behaviors)

    def training(self) -> TrainingOptions:
        """Return batches of 1,024 users with 4 negatives, Adam with step size 1e-3."""
        return TrainingOptions(negatives=4, patience=9)

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the norms of both tables, not squared, each divided by its rows."""
        return (L2(weight=1e-3, on="tables", power=1, divide_by="rows"),)


@MODELS.register("uipl")
class UIPL(EmbeddingRecommender):
    r"""Users' preferences split into what holds in every environment and what does not.

    An environment e is a set of behaviors, its graph the union of their pairs, the target alone first. With a LightGCN
    of normalised, summed layers,

    .. math::
        P = \operatorname{LGN}(\hat A_{all}, E), \quad x^e = \operatorname{LGN}(\hat A_e, P)_u, \quad
        n^e = \operatorname{VAE}(x^e), \quad a^e = x^e - n^e, \quad
        v_i = \sum_b \frac{d_b(i)}{\sum_{b'} d_{b'}(i)} \operatorname{LGN}(\hat A_b, P)_i

    and :math:`s(u, i) = (\operatorname{mean}_e n^e + a^1) \cdot v_i`. The terms: BPR of :math:`s` on target triples;
    the prior of the VAE; :math:`(n^e \cdot a^e)^2`; the cross entropy of :math:`n^e \cdot v` for pairs of any
    behavior, in every environment; and a contrast of :math:`n^1` with :math:`n^r` of a random r against all
    :math:`a^e` of a batch.

    References
    ----------
    Yan et al., TOIS 2025 (arXiv 2507.14925); published code ``MingshiYan/UIPL`` at commit e7fbd03.
    """

    name = "uipl"
    Options = UIPLOptions
    options: UIPLOptions
    needs_auxiliary = True
    shares: Tensor
    citation = "Yan et al., UIPL, TOIS 2025 (arXiv 2507.14925)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        chosen = self.options
        self.make_tables(chosen.embedding_dim, padding=int(chosen.padding), zero_padding=True)
        self.autoencoder = VariationalAutoencoder(chosen.embedding_dim, rng=self.rng + 1)
        self.environments, shares = self._environments(self.relations)
        self.register_buffer("shares", shares, persistent=False)

    def _environments(self, relations: Relations) -> tuple[dict[tuple[str, ...], Relation], Tensor]:
        """Return the environments, and the share of each behavior in an item's pairs, in their order: (K, I)."""
        padded = relations.padded(int(self.options.padding))
        shares = padded.shares("item", eps=1e-6, dtype=torch.float32)  # (I, K)
        return environments(padded, self.options.environments), shares.flip(1).T.contiguous()

    def _encoded(self, relations: list[Relation], start: Rows, **changes: Any) -> list[Rows]:
        count = self.options.num_layers
        weights = (1.0,) * (count + 1)  # the sum of all layers
        return propagate_each(relations, *start, count, layer_norm=True, weights=weights, space=self.space, **changes)

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> ExtendedBatches:
        """Return triples of the target with one negative and of any behavior with several, and the noise of a step."""
        made = TripleBatches(dataset, (self.target,), training, any_of=self.behaviors, counts={self.target: 1}, rng=rng)
        return ExtendedBatches(made, with_noise(len(self.environments), self.autoencoder.latent))

    def score_noise(self, environment: int, shape: tuple[int, ...]) -> Tensor | None:
        """Return the noise that scores draw in an environment (from 0), None for none: (U, Z)."""
        return standard_normal(stream(self.rng, "scores", environment), shape) if self.options.sampled_scores else None

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return what scores; per behavior, what its environment makes of users and items."""
        own = (self.environments, self.shares)
        sets, shares = own if graph is None else self._environments(self.other_relations(graph))
        (start,) = self._encoded([sets[self.behaviors[::-1]]], self.tables)
        invariant = specific = items = torch.zeros(())
        behaviors = {}
        for number, (names, relation) in enumerate(sets.items()):
            ((at_users, at_items),) = self._encoded([relation], start)
            rows = at_users[: self.num_users]
            noise = self.score_noise(number, (self.num_users, self.autoencoder.latent))
            decoded = self.autoencoder(rows, None if noise is None else noise.to(rows))[2]
            invariant = invariant + decoded
            specific = rows - decoded if number == 0 else specific
            if number < len(self.behaviors):
                behaviors[names[0]] = (rows, at_items[: self.num_items])
                items = items + shares[number].to(rows).unsqueeze(1) * at_items
        return Encoded(invariant / len(sets) + specific, items[: self.num_items], dict(reversed(behaviors.items())))

    def step(self, batch: UIPLBatch, context: StepContext) -> StepOutputs:
        """Return all terms, weighted; risks and margins are those of the invariant part in every environment."""
        chosen, target = self.options, self.target
        padding = (self.num_users, self.num_items) if chosen.padding else None
        kept, own = batch.positions(ANY, padding), batch.positions(target, padding)  # (R,), (B_t,)
        users, positives, negatives = batch.rows(ANY, padding)  # (R,), (R,), (R,) or (R, n)
        rows = batch.rows(target, padding)
        encoded = users if padding else batch.users  # (B,)
        at_items = torch.cat([positives, negatives.flatten(), rows[1], rows[2]])
        relations, count = list(self.environments.values()), len(self.behaviors)
        at = [(encoded, at_items if number < count else at_items[:0]) for number in range(len(relations))]
        (start,) = self._encoded(relations[-1:], self.tables, row_dtype=chosen.row_dtype)
        pairs = self._encoded(relations, start, at=at, row_dtype=chosen.row_dtype)
        x = torch.stack([pair[0] for pair in pairs], 1)  # (B, E, D)
        items = weighted_fusion([pair[1] for pair in pairs[:count]], self.shares[:, at_items].T)  # (M, D)
        positive, negative, bought, other = items.split([len(kept), negatives.numel(), len(own), len(own)])
        negative = negative.view(*negative_columns(negatives).shape, items.shape[1])  # (R, n, D)
        mean, log_variance, invariant = self.autoencoder(x, batch.noise)
        specific = x - invariant  # (B, E, D)
        n, a, mean, log_variance = (part[kept] for part in (invariant, specific, mean, log_variance))
        scores = torch.linalg.vecdot(n, positive.unsqueeze(1))  # (R, E)
        lower = n @ negative.mT  # (R, E, n)
        contrasted = n[:, 0], n.index_select(1, batch.other)[:, 0], a.flatten(0, 1)  # (R, D), (R, D), (R E, D)
        contrast = infonce_among(*contrasted, temperature=chosen.temperature, include_positive=True)
        triple = (invariant[own].mean(1) + specific[own, 0], bought, other)  # 3 x (B_t, D)
        losses = {
            "main": chosen.ranking_weight * mean_of_rows(bpr(triple_margin(*triple), chosen.gamma)),
            "prior": chosen.prior_weight * mean_of_rows(prior_divergence(mean, log_variance)),
            "orthogonal": chosen.orthogonal_weight * mean_of_rows(torch.linalg.vecdot(n, a).square()),
            "cross": chosen.cross_weight * mean_of_rows(label_entropies(scores, lower)),
            "contrast": chosen.contrast_weight * contrast,
        }
        ahead = (scores.unsqueeze(2) - lower).unbind(1)  # E x (R, n)
        margins = dict(zip(map(" + ".join, self.environments), ahead, strict=True)) if len(kept) else {}
        nodes = batch.distinct("user", target)

        def anchors() -> dict[str, dict[str, Tensor]]:
            found = self._encoded(relations[:count], start, at=[(nodes, nodes[:0])] * count)
            return {"user": {name: pair[0] for name, pair in zip(self.behaviors, reversed(found), strict=True)}}

        return StepOutputs(
            target,
            losses=losses,
            risks=lambda: {name: bpr(margin, gamma=0).mean() for name, margin in margins.items()},
            margins=margins,
            anchors=anchors,
            triples={target: triple},
            ego=partial(self.ego_triples, {target: rows}),
            tables=self.tables,
        )
