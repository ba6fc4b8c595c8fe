"""MISSL: a sequence of all behaviors, intents of a hypergraph transformer, and contrasts within and between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UsageError
from mbgraph.evaluation.ranking import EmbeddingScorer
from mbgraph.models.base import MODELS, Encoded, Recommender
from mbgraph.models.context import StepContext
from mbgraph.models.options import Layers, ModelOptions, NonNegative, Positive, Share, TrainingOptions
from mbgraph.models.sequences import SequenceBatch, SequenceBatches, Sequences
from mbgraph.nn import CrossTransformer, IntentEncoder, mean_of_rows, normal, normed_layer, softmax_among
from mbgraph.nn.hypergraph import Intents
from mbgraph.nn.intents import intent_contrasts
from mbgraph.nn.relations import GraphLike
from mbgraph.nn.typed import Drop, causal, identity
from mbgraph.regularizers import StepOutputs, nt_xent

__all__ = ["MISSL"]


class MISSLOptions(ModelOptions):
    """Options of `MISSL`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"embedding_dim": 16, "shifted": True, "labels": "behavior"},
        "light": {"embedding_dim": 32, "intents": 8, "length": 20, "num_layers": 1, "intent_layers": 1},
    }

    variant: Literal["mbgraph", "official", "light"] = "mbgraph"
    """``official`` is the published code, which feeds intents forward by their neighbours' weights and names a
    position's intent by its number modulo the behaviors; ``mbgraph`` mends both and is 64 wide; ``light`` is half as
    wide, has one layer of each kind and 8 intents, and reads 20 pairs."""
    embedding_dim: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Width of the embedding tables."""
    length: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Pairs of a user that are read: the latest."""
    order: Literal["auto", "time", "behaviors"] = "auto"
    """Order of a user's pairs: by ``time``; one behavior after the other (``behaviors``), a surrogate where there are
    no times; ``auto`` takes times where every pair has one."""
    num_layers: Layers = 2
    """Layers of the transformer over both streams."""
    intent_layers: Layers = 2
    """Times that the hypergraph transformer is applied."""
    heads: Annotated[int, Field(ge=1, le=1024)] = 2
    """Attention heads."""
    intents: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Intents of each behavior, and of all of them."""
    kept: Share = 0.6
    """Share of a group's intents that a position reads."""
    mixed: Share = 1e-4
    """Share of the hypergraph's output in what the transformer reads."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of entries that a step leaves out."""
    predicted: Share = 0.7
    """Share of the positions whose next pair is predicted."""
    next_behavior: NonNegative = 1.0
    """Weight of the prediction of the next behavior."""
    streams: NonNegative = 0.05
    """Weight of the contrast of the item stream with the behavior stream."""
    inter: NonNegative = 0.05
    """Weight of the contrast of positions with intents."""
    intra: NonNegative = 0.05
    """Weight of the contrast of a behavior's intents with shared ones."""
    temperature: Positive = 1.0
    """Divides the cosines of all contrasts."""
    shifted: bool = False
    """Feed intents forward by the weights of the group before theirs, the first group by none."""
    labels: Literal["intent", "behavior"] = "intent"
    """What a position's own intent is called in the contrast: its number in the group, or modulo the behaviors."""
    block: Annotated[int, Field(ge=1, le=2**24)] = 1024
    """Positions per block of the softmax over all items."""

    def training(self) -> TrainingOptions:
        """Return batches of 128 users, Adam 1e-3 (``light``: 5e-3) with weight decay 1e-6."""
        return TrainingOptions(batch_size=128, weight_decay=1e-6, lr=5e-3 if self.variant == "light" else 1e-3)


