"""UIPL: invariant preferences across environments, each a subset of the behaviors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mbgraph._kernels import Workspace
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.batches import ExtendedBatches, TripleBatches
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, NonNegative, Positive, TrainingOptions
from mbgraph.models.triples import ANY, TripleBatch
from mbgraph.nn import VariationalAutoencoder, bpr, mean_of_rows, propagate_each, triple_margin
from mbgraph.nn.lightgcn import layer_weights
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.random import stream
from mbgraph.regularizers import L2, Regularizer, StepOutputs, infonce_among

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset

__all__ = ["UIPL", "UIPLBatch"]


class UIPLOptions(EmbeddingOptions):
    """Options of `UIPL`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"padding": True, "gamma": 1e-10, "sampled_scores": True},
    }

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, with padded rows and scores that draw noise; ``mbgraph`` leaves users who
    lack a behavior out of its terms and scores with the mean."""
    num_layers: Annotated[int, Field(ge=0, le=64)] = 2
    """Propagation steps per environment."""
    environments: Literal["subsets", "singles"] = "subsets"
    """``subsets``: every non-empty set of behaviors, 2^K - 1 of them; ``singles``: each behavior and all together,
    K + 1 of them, cheaper."""
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

    def training(self) -> TrainingOptions:
        """Return batches of 1,024 users with 4 negatives, Adam with step size 1e-3."""
        return TrainingOptions(negatives=4, patience=9)

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the norms of both tables, not squared, each divided by its rows."""
        return (L2(weight=1e-3, on="tables", power=1, divide_by="rows"),)


