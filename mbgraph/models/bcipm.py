"""BCIPM: which of a user's purchases speak for an item, learned from the edges of all behaviors."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.batches import TripleBatches
from mbgraph.models.context import StepContext
from mbgraph.models.extended import BCIPMBatch, ExtendedBatches, with_purchases
from mbgraph.models.options import Count, EmbeddingOptions, NonNegative, Share, TrainingOptions
from mbgraph.models.triples import ANY
from mbgraph.nn import TwoPasses, bpr, context_gate, label_entropies, linear, mean_of_rows
from mbgraph.nn.lightgcn import layer_weights
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.nn.triples import negative_columns, triple_margin
from mbgraph.regularizers import L2, Regularizer, StepOutputs, once

__all__ = ["BCIPM"]

_PAIRS_AT_A_TIME = 2**16


class BCIPMOptions(EmbeddingOptions):
    """Options of `BCIPM`."""

    presets = {"mbgraph": {}, "official": {"padding": True, "gamma": 1e-10, "degree_eps": 1e-8}}  # noqa: RUF012

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, whose users without a purchase score 1e8 times as high as in ``mbgraph``."""
    num_layers: Annotated[int, Field(ge=0, le=64)] = 2
    """Propagation steps on each of the two graphs."""
    combine: Literal["published", "sum", "mean"] = "published"
    """Weights of layers 0..L. ``published``: 1, 2, 1.5, 1 + 1/3, .., since the code adds layer l and layer l / l."""
    pointwise: Share = 0.5
    """Factor of the cross entropy on edges; BPR on target triples has the rest of 1."""
    refresh: Count = 1
    """Steps from one propagation to the next. 1 is exact; above it, layers 1..L stand still in between and are not
    derived: cheaper, another training."""
    leave_one_out: bool = False
    """Leave the positive item of a triple out of the purchases that score it, as it is at test time."""
    degree_eps: NonNegative = 0.0
    """Added to a user's number of purchases where it divides; 0: the number counts as at least 1."""
    padding: bool = False
    """Keep the published code's padding node: an isolated row that only its norm moves."""
    gamma: NonNegative = 0.0
    """Added inside the logarithm of BPR, see `mbgraph.nn.bpr`."""

    def propagations(self, behaviors: int) -> int:
        """See `ModelOptions.propagations`; of the target's graph and of the union."""
        return 2 * self.num_layers

    def training(self) -> TrainingOptions:
        """Return every edge of every behavior in batches of 1,024 with 4 negatives, Adam with step size 1e-4."""
        return TrainingOptions(sampler="every-edge", negatives=4, lr=1e-4, patience=4)

    def regularizers(self) -> tuple[Regularizer, ...]:
        """Return the norms of both tables, not squared, each divided by its rows."""
        return (L2(weight=1e-4, on="tables", power=1, divide_by="rows"),)

    def layer_weights(self) -> tuple[float, ...]:
        """Return the factors of layers 0..L."""
        if self.combine == "published":
            return (1.0, *(1.0 + 1.0 / layer for layer in range(1, self.num_layers + 1)))
        return layer_weights(self.combine, self.num_layers)


