"""LightGCN message passing over one behavior, and the encoder that runs it once per behavior.

"LightGCN" names several functions in the wild. Two arguments tell them apart here:

* ``layer_norm``: after each propagation divide every row by its Euclidean norm (published RMBRec) or not (LightGCN).
* ``combine``: add the layers 0..L (published RMBRec) or average them (LightGCN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn.compiled import Workspace
from mbgraph.nn.propagation import Relation, relations
from mbgraph.nn.rows import TINY, check_row_dtype, encode_all, encode_rows

if TYPE_CHECKING:
    import dgl

__all__ = ["COMBINE", "BehaviorEncoder", "LightGCN", "propagate_layers"]

COMBINE = ("sum", "mean")


def propagate_layers(
    relation: Relation, users: Tensor, items: Tensor, num_layers: int, layer_norm: bool
) -> list[tuple[Tensor, Tensor]]:
    r"""Return layers 0..L of both sides, differentiable any number of times.

    .. math:: X^{(l+1)} = D^{-1/2} A D^{-1/2} X^{(l)}, \quad\text{optionally } x \mapsto x / \lVert x \rVert_2

    Shapes: ``users`` (U, D), ``items`` (I, D) -> L + 1 pairs of the same shapes. A node without an edge has zero rows
    in layers 1..L.
    """
    layers = [(users, items)]
    for _ in range(num_layers):
        to_users = relation.neighbor_sum(relation.item_scale.to(items) * items, "user")  # (U, D)
        to_items = relation.neighbor_sum(relation.user_scale.to(users) * users, "item")  # (I, D)
        users = relation.user_scale.to(users) * to_users
        items = relation.item_scale.to(items) * to_items
        if layer_norm:
            users = nn.functional.normalize(users, eps=TINY)
            items = nn.functional.normalize(items, eps=TINY)
        layers.append((users, items))
    return layers


class LightGCN(nn.Module):
    """LightGCN over one behavior; holds no parameters.

    Parameters
    ----------
    num_layers : int
        Number of propagation steps L.
    layer_norm : bool
        Divide every propagated row by its Euclidean norm.
    combine : {"mean", "sum"}
        How layers 0..L become one embedding.

    References
    ----------
    He et al., "LightGCN", SIGIR 2020, Eq. 3-4 (``layer_norm=False, combine="mean"``, the defaults here).
    """

    def __init__(self, num_layers: int = 3, *, layer_norm: bool = False, combine: str = "mean") -> None:
        super().__init__()
        if combine not in COMBINE:
            raise UnknownNameError("layer combination", combine, COMBINE)
        if num_layers < 0:
            raise UsageError(f"num_layers must not be negative, got {num_layers}")
        self.num_layers, self.layer_norm, self.combine = num_layers, layer_norm, combine

    @property
    def weight(self) -> float:
        """The factor of each layer in the combination."""
        return 1.0 if self.combine == "sum" else 1.0 / (self.num_layers + 1)

    def forward(self, relation: Relation, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return combined embeddings of all nodes: (U, D), (I, D) -> (U, D), (I, D)."""
        layers = propagate_layers(relation, users, items, self.num_layers, self.layer_norm)
        user_sum, item_sum = layers[0]
        for layer_users, layer_items in layers[1:]:
            user_sum, item_sum = user_sum + layer_users, item_sum + layer_items
        return user_sum * self.weight, item_sum * self.weight

    def rows(
        self, relation: Relation, users: Tensor, items: Tensor, user_rows: Tensor, item_rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ``forward(...)`` at chosen rows only, by the hand-written pass: (N,), (M,) -> (N, D), (M, D).

        Differentiable once. Rows may repeat.
        """
        arguments = (users, items, [user_rows], [item_rows], self.num_layers, self.layer_norm, self.weight)
        return encode_rows([relation], *arguments)[0]

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"num_layers={self.num_layers}, layer_norm={self.layer_norm}, combine={self.combine!r}"


class BehaviorEncoder(nn.Module):
    """One pair of embedding tables, propagated over every behavior of a heterograph (RMBRec, Eq. 1).

    Parameters
    ----------
    graph : DGLGraph
        Heterograph whose edge types are behaviors from users to items.
    behaviors : tuple of str, optional
        Edge types to encode; all by default.
    embedding_dim, num_layers, layer_norm, combine
        See `LightGCN`.
    padding : int
        Isolated extra nodes on both sides; their rows come last.
    init_std : float
        Standard deviation of the normal initialisation.
    backend : str
        See `mbgraph.nn.propagation.Relation`.
    row_dtype : {"float32", "bfloat16"}
        What neighbours read in `rows`, the pass that trains: with bfloat16 half the bytes move, while sums, norms and
        parameters stay float32.
    rng : int
        Seed of the initialisation.

    Examples
    --------
    >>> import dgl, torch
    >>> g = dgl.heterograph({("user", "view", "item"): ([0, 1], [0, 0]), ("user", "buy", "item"): ([1], [1])},
    ...                     num_nodes_dict={"user": 3, "item": 2})
    >>> encoder = BehaviorEncoder(g, embedding_dim=4, num_layers=2)
    >>> users, items = encoder(g)["buy"]
    >>> users.shape, items.shape
    (torch.Size([3, 4]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        graph: dgl.DGLGraph,
        behaviors: tuple[str, ...] | None = None,
        *,
        embedding_dim: int = 64,
        num_layers: int = 3,
        layer_norm: bool = True,
        combine: str = "sum",
        padding: int = 0,
        init_std: float = 0.1,
        backend: str = "auto",
        row_dtype: str = "float32",
        rng: int = 0,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise UsageError(f"embedding_dim must be positive, got {embedding_dim}")
        check_row_dtype(row_dtype, embedding_dim)
        self.row_dtype, self._workspace = row_dtype, Workspace()
        self.padding, self.backend = padding, backend
        self.relations = relations(graph, behaviors, padding=padding, backend=backend)
        self.behaviors = tuple(self.relations)
        self.conv = LightGCN(num_layers, layer_norm=layer_norm, combine=combine)
        first = next(iter(self.relations.values()))
        generator = torch.Generator().manual_seed(int(rng))
        self.user_embedding = nn.Parameter(torch.randn(first.num_users, embedding_dim, generator=generator) * init_std)
        self.item_embedding = nn.Parameter(torch.randn(first.num_items, embedding_dim, generator=generator) * init_std)
        self._graph = graph

    def _relations_of(self, graph: dgl.DGLGraph | None) -> Mapping[str, Relation]:
        if graph is None or graph is self._graph:
            return self.relations
        other = relations(graph, self.behaviors, padding=self.padding, backend=self.backend)
        first = next(iter(other.values()))
        mine = (self.user_embedding.shape[0], self.item_embedding.shape[0])
        if (first.num_users, first.num_items) != mine:
            raise UsageError(
                f"the graph has {first.num_users} users and {first.num_items} items, the embedding tables {mine}",
                "encode a graph over the same nodes",
            )
        return other

    def forward(self, graph: dgl.DGLGraph | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``{behavior: ((U, D), (I, D))}``, padding rows included; another graph may be given."""
        chosen = self._relations_of(graph)
        tables = (self.user_embedding, self.item_embedding)
        if torch.is_grad_enabled():
            return {behavior: self.conv(relation, *tables) for behavior, relation in chosen.items()}
        conv = self.conv  # nobody derives it: the hand-written pass
        made = encode_all(
            list(chosen.values()), *tables, conv.num_layers, conv.layer_norm, conv.weight, self._workspace
        )
        return dict(zip(chosen, made, strict=True))

    def rows(
        self, user_rows: Mapping[str, Tensor], item_rows: Mapping[str, Tensor], *, fast: bool = True
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return embeddings at chosen rows per behavior: (N_b,), (M_b,) -> ((N_b, D), (M_b, D)).

        ``fast=False`` goes through autograd and can be derived twice (IRMv2 on parameters needs that).
        """
        tables = (self.user_embedding, self.item_embedding)
        if not fast:
            whole = {behavior: self.conv(relation, *tables) for behavior, relation in self.relations.items()}
            return {
                behavior: (users[user_rows[behavior]], items[item_rows[behavior]])
                for behavior, (users, items) in whole.items()
            }
        pairs = encode_rows(
            list(self.relations.values()),
            *tables,
            [user_rows[behavior] for behavior in self.relations],
            [item_rows[behavior] for behavior in self.relations],
            self.conv.num_layers,
            self.conv.layer_norm,
            self.conv.weight,
            self.row_dtype,
            self._workspace,
        )
        return dict(zip(self.relations, pairs, strict=True))
