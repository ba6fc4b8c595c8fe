"""LightGCN message passing over one behavior, and the encoder that runs it once per behavior.

"LightGCN" names several functions in the wild. Two arguments tell them apart here:

* ``layer_norm``: after each propagation divide every row by its Euclidean norm (published RMBRec) or not (LightGCN).
* ``combine``: add the layers 0..L (published RMBRec) or average them (LightGCN).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mbgraph._kernels import Workspace
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn.propagation import Rows, check_row_dtype, propagate, propagate_each
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import GraphLike, Relations

__all__ = ["COMBINE", "At", "BehaviorEncoder", "LightGCN", "layer_weights"]

COMBINE = ("sum", "mean")


def layer_weights(combine: str, num_layers: int) -> tuple[float, ...]:
    """Return the factors of layers 0..L: all 1 for ``"sum"``, all 1 / (L + 1) for ``"mean"``."""
    if combine not in COMBINE:
        raise UnknownNameError("layer combination", combine, COMBINE)
    return (1.0 if combine == "sum" else 1.0 / (num_layers + 1),) * (num_layers + 1)


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

    Examples
    --------
    >>> import torch, mbgraph as mb
    >>> graph = mb.load_dataset("demo").graph["user", "buy", "item"]
    >>> users, items = torch.randn(graph.num_nodes("user"), 8), torch.randn(graph.num_nodes("item"), 8)
    >>> [tuple(table.shape) for table in LightGCN(num_layers=2)(graph, users, items)] == [users.shape, items.shape]
    True

    References
    ----------
    He et al., "LightGCN", SIGIR 2020, Eq. 3-4 (``layer_norm=False, combine="mean"``, the defaults here).
    """

    def __init__(self, num_layers: int = 3, *, layer_norm: bool = False, combine: str = "mean") -> None:
        super().__init__()
        if num_layers < 0:
            raise UsageError(f"num_layers must not be negative, got {num_layers}")
        self.num_layers, self.layer_norm, self.combine = num_layers, layer_norm, combine
        self.weights = layer_weights(combine, num_layers)

    def forward(
        self, graph: Relation | GraphLike, users: Tensor, items: Tensor, at: Rows | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return combined embeddings of all nodes, or of the rows ``at``.

        Parameters
        ----------
        graph : Relation, DGLGraph, PyG HeteroData or Relations
            Of one edge type, for example ``g["user", "buy", "item"]``.
        users, items : Tensor (U, D), (I, D)
        at : (int64 tensor (N,), int64 tensor (M,)), optional

        Returns
        -------
        (Tensor, Tensor)
            (U, D), (I, D), or (N, D), (M, D).
        """
        relation = graph if isinstance(graph, Relation) else _only_relation(graph)
        return propagate(
            relation, users, items, self.num_layers, layer_norm=self.layer_norm, weights=self.weights, at=at
        )

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"num_layers={self.num_layers}, layer_norm={self.layer_norm}, combine={self.combine!r}"


_read: WeakKeyDictionary[object, tuple[int, Relation]] = WeakKeyDictionary()
"""Graphs that were read once, by their numbers of edges: a training loop passes the same one in every step."""


def _only_relation(graph: GraphLike) -> Relation:
    if isinstance(graph, Relations) or not hasattr(graph, "__weakref__"):
        return _only(Relations.of(graph))
    counted = getattr(graph, "num_edges", 0)  # a method of DGL's graphs, a property of PyG's
    count = int(counted() if callable(counted) else counted)
    known = _read.get(graph)
    if known is None or known[0] != count:  # DGL adds edges in place
        known = _read[graph] = (count, _only(Relations.of(graph)))
    return known[1]


def _only(relations: Relations) -> Relation:
    if len(relations) != 1:
        raise UsageError(
            f"LightGCN needs a graph of one behavior, this one has {', '.join(relations)}",
            "slice it: graph['user', 'buy', 'item'], or use BehaviorEncoder",
        )
    return relations[next(iter(relations))]


class At(NamedTuple):
    """Embeddings at named rows of one behavior.

    Attributes
    ----------
    users, items : dict of str to Tensor (N, D)
    """

    users: dict[str, Tensor]
    items: dict[str, Tensor]


class BehaviorEncoder(nn.Module):
    """One pair of embedding tables, propagated over every behavior of a heterograph (RMBRec, Eq. 1).

    Parameters
    ----------
    graph : DGLGraph, PyG HeteroData or Relations
        Edge types are behaviors from users to items.
    behaviors : sequence of str, optional
        Edge types to encode, in this order; all by default.
    embedding_dim, num_layers, layer_norm, combine
        See `LightGCN`.
    padding : int
        Isolated extra nodes on both sides; their rows come last.
    init_std : float
        Standard deviation of the normal initialisation.
    backend : str
        See `Relation`.
    row_dtype : {"float32", "bfloat16"}
        What neighbours read in `at`, the pass that trains, see `propagate`.
    rng : int
        Seed of the initialisation.

    Examples
    --------
    >>> import mbgraph as mb
    >>> graph = mb.load_dataset("demo").graph
    >>> encoder = BehaviorEncoder(graph, embedding_dim=4, num_layers=2)
    >>> users, items = encoder()["buy"]
    >>> users.shape[1], encoder.behaviors
    (4, ('view', 'cart', 'buy'))
    """

    def __init__(
        self,
        graph: GraphLike,
        behaviors: Sequence[str] | None = None,
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
        self.row_dtype, self.padding, self.backend = row_dtype, padding, backend
        self._space = Workspace()
        self.relations = self._prepared(graph, behaviors)
        self.conv = LightGCN(num_layers, layer_norm=layer_norm, combine=combine)
        sizes = (self.relations.num_users, self.relations.num_items)
        generator = torch.Generator().manual_seed(int(rng))
        self.user_embedding, self.item_embedding = (
            nn.Parameter(torch.randn(count, embedding_dim, generator=generator) * init_std) for count in sizes
        )

    @property
    def behaviors(self) -> tuple[str, ...]:
        """Behaviors that are encoded, in order."""
        return tuple(self.relations)

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """User table and item table, padding rows included: (U, D), (I, D)."""
        return self.user_embedding, self.item_embedding

    def _prepared(self, graph: GraphLike, behaviors: Sequence[str] | None) -> Relations:
        target = graph.target if isinstance(graph, Relations) else None
        return Relations.of(graph, behaviors, target).replace(backend=self.backend).padded(self.padding)

    def _relations_of(self, graph: GraphLike | None) -> Relations:
        if graph is None:
            return self.relations
        other = self._prepared(graph, self.behaviors)
        mine = (len(self.user_embedding), len(self.item_embedding))
        if (other.num_users, other.num_items) != mine:
            raise UsageError(
                f"the graph has {other.num_users} users and {other.num_items} items, the embedding tables {mine}",
                "encode a graph over the same nodes",
            )
        return other

    def forward(self, graph: GraphLike | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``{behavior: ((U, D), (I, D))}``, padding rows included; another graph may be given."""
        chosen = self._relations_of(graph)
        conv = self.conv
        pairs = propagate_each(
            list(chosen.values()), *self.tables, conv.num_layers,
            layer_norm=conv.layer_norm, weights=conv.weights, space=self._space,
        )  # fmt: skip
        return dict(zip(chosen, pairs, strict=True))

    def at(self, users: Mapping[str, Mapping[str, Tensor]], items: Mapping[str, Mapping[str, Tensor]]) -> dict[str, At]:
        """Return embeddings at named rows of every behavior; the last layer is computed there only.

        Parameters
        ----------
        users, items : mapping of str to mapping of str to int64 tensor (N,)
            Per behavior, row numbers by a name of the caller's choice. Rows may repeat.

        Returns
        -------
        dict of str to At
            The same names, with embeddings (N, D).
        """
        rows = [(_joined(users[behavior]), _joined(items[behavior])) for behavior in self.relations]  # K x ((N,), (M,))
        conv = self.conv
        pairs = propagate_each(
            list(self.relations.values()), *self.tables, conv.num_layers, layer_norm=conv.layer_norm,
            weights=conv.weights, at=rows, row_dtype=self.row_dtype, space=self._space,
        )  # fmt: skip
        return {
            behavior: At(_parted(pair[0], users[behavior]), _parted(pair[1], items[behavior]))
            for behavior, pair in zip(self.relations, pairs, strict=True)
        }


def _joined(rows: Mapping[str, Tensor]) -> Tensor:
    return torch.cat(list(rows.values())) if rows else torch.empty(0, dtype=torch.int64)


def _parted(table: Tensor, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # split, not sliced: the derivative of a slice is a table of zeros around it
    return dict(zip(rows, table.split([len(part) for part in rows.values()]), strict=True))