@MODELS.register("bcipm")
class BCIPM(EmbeddingRecommender):
    r"""A gate between user, item and behavior, summed over purchases, beside the target's own graph.

    With a LightGCN of normalised layers, weighted 1, 2, 1.5, and a gate without carry :math:`\varphi`,

    .. math::
        G = \operatorname{LGN}(\hat A_{all}, E), \quad K = \operatorname{LGN}(\hat A_{target}, G), \quad
        [r, z] = \sigma(W_{rz} [u; i; V_b]), \quad \varphi(u, i, b) = z \odot \tanh(W_h [r \odot u; i; V_b]),

        p_u = \sum_{i \in N_u} \varphi(g_u, g_i, t), \quad \lambda_u = \frac{1}{|N_u|}, \quad
        s(u, j) = (1 - \lambda_u)\, p_u \cdot g_j + \lambda_u (g_u + k_u) \cdot (g_j + k_j)

    where :math:`N_u` are the user's purchases and t the target. Trained on every edge (u, i, b) of every behavior by
    the cross entropy of :math:`\varphi(g_u, g_i, b) \cdot g_i`, and by BPR of :math:`s` on a target triple of its user.

    References
    ----------
    Yan et al., "Behavior-Contextualized Item Preference Modeling for Multi-Behavior Recommendation", SIGIR 2024 (arXiv
    2404.18166); published code ``MingshiYan/BIPN`` at commit 31f3a7c.
    """

    name = "bcipm"
    Options = BCIPMOptions
    options: BCIPMOptions
    local_shares: Tensor
    citation = "Yan et al., BCIPM, SIGIR 2024 (arXiv 2404.18166)"

    def __init__(self, graph: GraphLike, target: str, **options: Any) -> None:
        super().__init__(graph, target, **options)
        width, count = self.options.embedding_dim, len(self.behaviors)
        self.make_tables(width, padding=int(self.options.padding))
        self.behavior_vectors = nn.Parameter(torch.eye(count))  # (K, K)
        generator = torch.Generator().manual_seed(self.rng + 1)
        self.gates = linear(2 * width + count, 2 * width, generator, bias=False, uniform=False)
        self.candidate = linear(2 * width + count, width, generator, bias=False, uniform=False)
        self.passes, shares = self._read(self.relations)
        self.register_buffer("local_shares", shares, persistent=False)

    def _read(self, relations: Relations) -> tuple[TwoPasses, Tensor]:
        """Return passes over the pairs of all behaviors and over the target's, and lambda of every user: (U,)."""
        padded, weights = relations.padded(int(self.options.padding)), self.options.layer_weights()
        bought, eps = relations[self.target].degree("user").float(), self.options.degree_eps
        shares = 1 / (bought + eps if eps else bought.clamp_min(1))
        return TwoPasses((padded.union(), padded[self.target]), weights, layer_norm=True, space=self.space), shares

    def begin_epoch(self, context: StepContext) -> None:
        """Forget layers that stand still: an epoch depends on its parameters alone."""
        self.passes.upper = None

    def preference(self, users: Tensor, items: Tensor, vectors: Tensor) -> Tensor:
        """Return what the gate makes of rows and behavior vectors that broadcast: 2 x (.., D), (.., K) -> (.., D)."""
        return context_gate(users, items, vectors, self.gates.weight, self.candidate.weight)

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return what scores: users ``[(1 - l) p, l (g + k)]``, items ``[g, g + k]``, both of width 2 D."""
        own = (self.passes, self.local_shares)
        passes, share = own if graph is None else self._read(self.other_relations(graph))
        (users, items), (own_users, own_items) = passes.whole(self.tables)
        purchased, target = torch.zeros_like(users), passes.relations[1]
        for rows in zip(target.users.split(_PAIRS_AT_A_TIME), target.items.split(_PAIRS_AT_A_TIME), strict=True):
            at_users, at_items = (side.to(users.device) for side in rows)
            each = self.preference(users[at_users], items[at_items], self.behavior_vectors[-1])
            purchased = purchased.index_add(0, at_users, each)
        local = (users + own_users)[: self.num_users]
        scoring = _user_vectors(purchased[: self.num_users], local, share.to(users))
        return Encoded(scoring, torch.cat([items, items + own_items], 1)[: self.num_items])

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> ExtendedBatches:
        """Return every edge of every behavior with its negatives, a target triple and the purchases of its user."""
        training.only_sampler("every-edge", "bcipm is trained on every edge")
        made = TripleBatches(dataset, (self.target,), training, any_of=self.behaviors, counts={self.target: 1}, rng=rng)
        return ExtendedBatches(made, with_purchases(dataset.csr(self.target)))

    def step(self, batch: BCIPMBatch, context: StepContext) -> StepOutputs:
        """Return the cross entropy of edges and BPR of target triples; risks and margins are those of the edges."""
        chosen, target = self.options, self.target
        rows, own = batch.rows(target), batch.positions(target)  # 3 x (B_t,), (B_t,)
        edge_users, positives, negatives = batch.rows(ANY)  # (R,), (R,), (R,) or (R, n)
        edges = torch.cat([positives.unsqueeze(1), negative_columns(negatives)], 1)  # (R, 1 + n)
        assert batch.kinds is not None
        kinds = batch.kinds[batch.positions(ANY)]  # (R,)
        # one gather per table: each costs a gradient of the table's size
        count = len(own)
        at_users = torch.cat([edge_users, batch.users[batch.owners], rows[0]])
        at_items = torch.cat([edges.flatten(), batch.bought, rows[1], rows[2]])
        refresh = None if chosen.refresh == 1 else context.step % chosen.refresh == 0
        found, (own_users, own_items) = self.passes.rows(
            self.tables, (at_users, at_items), (count, 2 * count), refresh=refresh, row_dtype=chosen.row_dtype
        )
        of_edges, buyers, users = found[0].split([len(edges), len(batch.owners), count])
        items, purchases, bought, other = found[1].split([edges.numel(), len(batch.bought), count, count])
        items = items.view(*edges.shape, items.shape[-1])  # (R, 1 + n, D)
        vectors = self.behavior_vectors[kinds].unsqueeze(1)  # (R, 1, K)
        scores = torch.linalg.vecdot(self.preference(of_edges.unsqueeze(1), items, vectors), items)  # (R, 1 + n)
        entropies = label_entropies(scores[:, 0], scores[:, 1:])  # (R, 1 + n)
        vector = self.behavior_vectors[-1]
        each = self.preference(buyers, purchases, vector)  # (M, D)
        purchased = each.new_zeros(len(batch), each.shape[1]).index_add(0, batch.owners, each)[own]  # (B_t, D)
        if chosen.leave_one_out:
            purchased = purchased - self.preference(users, bought, vector)
        pairs = zip((bought, other), own_items.chunk(2), strict=True)  # 2 x ((B_t, D), (B_t, D))
        bought, other = (torch.cat([item, item + own_item], 1) for item, own_item in pairs)  # (B_t, 2 D), (B_t, 2 D)
        triple = (_user_vectors(purchased, users + own_users, self.local_shares[rows[0]]), bought, other)
        main = mean_of_rows(bpr(triple_margin(*triple), chosen.gamma))

        @once
        def margins() -> dict[str, Tensor]:
            lead = scores[:, :1] - scores[:, 1:]  # (R, n)
            found = {name: lead[kinds == number] for number, name in enumerate(self.behaviors)}
            return {name: rows for name, rows in found.items() if len(rows)}

        return StepOutputs(
            target,
            losses={"main": (1 - chosen.pointwise) * main, "pointwise": chosen.pointwise * mean_of_rows(entropies)},
            risks=lambda: {name: bpr(margin, gamma=0).mean() for name, margin in margins().items()},
            margins=margins,
            triples={target: triple},
            ego=partial(self.ego_triples, {target: rows}),
            tables=self.tables,
        )


def _user_vectors(purchased: Tensor, local: Tensor, share: Tensor) -> Tensor:
    """Return ``[(1 - l) p, l (g + k)]``: (N, D), (N, D), (N,) -> (N, 2 D)."""
    share = share.unsqueeze(1)
    return torch.cat([(1 - share) * purchased, share * local], 1)
