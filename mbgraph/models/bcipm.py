"""BCIPM: which of a user's purchases speak for an item, learned from the edges of all behaviors."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UsageError
from mbgraph.models.base import MODELS, EmbeddingRecommender, Encoded
from mbgraph.models.batches import TripleBatches
from mbgraph.models.context import StepContext
from mbgraph.models.extended import BCIPMBatch, ExtendedBatches, with_purchases
from mbgraph.models.options import Count, EmbeddingOptions, NonNegative, Share, TrainingOptions
from mbgraph.models.triples import ANY
from mbgraph.nn import bpr, mean_of_rows, propagate, triple_margin
from mbgraph.nn.lightgcn import layer_weights
from mbgraph.nn.propagation import Rows, rows_at
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations
from mbgraph.regularizers import L2, Regularizer, StepOutputs

__all__ = ["BCIPM"]

_PAIRS_AT_A_TIME = 2**16


class BCIPMOptions(EmbeddingOptions):
    """Options of `BCIPM`."""

    presets = {  # noqa: RUF012 (a ClassVar of the base)
        "mbgraph": {},
        "official": {"padding": True, "gamma": 1e-10, "degree_eps": 1e-8},
    }

    variant: Literal["mbgraph", "official"] = "mbgraph"
    """``official`` is the published code, whose users without a purchase score 1e8 times as high; ``mbgraph`` scores
    them like users with one."""
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
        self.gates = nn.Linear(2 * width + count, 2 * width, bias=False)
        self.candidate = nn.Linear(2 * width + count, width, bias=False)
        generator = torch.Generator().manual_seed(self.rng + 1)
        for layer in (self.gates, self.candidate):
            nn.init.xavier_normal_(layer.weight, generator=generator)
        self._graphs = self._two_graphs(self.relations)
        self.register_buffer("local_shares", self._local_shares(self.relations), persistent=False)
        self._upper: tuple[Rows, Rows] | None = None

    def _two_graphs(self, relations: Relations) -> tuple[Relation, Relation]:
        """Return all behaviors as one relation, and the target's."""
        padded = relations.padded(int(self.options.padding))
        return padded.union(), padded[self.target]

    def _local_shares(self, relations: Relations) -> Tensor:
        """Return lambda of every user: (U,)."""
        bought, eps = relations[self.target].degree("user").float(), self.options.degree_eps
        return 1 / (bought + eps if eps else bought.clamp_min(1))

    def _propagated(self, relation: Relation, start: Rows, at: Rows | None = None, **changes: Any) -> Rows:
        weights = self.options.layer_weights()
        count = self.options.num_layers
        return propagate(relation, *start, count, layer_norm=True, weights=weights, at=at, space=self.space, **changes)

    def _embedded(self, at: Rows, own: tuple[int, int], context: StepContext) -> tuple[Rows, Rows]:
        """Return embeddings of the union graph at rows, and the target graph's at the last few of these rows.

        Shapes: (N,), (M,) and n, m -> ((N, D), (M, D)), ((n, D), (m, D)).
        """
        every, target = self._graphs
        forward = partial(self._propagated, row_dtype=self.options.row_dtype)
        last = _tails(at, own)
        if self.options.refresh == 1:
            start = forward(every, self.tables)
            return rows_at(start, at), forward(target, start, last)
        first = self.options.layer_weights()[0]
        if self._upper is None or context.step % self.options.refresh == 0:
            start = forward(every, self.tables)
            whole = forward(target, start)
            self._upper = (_above(start, self.tables, first), _above(whole, start, first))
            return rows_at(start, at), rows_at(whole, last)
        rows = _added(rows_at(self.tables, at), rows_at(self._upper[0], at), first)
        return rows, _added(_tails(rows, own), rows_at(self._upper[1], last), first)

    def begin_epoch(self, context: StepContext) -> None:
        """Forget layers that stand still: an epoch depends on its parameters alone."""
        self._upper = None

    def preference(self, users: Tensor, items: Tensor, vectors: Tensor) -> Tensor:
        """Return the gate's output for users, items and behavior vectors, which broadcast.

        Shapes: (.., D), (.., D), (.., K) -> (.., D).
        """
        # a product per part instead of one of all parts together: what a row's items share is computed once
        parts = [users.shape[-1], items.shape[-1], vectors.shape[-1]]
        of_user, of_item, of_vector = self.gates.weight.split(parts, 1)
        gates = linear(users, of_user) + linear(vectors, of_vector) + linear(items, of_item)  # (.., 2 D)
        reset, update = torch.sigmoid(gates).chunk(2, -1)
        of_user, of_item, of_vector = self.candidate.weight.split(parts, 1)
        kept = linear(reset * users, of_user) + linear(items, of_item) + linear(vectors, of_vector)
        return update * torch.tanh(kept)

    def encode(self, graph: GraphLike | None = None) -> Encoded:
        """Return what scores: users ``[(1 - l) p, l (g + k)]``, items ``[g, g + k]``, both of width 2 D."""
        relations = self.other_relations(graph)
        every, target = self._graphs if graph is None else self._two_graphs(relations)
        start = self._propagated(every, self.tables)
        (users, items), (own_users, own_items) = start, self._propagated(target, start)
        purchased = torch.zeros_like(users)
        for rows in zip(target.users.split(_PAIRS_AT_A_TIME), target.items.split(_PAIRS_AT_A_TIME), strict=True):
            at_users, at_items = (side.to(users.device) for side in rows)
            each = self.preference(users[at_users], items[at_items], self.behavior_vectors[-1])
            purchased = purchased.index_add(0, at_users, each)
        real, share = self.num_users, self.local_shares if graph is None else self._local_shares(relations).to(users)
        scoring = _user_vectors(purchased[:real], (users + own_users)[:real], share)
        return Encoded(scoring, torch.cat([items, items + own_items], 1)[: self.num_items])

    def batches(self, dataset: MultiBehaviorDataset, training: TrainingOptions, rng: int) -> ExtendedBatches:
        """Return every edge of every behavior with its negatives, a target triple and the purchases of its user."""
        if training.sampler != "every-edge":
            raise UsageError(
                f"bcipm is trained on every edge and knows no sampler {training.sampler!r}", "leave sampler out"
            )
        counts = {self.target: 1}
        triples = TripleBatches(dataset, (self.target,), training, any_of=self.behaviors, counts=counts, rng=rng)
        return ExtendedBatches(triples, with_purchases(dataset.csr(self.target)))

    def step(self, batch: BCIPMBatch, context: StepContext) -> StepOutputs:
        """Return the cross entropy of edges and BPR of target triples; risks and margins are those of the edges."""
        chosen, target = self.options, self.target
        rows, own = batch.rows(target), batch.positions(target)  # 3 x (B_t,), (B_t,)
        edge_users, positives, negatives = batch.rows(ANY)  # (R,), (R,), (R,) or (R, n)
        edges = torch.cat([positives.unsqueeze(1), negatives if negatives.ndim == 2 else negatives.unsqueeze(1)], 1)
        assert batch.kinds is not None
        kinds = batch.kinds[batch.positions(ANY)]  # (R,)

        # one gather per table: each costs a gradient of the table's size
        count = len(own)
        at = (
            torch.cat([edge_users, batch.users[batch.owners], rows[0]]),
            torch.cat([edges.flatten(), batch.bought, rows[1], rows[2]]),
        )
        found, (own_users, own_items) = self._embedded(at, (count, 2 * count), context)
        of_edges, buyers, users = found[0].split([len(edges), len(batch.owners), count])
        items, purchases, bought, other = found[1].split([edges.numel(), len(batch.bought), count, count])
        own_bought, own_other = own_items.chunk(2)

        items = items.view(*edges.shape, items.shape[-1])  # (R, 1 + n, D)
        vectors = self.behavior_vectors[kinds].unsqueeze(1)  # (R, 1, K)
        scores = torch.linalg.vecdot(self.preference(of_edges.unsqueeze(1), items, vectors), items)  # (R, 1 + n)
        entropies = torch.cat([bpr(scores[:, :1], gamma=0), bpr(-scores[:, 1:], gamma=0)], 1)  # of labels 1 and 0

        vector = self.behavior_vectors[-1]
        each = self.preference(buyers, purchases, vector)  # (M, D)
        purchased = each.new_zeros(len(batch), each.shape[1]).index_add(0, batch.owners, each)[own]  # (B_t, D)
        if chosen.leave_one_out:
            purchased = purchased - self.preference(users, bought, vector)
        triple = (
            _user_vectors(purchased, users + own_users, self.local_shares[rows[0]]),
            torch.cat([bought, bought + own_bought], 1),
            torch.cat([other, other + own_other], 1),
        )  # 3 x (B_t, 2 D)
        main = mean_of_rows(bpr(triple_margin(*triple), chosen.gamma))

        def margins() -> dict[str, Tensor]:
            lead = scores[:, :1] - scores[:, 1:]  # (R, n)
            return {
                name: lead[kinds == number] for number, name in enumerate(self.behaviors) if (kinds == number).any()
            }

        outputs = StepOutputs(
            target,
            losses={"main": (1 - chosen.pointwise) * main, "pointwise": chosen.pointwise * mean_of_rows(entropies)},
            risks=lambda: {name: bpr(margin, gamma=0).mean() for name, margin in outputs.margins.items()},
            margins=margins,
            triples={target: triple},
            ego=partial(self.ego_triples, {target: rows}),
            tables=self.tables,
        )
        return outputs


def _user_vectors(purchased: Tensor, local: Tensor, share: Tensor) -> Tensor:
    """Return ``[(1 - l) p, l (g + k)]``: (N, D), (N, D), (N,) -> (N, 2 D)."""
    share = share.unsqueeze(1)
    return torch.cat([(1 - share) * purchased, share * local], 1)


def _above(total: Rows, start: Rows, first: float) -> Rows:
    """Return what layers above the first add to a sum, as numbers: ((U, D), (I, D)) twice -> the same."""
    return (total[0] - first * start[0]).detach(), (total[1] - first * start[1]).detach()


def _added(start: Rows, above: Rows, first: float) -> Rows:
    return first * start[0] + above[0], first * start[1] + above[1]


def _tails(pair: Rows, counts: tuple[int, int]) -> Rows:
    return pair[0][len(pair[0]) - counts[0] :], pair[1][len(pair[1]) - counts[1] :]
