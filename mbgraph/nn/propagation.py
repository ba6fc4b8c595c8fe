"""Neighbour sums over one edge type: the only place where a sparse matrix meets an embedding table.

A behavior is a bipartite relation. Both directions are needed in every layer, and the backward pass of one direction
is the other direction, so a `Relation` holds one edge list and two views of it. Degree factors live on node rows, never
on edges: the kernel is ``copy_u`` + ``sum`` and no edge-sized float tensor exists.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mbgraph._dgl import import_dgl
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn.kernels import balanced_chunks, block_pointers

if TYPE_CHECKING:
    import dgl

__all__ = ["BACKENDS", "Relation", "relations"]

BACKENDS = ("auto", "dgl", "torch")


class Relation:
    """One behavior as an operator between user rows and item rows.

    Parameters
    ----------
    graph : DGLGraph
        A graph with exactly the edges of the behavior, users as sources, items as destinations.
    backend : {"auto", "dgl", "torch"}
        ``"dgl"`` runs DGL's CPU kernel. ``"torch"`` runs a compressed sparse row product: the path for CUDA (the DGL
        wheel of PyPI has no CUDA kernels) and the oracle of the tests. ``"auto"`` takes dgl on CPU, torch elsewhere.

    Attributes
    ----------
    user_scale, item_scale : float32 tensor (U, 1), (I, 1)
        ``degree ** -0.5`` inside the behavior, 0 for nodes without an edge.
    """

    def __init__(self, graph: dgl.DGLGraph, backend: str = "auto") -> None:
        if backend not in BACKENDS:
            raise UnknownNameError("propagation backend", backend, BACKENDS)
        self.graph = graph
        self.backend = backend
        self.num_users, self.num_items = graph.num_src_nodes(), graph.num_dst_nodes()
        self.num_edges = graph.num_edges()
        self.user_scale = _inverse_sqrt(graph.out_degrees())
        self.item_scale = _inverse_sqrt(graph.in_degrees())
        self._views: dict[tuple[str, str], Any] = {}

    def to_users(self, items: Tensor) -> Tensor:
        """Sum the rows of every user's items: (I, D) -> (U, D). Users without an edge get zeros. Not recorded."""
        return self._sum("user", items)

    def to_items(self, users: Tensor) -> Tensor:
        """Sum the rows of every item's users: (U, D) -> (I, D). Items without an edge get zeros. Not recorded."""
        return self._sum("item", users)

    def neighbor_sum(self, rows: Tensor, to: str) -> Tensor:
        """Sum neighbour rows, differentiable any number of times; ``to`` is ``"user"`` or ``"item"``."""
        return _NeighborSum.apply(rows, self, to)

    def neighbors(self, side: str) -> tuple[Any, Any]:
        """Return ``(indptr, indices)`` of one side's neighbours, ascending: int64 (R + 1,), uint32 (E,)."""
        key = (side, "neighbors")
        if key not in self._views:
            indptr, indices, _ = self.graph.adj_tensors("csr" if side == "user" else "csc")
            pointers = indptr.numpy()
            keys = torch.from_numpy(np.repeat(np.arange(len(pointers) - 1), np.diff(pointers)) << 32).add_(indices)
            ordered = keys if bool((keys[1:] >= keys[:-1]).all()) else keys.sort().values
            self._views[key] = (pointers, ordered.numpy().astype(np.uint32))  # the lower half
        return self._views[key]

    def most_neighbors(self, side: str) -> int:
        """Return the largest degree of one side."""
        key = (side, "most")
        if key not in self._views:
            self._views[key] = int(np.diff(self.neighbors(side)[0]).max(initial=0))
        return self._views[key]

    def blocks(self, side: str, row_bytes: int) -> Any:
        """Return `kernels.block_pointers` of one side for source rows of so many bytes: (blocks + 1, R)."""
        key = (side, f"blocks {row_bytes}")
        if key not in self._views:
            columns = self.num_items if side == "user" else self.num_users
            self._views[key] = block_pointers(*self.neighbors(side), columns, row_bytes)
        return self._views[key]

    def chunks(self, side: str, count: int) -> list[int]:
        """Return boundaries that cut the rows of one side into so many pieces of about equal work."""
        key = (side, f"chunks {count}")
        if key not in self._views:
            self._views[key] = balanced_chunks(self.neighbors(side)[0], count)
        return self._views[key]

    def _sum(self, to: str, rows: Tensor) -> Tensor:
        on_cpu = rows.device.type == "cpu"
        kernel = ("dgl" if on_cpu else "torch") if self.backend == "auto" else self.backend
        expected = self.num_items if to == "user" else self.num_users
        if rows.shape[0] != expected:
            source = "item" if to == "user" else "user"
            raise UsageError(f"propagation to {to}s needs {expected} {source} rows, not {rows.shape[0]}")
        view = self._view(kernel, to, rows.device)
        if kernel == "dgl":
            return import_dgl().ops.copy_u_sum(view, rows.contiguous())
        return torch.mm(view, rows)

    def _view(self, kernel: str, to: str, device: torch.device) -> Any:
        key = (to, f"{kernel} {device}")
        if key not in self._views:
            if kernel == "dgl":
                view = self.graph if to == "item" else import_dgl().reverse(self.graph)
                view = view.formats("csc") if to == "item" else view.formats(["csr", "csc"])
            else:
                users, items = self.graph.edges()
                row, column = (items, users) if to == "item" else (users, items)
                shape = (self.num_items, self.num_users) if to == "item" else (self.num_users, self.num_items)
                values = torch.ones(self.num_edges, dtype=torch.float32)
                coordinates = torch.stack([row, column])
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch calls its CSR layout beta on first use
                    view = torch.sparse_coo_tensor(coordinates, values, shape, check_invariants=False)
                    view = view.coalesce().to_sparse_csr().to(device)
            self._views[key] = view
        return self._views[key]

    def __repr__(self) -> str:
        return f"Relation(users={self.num_users}, items={self.num_items}, edges={self.num_edges}, {self.backend!r})"


