"""MB-CGCN: a cascade of LightGCN blocks with a learned transformation between two behaviors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import CascadeOptions, Layers, Positive, TrainingOptions
from mbgraph.models.triples import TripleBatch
from mbgraph.nn import bpr, mean_of_rows, part_triple, propagate, triple_at, triple_margin
from mbgraph.nn.propagation import Rows
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, Regularizer, StepOutputs, once
from mbgraph.regularizers.outputs import Triple

__all__ = ["MBCGCN"]


class MBCGCNOptions(CascadeOptions):
    """Options of `MBCGCN`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"init_std": 0.01},
    }

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code without its pre-trained tables, with its 2 layers of the first behavior, 3 of
    the target and 4 of those between; ``mbgraph`` starts from tables and transformations that let scores move from the
    first epoch on."""
    num_layers: Layers = 3
    """Propagation steps per behavior."""
    init_std: Positive | None = None
    """Standard deviation of a normal initialisation of tables and transformations; None: Xavier uniform."""

    def layers_of(self, behaviors: Sequence[str]) -> dict[str, int]:
        """See `CascadeOptions.layers_of`."""
        if self.variant == "official" and not self.layers:
            return dict(zip(behaviors, (2, *[4] * (len(behaviors) - 2), 3), strict=True))
        return super().layers_of(behaviors)

    def training(self) -> TrainingOptions:
        """Return batches of 2,048 distinct users; negatives from outside their target history."""
        return TrainingOptions(batch_size=2048, sampler="distinct-users", history="target")

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return L2 with weight 1e-4 on the batch's table rows and on the transformations, both per row."""
        return L2(weight=1e-4, on="ego"), L2(label="l2-w", weight=1e-4, on="parameters", divide_by="batch")


@MODELS.register("mbcgcn")
class MBCGCN(EmbeddingRecommender):
    r"""Behaviors in their order, the target last; each starts from the transformed embeddings of the one before.

    .. math::
        H_b = \frac{1}{L_b + 1} \sum_{l=0}^{L_b} \hat A_b^l X_b, \qquad X_1 = [E_u; E_i], \qquad
        X_{b+1} = [H_{b,u} W_{b,u};\ H_{b,i} W_{b,i}], \qquad Z = \sum_b H_b

    with :math:`\mathcal L = \operatorname{mean} \operatorname{softplus}(z_u \cdot z_j - z_u \cdot z_i)` of target
    triples. :math:`Z` scores. The sum takes :math:`H_b` before its transformation.

    References
    ----------
    Cheng et al., "Multi-Behavior Recommendation with Cascading Graph Convolution Networks", WWW 2023 (arXiv
    2303.15720); published code ``SS-00-SS/MBCGCN`` at commit 931f9c1.
    """

    name = "mbcgcn"
    reads_blocks = True
    Options = MBCGCNOptions
    options: MBCGCNOptions
    ordered = True
    needs_auxiliary = True
    citation = "Cheng et al., MB-CGCN, WWW 2023 (arXiv 2303.15720)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        self.layers = self.options.layers_of(self.behaviors)
        width, std = self.options.embedding_dim, self.options.init_std
        self.make_tables(width, std=std)
        generator = torch.Generator().manual_seed(self.rng + 1)

        def transformation() -> Tensor:
            weight = torch.empty(width, width)
            if std is None:
                return nn.init.xavier_uniform_(weight, generator=generator)
            return weight.normal_(generator=generator).mul_(std)

        # by number: a name of a behavior need not be one of a parameter
        self.user_transforms, self.item_transforms = (
            nn.ParameterList([transformation() for _ in self.relations.auxiliary]) for _ in range(2)
        )

    def _cascade(self, relations: Relations, at: Rows | None = None, **changes: Any) -> dict[str, Rows]:
        """Return both sides of every behavior: K x ((U, D), (I, D)), the target's at the rows ``at``."""
        ends: Rows = self.tables
        made: dict[str, Rows] = {}
        for number, (behavior, count) in enumerate(self.layers.items()):
            last = behavior == self.target
            users, items = made[behavior] = propagate(
                relations[behavior], *ends, count, at=at if last else None, space=self.space, **changes
            )
            if not last:
                ends = (users @ self.user_transforms[number], items @ self.item_transforms[number])
        return made

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return embeddings of all nodes: the sum over behaviors, and each behavior's."""
        made = self._cascade(self.other_relations(graph))
        users, items = (torch.stack(side).sum(0) for side in zip(*made.values(), strict=True))
        return Encoded(users, items, made)

    def step(self, batch: TripleBatch, context: StepContext) -> StepOutputs:
        """Return the BPR loss of the target's triples, scored by the sum over behaviors."""
        rows = batch.rows(self.target)
        users, positives, negatives = rows
        anchors = batch.distinct("user", self.target)  # (N,)
        chosen = (torch.cat([users, anchors]), torch.cat([positives, negatives.flatten()]))
        made = self._cascade(self.relations, at=chosen, row_dtype=self.options.row_dtype)
        of_target = made.pop(self.target)
        parts = [*((pair[0][chosen[0]], pair[1][chosen[1]]) for pair in made.values()), of_target]

        def triple(at_users: Tensor, at_items: Tensor) -> Triple:
            return part_triple(at_users[: len(users)], at_items, negatives)

        fused = triple(*(torch.stack(side).sum(0) for side in zip(*parts, strict=True)))
        main = bpr(triple_margin(*fused), gamma=0)  # (B,)

        @once
        def triples() -> dict[str, Triple]:
            found = {name: triple_at(ends, batch.rows(name)) for name, ends in made.items() if name in batch.positives}
            return {**found, self.target: triple(*of_target)}

        @once
        def margins() -> dict[str, Tensor]:
            return {name: triple_margin(*rows) for name, rows in triples().items() if len(rows[0])}

        return StepOutputs(
            self.target,
            losses={"main": mean_of_rows(main)},
            risks=lambda: {name: bpr(margin, gamma=0).mean() for name, margin in margins().items()},
            margins=margins,
            anchors=lambda: {"user": dict(zip(self.behaviors, (side[len(users) :] for side, _ in parts), strict=True))},
            triples=triples,
            ego=partial(self.ego_triples, {self.target: rows}),
            tables=self.tables,
            parameters=lambda: {
                f"{side}_{number}": weight
                for side, weights in (("user", self.user_transforms), ("item", self.item_transforms))
                for number, weight in enumerate(weights)
            },
        )
