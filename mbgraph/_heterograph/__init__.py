"""A small heterograph for where DGL is not: edge lists per edge type, under DGL's names and in DGL's order.

It holds what mbgraph asks of a graph and no more. Node types and edge types are sorted as DGL sorts them, edges keep
the order they were given in, and a graph goes to DGL and back without loss. What DGL leaves undefined (negative ids,
ids of nodes that do not exist) is an error here.
"""

from types import SimpleNamespace

from mbgraph._heterograph.build import heterograph
from mbgraph._heterograph.graph import CanonicalType, HeteroGraph, reverse
from mbgraph._heterograph.sums import copy_u_sum

__all__ = ["CanonicalType", "HeteroGraph", "heterograph", "ops", "reverse"]

ops = SimpleNamespace(copy_u_sum=copy_u_sum)
"""Neighbour sums, where DGL has them."""