class _NeighborSum(torch.autograd.Function):
    """``A @ x`` whose derivative is ``A.T @ g``, expressed by itself so that it can be derived again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, relation: Relation, to: str) -> Tensor:
        ctx.relation, ctx.to = relation, to
        return relation._sum(to, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        back = "item" if ctx.to == "user" else "user"
        return _NeighborSum.apply(gradients[0], ctx.relation, back), None, None


def _inverse_sqrt(degrees: Tensor) -> Tensor:
    scale = degrees.to(torch.float32).clamp_min(1.0).rsqrt()
    return torch.where(degrees > 0, scale, torch.zeros_like(scale)).unsqueeze(1)  # (N, 1)


def relations(
    graph: dgl.DGLGraph, behaviors: tuple[str, ...] | None = None, *, padding: int = 0, backend: str = "auto"
) -> dict[str, Relation]:
    """Split a heterograph into one `Relation` per behavior.

    Parameters
    ----------
    graph : DGLGraph
        Edge types all lead from one node type (users) to another (items).
    behaviors : tuple of str, optional
        Edge types to take, in this order; all by default. Reverse edge types (``rev_...``) are left out by default.
    padding : int
        Isolated nodes appended on both sides (the published RMBRec keeps one).
    backend : str
        See `Relation`.

    Raises
    ------
    UnknownNameError
        If a behavior is not an edge type of the graph.
    UsageError
        If the edge types do not share their node types.
    """
    by_name = {etype: (source, etype, target) for source, etype, target in graph.canonical_etypes}
    chosen = tuple(name for name in by_name if not name.startswith("rev_")) if behaviors is None else tuple(behaviors)
    for name in chosen:
        if name not in by_name:
            raise UnknownNameError("behavior", name, by_name)
    ends = {(by_name[name][0], by_name[name][2]) for name in chosen}
    if len(ends) != 1:
        raise UsageError(
            f"behaviors must share one source and one destination node type, found {sorted(ends)}",
            "pass behaviors=(...) with the edge types that lead from users to items",
        )
    ((source, target),) = ends
    num_users, num_items = graph.num_nodes(source) + padding, graph.num_nodes(target) + padding
    made = {}
    for name in chosen:
        users, items = graph.edges(etype=by_name[name])
        single = import_dgl().heterograph(
            {("user", name, "item"): (users.cpu(), items.cpu())},
            num_nodes_dict={"user": num_users, "item": num_items},
        )
        made[name] = Relation(single, backend)
    return made
