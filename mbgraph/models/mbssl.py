"""MBSSL: behaviors that attend to each other, two contrasts among all nodes, and gradients kept in balance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.context import StepContext
from mbgraph.models.options import EmbeddingOptions, Layers, NonNegative, Positive, Share, TrainingOptions
from mbgraph.models.ragged import UserBatch, UserBatches
from mbgraph.models.rules import GradientBalance, UpdateRule
from mbgraph.nn import most_similar, propagate, swing
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import StepOutputs, infonce_among

__all__ = ["MBSSL"]


class MBSSLOptions(EmbeddingOptions):
    """Options of `MBSSL`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {
            "init": "xavier",
            "zero_similar": True,
            "zero_item": True,
            "drop_last": True,
            "target_users": True,
        },
        "light": {"num_layers": 2, "candidates": "batch"},
    }

    variant: Literal["mbgraph", "official", "light"] = "mbgraph"
    """``official`` is the published code; ``mbgraph`` leaves nodes that are too similar out of the denominators, where
    the code counts each as 1; ``light`` has two layers and contrasts within the batch."""
    num_layers: Layers = 4
    """Number of propagation steps."""
    init: Literal["normal", "xavier"] = "normal"
    """How tables and vectors of behaviors start: normal with standard deviation 0.1 and 1, from where training takes
    off sooner, or Xavier."""
    attention_dim: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Width of the attention between behaviors."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the entries of every layer that a step leaves out."""
    coefficients: tuple[NonNegative, ...] = ()
    """Weight of each behavior's loss, in order; empty: 4/6 of the last auxiliary one, 1/6 of the target, the rest of
    the others."""
    unseen: tuple[NonNegative, ...] = ()
    """Weight of a pair that is not there, by behavior; empty: 0.01 of all."""
    decay: NonNegative = 0.01
    """Weight of half the squared norms of the batch's users and of all items, in every behavior."""
    temperature: Positive = 0.2
    """Divides the cosines of both contrasts."""
    intra: NonNegative = 1.0
    """Weight of the contrast of two perturbed target graphs."""
    inter: tuple[NonNegative, ...] = ()
    """Weight of the contrast of the target with each auxiliary behavior, in order; empty: 1 of all."""
    perturb: Literal["nodes", "edges", "edges-per-layer"] = "nodes"
    """What the two perturbed target graphs of an epoch lack."""
    perturb_rate: Share = 0.5
    """Share of it."""
    similar_users: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Users more similar than the one of this rank are no negatives in the contrast with auxiliary behaviors."""
    similar_items: Annotated[int, Field(ge=1, le=100_000)] = 10
    """The same for items."""
    zero_similar: bool = False
    """Count a node that is too similar as a cosine of 0 instead of leaving it out."""
    zero_item: bool = False
    """Count an item of zeros among the candidates."""
    candidates: Literal["all", "batch"] = "all"
    """Who stands in the denominators: all nodes, or those of the batch's target pairs."""
    balance: bool = True
    """Keep the contrasts' gradients from outgrowing the main one's, see `GradientBalance`."""
    beta: Share = 0.9
    """What the balance keeps of its running norms."""
    relax: Share = 0.7
    """How far the balance goes."""
    block: Annotated[int, Field(ge=1, le=2**24)] = 512
    """Anchors per block of the denominators."""
    target_users: bool = False
    """Train only on users with a target pair."""
    drop_last: bool = False
    """Leave the last batch of an epoch out where it is not full."""

    def training(self) -> TrainingOptions:
        """Return batches of 256 users with step size 5e-3; ``official``: of 512 with 1e-3, for 500 epochs."""
        if self.variant == "official":
            return TrainingOptions(batch_size=512, epochs=500)
        return TrainingOptions(batch_size=256, lr=5e-3)


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
        rest = () if count == 2 else (1 / 6 / (count - 2),) * (count - 2)
        usual = (*rest, 1 - 1 / 6 - sum(rest), 1 / 6)
        self.coefficients = chosen.by_behavior("coefficients", chosen.coefficients or usual, self.behaviors)
        self.unseen = chosen.by_behavior("unseen", chosen.unseen or (0.01,) * count, self.behaviors)
        self.inter = chosen.by_behavior("inter", chosen.inter or (1.0,) * (count - 1), self.relations.auxiliary)
        width, steps, hidden = chosen.embedding_dim, chosen.num_layers, chosen.attention_dim
        generator = torch.Generator().manual_seed(self.rng + 1)

        def xavier(*shape: int) -> nn.Parameter:
            return nn.Parameter(nn.init.xavier_uniform_(torch.empty(*shape), generator=generator))

        plain = chosen.init == "normal"
        self.make_tables(width, std=0.1 if plain else None)
        self.relation_embedding = nn.Parameter(torch.ones(count, width)) if plain else xavier(count, width)
        self.layer_weights = nn.ParameterList([xavier(width, width) for _ in range(steps)])
        self.relation_weights = nn.ParameterList([xavier(width, width) for _ in range(steps)])
        self.attention = xavier(count, width, hidden)
        self.attention_out = xavier(count, hidden, 1)
        own = [self.relations[target]]
        self.perturbed: tuple[list[Relation], list[Relation]] = (own, own)
        self.similar: dict[str, Tensor] = {}

    # --- embeddings -------------------------------------------------------------------------------------------------

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
        layer = tuple(table.unsqueeze(1).expand(-1, len(relations), -1) for table in self.tables)
        total, relation_rows = layer, self.relation_embedding
        for step, (weights, of_relations) in enumerate(zip(self.layer_weights, self.relation_weights, strict=True)):
            read = dict(relations)
            if perturbed:
                read[self.target] = perturbed[min(step, len(perturbed) - 1)]
            hops = [
                propagate(
                    relation, layer[0][:, k].contiguous(), layer[1][:, k].contiguous(), 1, weights=(0.0, 1.0),
                    row_dtype=self.options.row_dtype, space=self.space,
                )
                for k, relation in enumerate(read.values())
            ]  # fmt: skip
            layer = tuple(
                self._mixed(torch.stack([hop[side] for hop in hops], 1) * relation_rows @ weights)[0] for side in (0, 1)
            )
            if context is not None:
                layer = tuple(
                    context.dropout(rows, self.options.dropout, f"dropout {name} {step} {side}")
                    for side, rows in zip(("user", "item"), layer, strict=True)
                )
            total = (total[0] + layer[0], total[1] + layer[1])
            relation_rows = relation_rows @ of_relations
        return total[0] / (self.options.num_layers + 1), total[1] / (self.options.num_layers + 1)

    def _mixed(self, messages: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each behavior makes of all messages, and its attention: (N, K, D) -> (N, K, D), (N, K, K)."""
        messages = nn.functional.leaky_relu(messages)
        count, _, hidden = self.attention.shape
        joined = self.attention.permute(1, 0, 2).reshape(messages.shape[2], -1)  # (D, K A)
        heard = torch.tanh(messages @ joined).view(len(messages), count, count, hidden)  # (N, from, to, A)
        attention = torch.softmax((heard * self.attention_out[:, :, 0]).sum(-1), 1).transpose(1, 2)  # (N, to, from)
        return attention @ messages, attention

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

    # --- training ---------------------------------------------------------------------------------------------------

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> UserBatches:
        """Return batches of users with all of their pairs."""
        only = self.target if self.options.target_users else None
        return UserBatches(dataset, self.behaviors, training, only=only, drop_last=self.options.drop_last, rng=rng)

    def update_rule(self, training: TrainingOptions) -> UpdateRule:
        """Return the balance of gradients, or their sum."""
        if not self.options.balance:
            return UpdateRule(self, training)
        chosen = self.options
        return GradientBalance(
            self, training, main="main", beta=chosen.beta, relax=chosen.relax, unbalanced=("norm",)
        )  # fmt: skip

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
        one, two = (
            [
                self.relations[self.target].dropped(chosen.perturb_rate, context.rng(f"view {view} {step}"), what)
                for step in range(count)
            ]
            for view in (1, 2)
        )
        self.perturbed = (one, two)

    def step(self, batch: UserBatch, context: StepContext) -> StepOutputs:
        """Return the main loss, the contrasts and the norm."""
        users, items = self.propagated(self.relations, context=context, name="main")  # (U, K, D), (I, K, D)
        one, two = (
            self.propagated(self.relations, self.perturbed[view], context, f"view {view}") for view in (0, 1)
        )  # 2 x ((U, K, D), (I, K, D))
        own = users[batch.users]  # (B, K, D)
        risks = self._risks(own, items, batch)
        losses = {"main": torch.stack([self.coefficients[name] * risk for name, risk in risks.items()]).sum()}
        anchors = {side: batch.distinct(side, self.target) for side in ("user", "item")}  # 2 x ((N,), (N,))
        sides = dict(zip(anchors, zip((users, items), one, two, strict=True), strict=True))

        def contrast(side: str, anchor: Tensor, other: Tensor, similar: bool) -> Tensor:
            nodes, counts = anchors[side]
            return self._contrast(side, anchor, other, nodes, counts, similar)

        losses["intra"] = (
            self.options.intra
            * torch.stack(
                [contrast(side, first[:, -1], second[:, -1], False) for side, (_, first, second) in sides.items()]
            ).sum()
        )
        for k, name in enumerate(self.relations.auxiliary):
            losses[f"inter.{name}"] = (
                self.inter[name]
                * torch.stack(
                    [contrast(side, rows[:, -1], rows[:, k], True) for side, (rows, _, _) in sides.items()]
                ).sum()
            )
        losses["norm"] = self.options.decay / 2 * (own.square().sum() + items.square().sum())
        return StepOutputs(
            self.target,
            losses=losses,
            risks={name: risk / len(batch) for name, risk in risks.items()},
            anchors=lambda: {
                side: {name: rows[anchors[side][0], k] for k, name in enumerate(self.behaviors)}
                for side, (rows, _, _) in sides.items()
            },
            views=lambda: {
                side: (first[anchors[side][0], -1], second[anchors[side][0], -1])
                for side, (_, first, second) in sides.items()
            },
            nodes=lambda: {
                side: {name: rows[:, k] for k, name in enumerate(self.behaviors)}
                for side, (rows, _, _) in sides.items()
            },
            similar=lambda: {side: self._similar_to(side, anchors[side][0]) for side in self.similar},
            tables=self.tables,
            parameters={
                name: entry for name, entry in self.named_parameters() if not name.startswith(("user", "item"))
            },
        )

    def _risks(self, users: Tensor, items: Tensor, batch: UserBatch) -> dict[str, Tensor]:
        """Return the main loss of every behavior: (B, K, D), (I, K, D) -> K x ()."""
        made = {}
        for k, (name, row) in enumerate(zip(self.behaviors, self.relation_rows(), strict=True)):
            at, columns = batch.pairs[name]
            of_users, of_items, unseen = users[:, k], items[:, k], self.unseen[name]
            everything = (of_items.T @ of_items) * (of_users.T @ of_users) * torch.outer(row, row)  # (D, D)
            scores = (of_users[at] * of_items[columns]) @ row  # (M,)
            made[name] = unseen * everything.sum() + ((1 - unseen) * scores.square() - 2 * scores).sum()
        return made

    def _similar_to(self, side: str, nodes: Tensor) -> Tensor:
        """Return the nodes that are too similar to some: (n,) -> int64 (n, k)."""
        return self.similar[side].to(nodes.device)[nodes]

    def _contrast(
        self, side: str, anchor: Tensor, other: Tensor, nodes: Tensor, counts: Tensor, similar: bool
    ) -> Tensor:
        """Return the sum over the batch's target pairs: (N, D) of all nodes, (M, D), (n,), (n,) -> ()."""
        left_out = self._similar_to(side, nodes) if similar and self.options.candidates == "all" else None
        among = other if self.options.candidates == "all" else other[nodes]
        if self.options.zero_item and side == "item":
            among = nn.functional.pad(among, (0, 0, 0, 1))
        return infonce_among(
            anchor[nodes], other[nodes], among, temperature=self.options.temperature, left_out=left_out,
            zero_left_out=self.options.zero_similar, reduction="sum", weights=counts.to(anchor),
            block=self.options.block,
        )  # fmt: skip
