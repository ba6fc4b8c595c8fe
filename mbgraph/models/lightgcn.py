"""LightGCN on the target behavior alone: what a graph model reaches without auxiliary behaviors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mbgraph.evaluation.ranking import EmbeddingScorer
from mbgraph.models.base import MODELS, Batch, Encoded, Recommender, TrainingDefaults
from mbgraph.nn import BehaviorEncoder, bpr
from mbgraph.nn.losses import triple_margin
from mbgraph.regularizers import L2, Regularizer, StepOutputs

if TYPE_CHECKING:
    import dgl

__all__ = ["LightGCN"]


@MODELS.register("lightgcn")
class LightGCN(Recommender):
    """He et al., SIGIR 2020: mean over layers, no layer normalisation, L2 on the batch's table rows.

    Parameters
    ----------
    graph, target
        See `Recommender`; only the target's edges are read.
    embedding_dim, num_layers, layer_norm, combine
        See `mbgraph.nn.LightGCN`.
    gamma : float
        See `mbgraph.nn.bpr`.
    backend : str
        See `mbgraph.nn.propagation.Relation`.
    row_dtype : {"float32", "bfloat16"}
        See `mbgraph.nn.BehaviorEncoder`.
    rng : int
        Seed of the initialisation.
    """

    name = "lightgcn"

    def __init__(
        self,
        graph: dgl.DGLGraph,
        target: str,
        *,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_norm: bool = False,
        combine: str = "mean",
        gamma: float = 0.0,
        backend: str = "auto",
        row_dtype: str = "float32",
        rng: int = 0,
    ) -> None:
        super().__init__(graph, target)
        self.embedding_dim, self.num_layers = embedding_dim, num_layers
        self.layer_norm, self.combine, self.gamma = layer_norm, combine, gamma
        self.backend, self.row_dtype = backend, row_dtype
        self.encoder = BehaviorEncoder(
            graph,
            (target,),
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            layer_norm=layer_norm,
            combine=combine,
            backend=backend,
            row_dtype=row_dtype,
            rng=rng,
        )
        self.behaviors = (target,)

    @property
    def training_defaults(self) -> TrainingDefaults:
        """Batches of 2,048 target edges; negatives from outside the user's target history."""
        return TrainingDefaults(batch_size=2048, sampler="per-edge", history="target")

    def default_regularizers(self) -> list[Regularizer]:
        """Return L2 with weight 1e-4 on the batch's table rows."""
        return [L2(weight=1e-4, on="ego")]

    def encode(self, graph: dgl.DGLGraph | None = None) -> Encoded:
        """Return embeddings of all nodes."""
        users, items = self.encoder(graph)[self.target]
        return Encoded(users, items, {self.target: (users, items)})

    @torch.no_grad()
    def scorer(self, graph: dgl.DGLGraph | None = None) -> EmbeddingScorer:
        """Return the dot-product scorer."""
        encoded = self.encode(graph)
        return EmbeddingScorer(encoded.users, encoded.items)

    def step(self, batch: Batch, *, double_backward: bool = False) -> StepOutputs:
        """Return the BPR loss of the batch's target triples."""
        present = batch.positives[self.target] >= 0
        user_rows, positives, negatives = (
            rows[present] for rows in (batch.users, batch.positives[self.target], batch.negatives[self.target])
        )
        users, items = self.encoder.rows(
            {self.target: user_rows},
            {self.target: torch.cat([positives, negatives])},
            fast=not double_backward,
        )[self.target]
        positive, negative = items.chunk(2)  # 2 x (B, D)
        margin = triple_margin(users, positive, negative)  # (B,)
        risk = bpr(margin, self.gamma).mean()
        tables = (self.encoder.user_embedding, self.encoder.item_embedding)
        return StepOutputs(
            target=self.target,
            losses={"main": risk},
            risks={self.target: risk},
            margins={self.target: margin},
            users={self.target: users},
            triples={self.target: (users, positive, negative)},
            ego={self.target: (tables[0][user_rows], tables[1][positives], tables[1][negatives])},
            tables=tables,
        )