@dataclass(frozen=True, kw_only=True)
class UIPLBatch(TripleBatch):
    """Triples of the target and of any behavior, and what a step draws beside them.

    Attributes
    ----------
    noise : float32 tensor (B, E, Z)
        Standard normal, for every row and environment.
    other : int64 tensor (1,)
        The environment, from 1, whose invariant part is the positive of the contrast.
    """

    noise: Tensor
    other: Tensor


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
        self.make_tables(chosen.embedding_dim, padding=int(chosen.padding))
        with torch.no_grad():
            for table, count in zip(self.tables, (self.num_users, self.num_items), strict=True):
                table[count:] = 0
        self.autoencoder = VariationalAutoencoder(chosen.embedding_dim, rng=self.rng + 1)
        self.environments = self._environments(self.relations)
        self.register_buffer("shares", self._item_shares(self.environments), persistent=False)
        self._space = Workspace()

    def _environments(self, relations: Relations) -> dict[tuple[str, ...], Relation]:
        """Return the relation of every environment, by the number of its behaviors, the target's first."""
        padded = relations.padded(int(self.options.padding))
        names = tuple(padded)[::-1]
        sizes = range(1, len(names) + 1) if self.options.environments == "subsets" else (1, len(names))
        sets = [one for size in sizes for one in itertools.combinations(names, size)]
        return {one: padded[one[0]] if len(one) == 1 else padded.union(*one) for one in sets}

    def _item_shares(self, environments: dict[tuple[str, ...], Relation]) -> Tensor:
        """Return the share of each behavior in an item's pairs, in the order of the environments: (K, I)."""
        degrees = torch.stack([environments[name,].degree("item") for name in reversed(self.behaviors)]).float()
        return degrees / (degrees.sum(0) + 1e-6)

    def _encoded(self, relations: list[Relation], start: Rows, **changes: Any) -> list[Rows]:
        count = self.options.num_layers
        weights = layer_weights("sum", count)
        return propagate_each(relations, *start, count, layer_norm=True, weights=weights, space=self._space, **changes)

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> ExtendedBatches:
        """Return triples of the target with one negative and of any behavior with several, and the noise of a step."""
        counts, shape = {self.target: 1}, (len(self.environments), self.autoencoder.latent)
        triples = TripleBatches(dataset, (self.target,), training, any_of=self.behaviors, counts=counts, rng=rng)

        def extend(batch: TripleBatch, rng: np.random.Generator) -> UIPLBatch:
            noise = rng.standard_normal((len(batch), *shape), dtype=np.float32)
            other = rng.integers(1, shape[0], 1)
            return batch.extended(UIPLBatch, noise=torch.from_numpy(noise), other=torch.from_numpy(other))

        return ExtendedBatches(triples, extend)

    def score_noise(self, environment: int, shape: tuple[int, ...]) -> Tensor | None:
        """Return the noise that scores draw in an environment (from 0), None for none: (U, Z)."""
        if not self.options.sampled_scores:
            return None
        drawn = stream(self.rng, "scores", environment).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(drawn)

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return what scores; per behavior, what its environment makes of users and items."""
        environments = self.environments
        shares = self.shares
        if graph is not None:
            environments = self._environments(self.other_relations(graph))
            shares = self._item_shares(environments).to(shares.device)
        *_, everything = environments.values()
        ((start_users, start_items),) = self._encoded([everything], self.tables)
        invariant = specific = items = torch.zeros(())
        behaviors = {}
        for number, (names, relation) in enumerate(environments.items()):
            ((at_users, at_items),) = self._encoded([relation], (start_users, start_items))
            rows, width = at_users[: self.num_users], self.autoencoder.latent
            noise = self.score_noise(number, (self.num_users, width))
            decoded = self.autoencoder(rows, None if noise is None else noise.to(rows))[2]
            invariant = invariant + decoded
            if number == 0:
                specific = rows - decoded
            if number < len(self.behaviors):
                behaviors[names[0]] = (rows, at_items[: self.num_items])
                items = items + shares[number].unsqueeze(1) * at_items
        users = invariant / len(environments) + specific
        return Encoded(users, items[: self.num_items], {name: behaviors[name] for name in self.behaviors})

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
        items = sum(share[at_items].unsqueeze(1) * pair[1] for share, pair in zip(self.shares, pairs, strict=False))
        assert isinstance(items, Tensor)
        positive, negative, bought, other = items.split([len(kept), negatives.numel(), len(own), len(own)])
        per_row = 1 if negatives.ndim == 1 else negatives.shape[1]
        negative = negative.view(len(kept), per_row, negative.shape[-1])  # (R, n, D)

        mean, log_variance, invariant = self.autoencoder(x, batch.noise)
        specific = x - invariant  # (B, E, D)
        n, a, mean, log_variance = (part[kept] for part in (invariant, specific, mean, log_variance))
        scores = torch.linalg.vecdot(n, positive.unsqueeze(1))  # (R, E)
        lower = n @ negative.mT  # (R, E, n)
        entropies = torch.cat([bpr(scores, gamma=0).unsqueeze(2), bpr(-lower, gamma=0)], 2)  # of labels 1 and 0
        prior = -(1 + log_variance - mean.square() - log_variance.exp()).sum(2) / 2  # (R, E)
        contrast = infonce_among(
            n[:, 0], n.index_select(1, batch.other)[:, 0], a.flatten(0, 1), temperature=chosen.temperature,
            include_positive=True,
        )  # fmt: skip
        triple = (invariant[own].mean(1) + specific[own, 0], bought, other)  # 3 x (B_t, D)
        margin = triple_margin(*triple)
        losses = {
            "main": chosen.ranking_weight * mean_of_rows(bpr(margin, chosen.gamma)),
            "prior": chosen.prior_weight * mean_of_rows(prior),
            "orthogonal": chosen.orthogonal_weight * mean_of_rows(torch.linalg.vecdot(n, a).square()),
            "cross": chosen.cross_weight * mean_of_rows(entropies),
            "contrast": chosen.contrast_weight * contrast,
        }
        names = map(" + ".join, self.environments)
        margins = dict(zip(names, (scores.unsqueeze(2) - lower).unbind(1), strict=True))
        return StepOutputs(
            target,
            losses=losses,
            risks=lambda: {name: bpr(rows, gamma=0).mean() for name, rows in margins.items() if len(rows)},
            margins=lambda: {name: rows for name, rows in margins.items() if len(rows)},
            anchors=partial(self._anchors, batch.distinct("user", target), relations[:count], start),
            triples={target: triple},
            ego=partial(self.ego_triples, {target: rows}),
            tables=self.tables,
        )

    def _anchors(self, users: Tensor, relations: list[Relation], start: Rows) -> dict[str, dict[str, Tensor]]:
        pairs = self._encoded(relations, start, at=[(users, users[:0])] * len(relations))
        found = dict(zip(reversed(self.behaviors), (pair[0] for pair in pairs), strict=True))
        return {"user": {name: found[name] for name in self.behaviors}}
