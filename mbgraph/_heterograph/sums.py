"""Neighbour sums by a sparse product."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from mbgraph._heterograph.graph import CanonicalType, HeteroGraph
from mbgraph.errors import UsageError

__all__ = ["copy_u_sum"]


def copy_u_sum(graph: HeteroGraph, rows: Tensor) -> Tensor:
    """Sum the rows of every node's sources: (N source nodes, ...) -> (N destination nodes, ...), differentiable.

    A node that no edge enters gets zeros. The graph has one edge type.
    """
    source, _, target = triple = graph.to_canonical_etype(None)
    if not torch.is_floating_point(rows):
        raise UsageError(f"a neighbour sum needs floating point rows, not {rows.dtype}")
    if rows.ndim == 0 or len(rows) != graph.num_nodes(source):
        given = len(rows) if rows.ndim else "a single number"
        raise UsageError(f"a neighbour sum needs {graph.num_nodes(source)} rows of {source!r}, not {given}")
    shape = (graph.num_nodes(target), *rows.shape[1:])
    return _Sum.apply(rows.reshape(len(rows), -1), graph, triple, 2).reshape(shape)


class _Sum(torch.autograd.Function):
    """The transposed adjacency matrix times rows; its derivative is the matrix itself, so it can be derived again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, graph: HeteroGraph, triple: CanonicalType, end: int) -> Tensor:
        ctx.graph, ctx.triple, ctx.end = graph, triple, end
        exact = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()  # no product of halves on CPUs
        return torch.mm(_matrix(graph, triple, end, exact), exact).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Sum.apply(gradients[0].contiguous(), ctx.graph, ctx.triple, 2 - ctx.end), None, None, None


def _matrix(graph: HeteroGraph, triple: CanonicalType, end: int, rows: Tensor) -> Tensor:
    """Return the sparse matrix of ones that sums towards one end of the edges (0 sources, 2 destinations)."""
    key = ("matrix", triple, end, rows.dtype, rows.device)
    if key not in graph._made:
        pointers, others, _ = (part.to(rows.device) for part in graph.adj_tensors("csr" if end == 0 else "csc", triple))
        shape = (graph.num_nodes(triple[end]), graph.num_nodes(triple[2 - end]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its CSR layout beta on first use
            graph._made[key] = torch.sparse_csr_tensor(
                pointers, others, torch.ones(len(others), dtype=rows.dtype, device=rows.device), shape
            )
    return graph._made[key]