@MODELS.register("missl")
class MISSL(Recommender):
    r"""What a user does next, from the last 50 pairs of all behaviors in their order.

    Items and behaviors are two streams of a transformer, each read by the other's queries; the item stream starts
    from :math:`(1 - w)\, x + w\, h` with h from `mbgraph.nn.hypergraph.IntentEncoder`. At position t,

    .. math::
        z_t = \operatorname{LN}(\operatorname{ReLU}(W x_t + c)), \qquad
        P(i_{t+1}) = \operatorname{softmax}_i(z_t \cdot e_i + b_i)

    over all items, and the next behavior alike. Contrasts: both streams at one position per user, positions with the
    intents that they read most (inter), intents of a behavior with shared intents that a position joins (intra).
    Scores are those of the last position.

    References
    ----------
    Wu et al., ICDE 2024; published code ``qianlima-lab/MISSL`` at commit 69865a8.
    """

    name = "missl"
    Options = MISSLOptions
    options: MISSLOptions
    ordered = True
    needs_auxiliary = True
    citation = "Wu et al., MISSL, ICDE 2024"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        chosen, types = self.options, len(self.behaviors)
        width = chosen.embedding_dim
        if width % chosen.heads:
            raise UsageError(
                f"embedding_dim {width} of model 'missl' is no multiple of its {chosen.heads} heads",
                f"choose one, for example {width + -width % chosen.heads}",
            )
        generator = torch.Generator().manual_seed(self.rng)
        counts = (self.num_items, types, chosen.length, 2)
        self.item_embedding, self.behavior_embedding, self.position_embedding, self.segment_embedding = (
            normal(generator, count, width) for count in counts
        )
        self.intent_encoder = IntentEncoder(
            types, width, chosen.heads, intents=chosen.intents, num_layers=chosen.intent_layers, kept=chosen.kept,
            length=chosen.length, generator=generator, shifted=chosen.shifted,
        )  # fmt: skip
        layers = [CrossTransformer(types, width, chosen.heads, generator) for _ in range(chosen.num_layers)]
        self.layers = nn.ModuleList(layers)
        self.heads = nn.ModuleList([normed_layer(width, generator) for _ in ("items", "behaviors")])
        self.item_bias, self.behavior_bias = nn.Parameter(torch.zeros(self.num_items)), nn.Parameter(torch.zeros(types))
        self.sequences = Sequences(self.relations, chosen.order)

    def _streams(self, items: Tensor, types: Tensor, drop: Drop) -> tuple[Tensor, Tensor, Tensor, Intents]:
        """Return both streams, what the hypergraph read, and intents: 3 x (B, T, D), `Intents`."""
        present = (types >= 0).unsqueeze(2)
        of_items = self.item_embedding[items.clamp_min(0)] * present  # (B, T, D)
        of_types = self.behavior_embedding[types.clamp_min(0)] * present
        read = drop(of_items + of_types + self.position_embedding)
        intents = self.intent_encoder(read, types, drop)
        one = drop(of_items + self.position_embedding + self.segment_embedding[0])
        two = drop(of_types + self.position_embedding + self.segment_embedding[1])
        one = (1 - self.options.mixed) * one + self.options.mixed * intents.positions
        mask = causal(types >= 0)  # (B, T, T)
        for layer in self.layers:
            one, two = layer(one, two, types, mask, drop)
        return one, two, read, intents

    @torch.no_grad()
    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return what the head makes of every user's last position, and items; the last column is the items' bias."""
        order = self.options.order
        sequences = self.sequences if graph is None else Sequences(self.other_relations(graph), order)
        made = []
        for window in sequences.latest(self.options.length):
            items, types = (torch.from_numpy(part).to(self.item_bias.device) for part in window)  # 2 x (B, T)
            made.append(self.heads[0](self._streams(items, types, identity)[0][:, -1]))
        z = torch.cat(made)  # (U, D)
        table = torch.cat([self.item_embedding, self.item_bias.unsqueeze(1)], 1)  # (I, D + 1)
        return Encoded(torch.cat([z, torch.ones_like(z[:, :1])], 1), table)

    def scorer(self, graph: GraphLike | None = None) -> EmbeddingScorer:
        """Return the scorer of what follows each user's sequence."""
        encoded = self.encode(graph)
        return EmbeddingScorer(encoded.users, encoded.items)

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> SequenceBatches:
        """Return windows of sequences."""
        length, predicted = self.options.length, self.options.predicted
        return SequenceBatches(self.sequences, training, length=length, predicted=predicted, rng=rng)

    def step(self, batch: SequenceBatch, context: StepContext) -> StepOutputs:
        """Return the predictions of the next item and behavior, and the contrasts."""
        chosen = self.options
        one, two, read, intents = self._streams(batch.items, batch.types, context.dropouts(chosen.dropout))
        flat = (one.flatten(0, 1), two.flatten(0, 1))  # 2 x (B T, D)
        rows = [head(stream[batch.positions]) for head, stream in zip(self.heads, flat, strict=True)]  # 2 x (M, D)
        item = softmax_among(rows[0], self.item_embedding, batch.next_items, self.item_bias, block=chosen.block)
        behavior = softmax_among(rows[1], self.behavior_embedding, batch.next_types, self.behavior_bias)
        pairs = [stream[batch.sampled] for stream in flat]  # 2 x (N, D)
        modulo = len(self.behaviors) if chosen.labels == "behavior" else chosen.intents
        inter, intra = intent_contrasts(read, intents, batch.types, chosen.temperature, modulo)
        losses = {
            "main": mean_of_rows(item),
            "next-behavior": chosen.next_behavior * mean_of_rows(behavior),
            "streams": chosen.streams * nt_xent(*pairs, temperature=chosen.temperature),
            "inter": chosen.inter * inter,
            "intra": chosen.intra * intra,
        }
        return StepOutputs(
            self.target,
            losses=losses,
            risks={self.target: losses["main"]} if len(batch.positions) else {},
            views=lambda: {"user": (pairs[0], pairs[1])},
            tables=(self.item_embedding,),
            parameters={name: entry for name, entry in self.named_parameters() if name != "item_embedding"},
        )
