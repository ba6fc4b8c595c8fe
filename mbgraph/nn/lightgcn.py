"""LightGCN message passing over one behavior, and the encoder that runs it once per behavior.

"LightGCN" names several functions in the wild. Two arguments tell them apart here:

* ``layer_norm``: after each propagation divide every row by its Euclidean norm (published RMBRec) or not (LightGCN).
* ``combine``: add the layers 0..L (published RMBRec) or average them (LightGCN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn.propagation import Relation, relations

if TYPE_CHECKING:
    import dgl

__all__ = ["COMBINE", "BehaviorEncoder", "LightGCN", "propagate_layers"]

COMBINE = ("sum", "mean")
_TINY = 1e-12  # rows shorter than this count as zero, as in torch.nn.functional.normalize


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
            users = nn.functional.normalize(users, eps=_TINY)
            items = nn.functional.normalize(items, eps=_TINY)
        layers.append((users, items))
    return layers


class _EncodeRows(torch.autograd.Function):
    """All layers of one behavior, combined, at chosen rows; forward and backward written by hand.

    Through autograd every layer costs several table-sized temporaries and each gathered row block a dense gradient. By
    hand a layer is one neighbour sum and in-place arithmetic, and the gathered gradients are scattered once. Under
    ``layer_norm`` the receiver's degree factor cancels, so it is not even applied.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        user_rows: Tensor,
        item_rows: Tensor,
        relation: Relation,
        num_layers: int,
        layer_norm: bool,
        weight: float,
    ) -> tuple[Tensor, Tensor]:
        user_scale, item_scale = relation.user_scale.to(users), relation.item_scale.to(items)
        user_sum, item_sum = users.index_select(0, user_rows), items.index_select(0, item_rows)
        kept: list[Tensor] = []
        for _ in range(num_layers):
            next_users = relation.to_users(items * item_scale)  # (U, D)
            next_items = relation.to_items(users * user_scale)  # (I, D)
            if layer_norm:
                kept += [next_users, _normalize_(next_users), next_items, _normalize_(next_items)]
            else:
                next_users.mul_(user_scale)
                next_items.mul_(item_scale)
            users, items = next_users, next_items
            user_sum += users.index_select(0, user_rows)
            item_sum += items.index_select(0, item_rows)
        ctx.save_for_backward(user_rows, item_rows, *kept)
        ctx.relation, ctx.num_layers, ctx.layer_norm, ctx.weight = relation, num_layers, layer_norm, weight
        return user_sum.mul_(weight), item_sum.mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        user_rows, item_rows, *kept = ctx.saved_tensors
        relation = ctx.relation
        user_gradient, item_gradient = gradients
        user_scale, item_scale = relation.user_scale.to(user_gradient), relation.item_scale.to(item_gradient)
        shape_users = (relation.num_users, user_gradient.shape[1])
        shape_items = (relation.num_items, item_gradient.shape[1])
        # The combined output reaches every layer with the same gradient.
        out_users = user_gradient.new_zeros(shape_users).index_add_(0, user_rows, user_gradient * ctx.weight)
        out_items = item_gradient.new_zeros(shape_items).index_add_(0, item_rows, item_gradient * ctx.weight)
        users, items = out_users, out_items  # gradient at the layer in hand
        for layer in reversed(range(ctx.num_layers)):
            if ctx.layer_norm:
                user_unit, user_inverse, item_unit, item_inverse = kept[4 * layer : 4 * layer + 4]
                users = _normalize_backward(users, user_unit, user_inverse)
                items = _normalize_backward(items, item_unit, item_inverse)
            else:
                users, items = users * user_scale, items * item_scale
            below_items = relation.to_items(users).mul_(item_scale).add_(out_items)
            below_users = relation.to_users(items).mul_(user_scale).add_(out_users)
            users, items = below_users, below_items
        return users, items, None, None, None, None, None, None


def _normalize_(rows: Tensor) -> Tensor:
    """Normalise rows in place and return the inverse norms (N, 1), 0 for zero rows."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    inverse = torch.where(norms > _TINY, norms.reciprocal(), torch.zeros_like(norms))
    rows.mul_(inverse)
    return inverse


def _normalize_backward(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient before ``y / |y|``: project out the direction of the row, divide by its norm."""
    along = torch.linalg.vecdot(gradient, unit).unsqueeze(1)  # (N, 1)
    return torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)


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
        return _EncodeRows.apply(
            users, items, user_rows, item_rows, relation, self.num_layers, self.layer_norm, self.weight
        )

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
        rng: int = 0,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise UsageError(f"embedding_dim must be positive, got {embedding_dim}")
        self.padding = padding
        self.relations = relations(graph, behaviors, padding=padding)
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
        other = relations(graph, self.behaviors, padding=self.padding)
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
        return {
            behavior: self.conv(relation, self.user_embedding, self.item_embedding)
            for behavior, relation in self._relations_of(graph).items()
        }

    def rows(
        self, user_rows: Mapping[str, Tensor], item_rows: Mapping[str, Tensor], *, fast: bool = True
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return embeddings at chosen rows per behavior: (N_b,), (M_b,) -> ((N_b, D), (M_b, D)).

        ``fast=False`` goes through autograd and can be derived twice (IRMv2 on parameters needs that).
        """
        out = {}
        for behavior, relation in self.relations.items():
            arguments = (relation, self.user_embedding, self.item_embedding)
            if fast:
                out[behavior] = self.conv.rows(*arguments, user_rows[behavior], item_rows[behavior])
            else:
                users, items = self.conv(*arguments)
                out[behavior] = users[user_rows[behavior]], items[item_rows[behavior]]
        return out
