"""The model of MBSSL: its encoder, its loss over all items and a step with contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.mbssl.contrasts import Contrasts
from mbgraph.models.mbssl.options import MBSSLOptions
from mbgraph.models.options import TrainingOptions
from mbgraph.models.ragged import UserBatch, UserBatches
from mbgraph.models.rules import GradientBalance, UpdateRule
from mbgraph.nn import behavior_attention, hop, most_similar, non_sampling, swing, xavier
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import StepOutputs

__all__ = ["MBSSL"]


@MODELS.register("mbssl")
class MBSSL(EmbeddingRecommender):
    r"""An embedding per behavior, mixed in every layer by attention between the behaviors.

    .. math::
        m_b = \operatorname{LeakyReLU}\big(((\hat A_b X_b) \odot r_b) W\big), \qquad
        X_b \leftarrow \sum_c \operatorname{softmax}_c\big(\tanh(m_c S_b) s_b\big)\, m_c, \qquad
        r_b \leftarrow r_b W'

    and the mean over layers 0..L of both. The main loss reads all items without drawing any (EHCF):

    .. math::
        \sum_b c_b \Big[ w_b \sum \big(\textstyle\sum_i x_i x_i^\top\big) \odot \big(\sum_u x_u x_u^\top\big) \odot
        r_b r_b^\top + \sum_{(u, i) \in R_b} (1 - w_b)\, \hat y^2 - 2 \hat y \Big], \qquad \hat y = \langle x_u \odot
        x_i, r_b \rangle

    Contrasts among all nodes: two encodings whose target graph lacks other nodes in every epoch (intra), and the target
    with every auxiliary behavior (inter), without nodes that are too similar by `mbgraph.nn.swing`. Every pair of a
    batch's users counts. The update is `GradientBalance`.

    References
    ----------
    Xu et al., SIGIR 2023 (arXiv 2305.18238); published code ``Scofield666/MBSSL`` at commit 34b7011.
    """

    name = "mbssl"
    Options = MBSSLOptions
    options: MBSSLOptions
    needs_auxiliary = True
    citation = "Xu et al., MBSSL, SIGIR 2023 (arXiv 2305.18238)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        chosen, count = self.options, len(self.behaviors)
        self.coefficients = chosen.coefficients_of(self.behaviors)
        self.unseen = chosen.by_behavior("unseen", chosen.unseen or (0.01,) * count, self.behaviors)
        self.inter = chosen.by_behavior("inter", chosen.inter or (1.0,) * (count - 1), self.relations.auxiliary)
        width, steps, hidden = chosen.embedding_dim, chosen.num_layers, chosen.attention_dim
        made = partial(xavier, torch.Generator().manual_seed(self.rng + 1))
        plain = chosen.init == "normal"
        self.make_tables(width, std=0.1 if plain else None)
        self.relation_embedding = nn.Parameter(torch.ones(count, width)) if plain else made(count, width)
        self.layer_weights = nn.ParameterList([made(width, width) for _ in range(steps)])
        self.relation_weights = nn.ParameterList([made(width, width) for _ in range(steps)])
        self.attention = made(count, width, hidden)
        self.attention_out = made(count, hidden, 1)
        own = [self.relations[target]]
        self.perturbed: tuple[list[Relation], list[Relation]] = (own, own)
        self.similar: dict[str, Tensor] = {}

    def propagated(
        self,
        relations: Relations,
        perturbed: Sequence[Relation] = (),
        context: StepContext | None = None,
        name: str = "",
    ) -> tuple[Tensor, Tensor]:
        """Return the mean over layers of all nodes: (U, K, D), (I, K, D).

        Parameters
        ----------
        relations : Relations
        perturbed : sequence of Relation
            What takes the place of the target's relation: one for all layers, or one per layer.
        context : StepContext, optional
            Draws the dropout, by ``name``; none without it.
        """
        once = partial(hop, row_dtype=self.options.row_dtype, space=self.space)
        layer = tuple(table.unsqueeze(1).expand(-1, len(relations), -1) for table in self.tables)
        total, relation_rows = layer, self.relation_embedding
        for step, (weights, of_relations) in enumerate(zip(self.layer_weights, self.relation_weights, strict=True)):
            read = dict(relations)
            if perturbed:
                read[self.target] = perturbed[min(step, len(perturbed) - 1)]
            hops = [
                once(relation, layer[0][:, k].contiguous(), layer[1][:, k].contiguous())
                for k, relation in enumerate(read.values())
            ]  # K x ((U, D), (I, D))
            heard = (leaky_relu(torch.stack(side, 1) * relation_rows @ weights) for side in zip(*hops, strict=True))
            layer = tuple(behavior_attention(messages, self.attention, self.attention_out)[0] for messages in heard)
            if context is not None:
                layer = tuple(
                    context.dropout(rows, self.options.dropout, f"dropout {name} {step} {side}")
                    for side, rows in zip(("user", "item"), layer, strict=True)
                )
            total = (total[0] + layer[0], total[1] + layer[1])
            relation_rows = relation_rows @ of_relations
        return total[0] / (self.options.num_layers + 1), total[1] / (self.options.num_layers + 1)

    def relation_rows(self) -> Tensor:
        """Return the mean over layers of the behaviors' vectors: (K, D)."""
        layer = total = self.relation_embedding
        for weights in self.relation_weights:
            layer = layer @ weights
            total = total + layer
        return total / (self.options.num_layers + 1)

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return embeddings of all nodes; those of users carry the target's vector as a factor."""
        users, items = self.propagated(self.other_relations(graph))
        behaviors = {name: (users[:, k], items[:, k]) for k, name in enumerate(self.behaviors)}
        return Encoded(users[:, -1] * self.relation_rows()[-1], items[:, -1], behaviors)

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> UserBatches:
        """Return batches of users with all of their pairs."""
        only = self.target if self.options.target_users else None
        return UserBatches(dataset, self.behaviors, training, only=only, drop_last=self.options.drop_last, rng=rng)

    def update_rule(self, training: TrainingOptions) -> UpdateRule:
        """Return the balance of gradients, or their sum."""
        if not self.options.balance:
            return UpdateRule(self, training)
        beta, relax = self.options.beta, self.options.relax
        return GradientBalance(self, training, main="main", beta=beta, relax=relax, unbalanced=("norm",))

    def prepare(self, dataset: MultiBehaviorDataset) -> None:
        """Find the nodes that are too similar, by the target's pairs."""
        relation = self.relations[self.target]
        counts = {"user": self.options.similar_users, "item": self.options.similar_items}
        self.similar = {
            side: most_similar(swing(relation, side), count).to(self.tables[0].device) for side, count in counts.items()
        }

    def begin_epoch(self, context: StepContext) -> None:
        """Perturb the target's graph twice."""
        chosen = self.options
        what, count = ("edges", chosen.num_layers) if chosen.perturb == "edges-per-layer" else (chosen.perturb, 1)
        drop = partial(self.relations[self.target].dropped, chosen.perturb_rate, what=what)
        one, two = ([drop(context.rng(f"view {view} {step}")) for step in range(count)] for view in (1, 2))
        self.perturbed = (one, two)

    def step(self, batch: UserBatch, context: StepContext) -> StepOutputs:
        """Return the main loss, the contrasts and the norm."""
        users, items = self.propagated(self.relations, context=context, name="main")  # (U, K, D), (I, K, D)
        one, two = (
            self.propagated(self.relations, self.perturbed[view], context, f"view {view}") for view in (0, 1)
        )  # 2 x ((U, K, D), (I, K, D))
        own = users[batch.users]  # (B, K, D)
        risks = self._risks(own, items, batch)
        contrasts = Contrasts(self.options, batch, self.target, self.similar)
        sides = {"user": (users, one[0], two[0]), "item": (items, one[1], two[1])}  # 2 x 3 x (N, K, D)
        views = {side: (first[:, -1], second[:, -1]) for side, (_, first, second) in sides.items()}
        losses = {"main": torch.stack([self.coefficients[name] * risk for name, risk in risks.items()]).sum()}
        losses["intra"] = self.options.intra * contrasts.total(views, similar=False)
        for k, name in enumerate(self.relations.auxiliary):
            pairs = {side: (rows[:, -1], rows[:, k]) for side, (rows, _, _) in sides.items()}
            losses[f"inter.{name}"] = self.inter[name] * contrasts.total(pairs, similar=True)
        losses["norm"] = self.options.decay / 2 * (own.square().sum() + items.square().sum())
        nodes, names = contrasts.nodes, list(enumerate(self.behaviors))
        return StepOutputs(
            self.target,
            losses=losses,
            risks={name: risk / len(batch) for name, risk in risks.items()},
            anchors=lambda: {side: {name: sides[side][0][at, k] for k, name in names} for side, at in nodes.items()},
            views=lambda: {side: (views[side][0][at], views[side][1][at]) for side, at in nodes.items()},
            nodes=lambda: {side: {name: rows[:, k] for k, name in names} for side, (rows, _, _) in sides.items()},
            similar=lambda: {side: contrasts.similar_to(side) for side in self.similar},
            tables=self.tables,
            parameters={name: own for name, own in self.named_parameters() if not name.startswith(("user", "item"))},
        )

    def _risks(self, users: Tensor, items: Tensor, batch: UserBatch) -> dict[str, Tensor]:
        """Return the main loss of every behavior: (B, K, D), (I, K, D) -> K x ()."""
        return {
            name: non_sampling(users[:, k], items[:, k], row, batch.pairs[name], self.unseen[name])
            for k, (name, row) in enumerate(zip(self.behaviors, self.relation_rows(), strict=True))
        }
