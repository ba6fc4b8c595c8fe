"""The behaviors of a heterograph in their order, target last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn.relation import Relation

if TYPE_CHECKING:
    import dgl

__all__ = ["GraphLike", "Relations"]

GraphLike: TypeAlias = "dgl.DGLGraph | Relations | Any"
"""A DGL heterograph, a PyG ``HeteroData``, or `Relations`."""

_REVERSE = "rev_"
_KNOWN_EDGE_DATA = {"time", "_ID", "_TYPE"}


class Relations(Mapping[str, Relation]):
    """An ordered mapping of behaviors to relations over the same users and items.

    Parameters
    ----------
    relations : mapping of str to Relation
    target : str, optional
        Moved to the end.
    has_order : bool
        Whether the order means something (a dataset's, or one that the caller named) and is not just how a graph
        happens to list its edge types.

    Raises
    ------
    UnknownNameError
        If the target is not one of the behaviors.
    UsageError
        If there is no relation, or they differ in their numbers of nodes.
    """

    def __init__(self, relations: Mapping[str, Relation], target: str | None = None, has_order: bool = True) -> None:
        if not relations:
            raise UsageError("a model needs at least one behavior", "give a graph with an edge type per behavior")
        if target is not None and target not in relations:
            raise UnknownNameError("target behavior", target, relations)
        sizes = {(relation.num_users, relation.num_items) for relation in relations.values()}
        if len(sizes) > 1:
            raise UsageError(f"behaviors must share their users and items, found {sorted(sizes)}")
        order = [name for name in relations if name != target] + ([] if target is None else [target])
        self._relations = {name: relations[name] for name in order}
        self.target, self.has_order = target, has_order
        ((self.num_users, self.num_items),) = sizes

    @classmethod
    def of(cls, graph: GraphLike, behaviors: Sequence[str] | None = None, target: str | None = None) -> Relations:
        """Return the relations of any kind of graph.

        Parameters
        ----------
        graph : DGLGraph, PyG HeteroData or Relations
            The chosen edge types all lead from one node type (users) to another (items), whatever they are called.
        behaviors : sequence of str, optional
            Edge types in the order wanted. By default all but reverse ones (``rev_..``), in the graph's order: a
            dataset's graph has the dataset's.
        target : str, optional
            The behavior that comes last.

        Raises
        ------
        UnknownNameError
            If a behavior is not an edge type of the graph.
        UsageError
            If the edge types do not share their node types, two have one name, an edge stands twice, or edges carry
            data other than ``time``: weights are not read, and must not be lost silently.
        """
        if isinstance(graph, Relations):
            chosen = graph if behaviors is None else graph.select(behaviors)
            return cls(chosen._relations, target, graph.has_order or behaviors is not None)
        reader = _read_pyg if hasattr(graph, "edge_index_dict") else _read_dgl
        types = reader(graph)
        names = [name for name in types if not name.startswith(_REVERSE)]
        order = tuple(behaviors) if behaviors is not None else getattr(graph, "behaviors", None)
        has_order = order is not None
        order = tuple(names) if order is None else tuple(order)
        if target is not None and target not in types:
            raise UnknownNameError("target behavior", target, names)
        for name in order:
            if name not in types:
                raise UnknownNameError("behavior", name, types)
            if types[name].is_ambiguous:
                raise UsageError(
                    f"several edge types of the graph are called {name!r}, between different node types",
                    "slice the graph, or rename one of them",
                )
        ends = {types[name].ends for name in order}
        if len(ends) > 1:
            raise UsageError(
                f"behaviors must share one source and one destination node type, found {sorted(ends)}",
                "pass behaviors=(...) with the edge types that lead from users to items",
            )
        return cls({name: types[name].relation(name) for name in order}, target, has_order)

    def __getitem__(self, behavior: str) -> Relation:
        if behavior not in self._relations:
            raise UnknownNameError("behavior", behavior, self._relations)
        return self._relations[behavior]

    def __iter__(self) -> Iterator[str]:
        return iter(self._relations)

    def __len__(self) -> int:
        return len(self._relations)

    def __contains__(self, behavior: object) -> bool:
        return behavior in self._relations

    def __repr__(self) -> str:
        edges = ", ".join(f"{name}={relation.num_edges:,}" for name, relation in self.items())
        return f"Relations({self.num_users:,} users, {self.num_items:,} items, {edges}; target {self.target!r})"

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """All behaviors but the target, in order."""
        return tuple(name for name in self if name != self.target)

    def select(self, behaviors: Sequence[str]) -> Relations:
        """Return some behaviors, in the order given, the target last."""
        target = self.target if self.target in behaviors else None
        return Relations({name: self[name] for name in behaviors}, target, self.has_order)

    def replace(self, **changes: Any) -> Relations:
        """Return all relations with another ``norm`` or ``backend``, see `Relation.replace`."""
        return self._each(lambda relation: relation.replace(**changes))

    def padded(self, count: int) -> Relations:
        """Return the relations with ``count`` isolated nodes appended on both sides."""
        if not count:
            return self
        sizes = {"num_users": self.num_users + count, "num_items": self.num_items + count}
        return self._each(lambda relation: relation.replace(**sizes))

    def union(self, *behaviors: str) -> Relation:
        """Return the pairs that stand in any of the behaviors, each once; all behaviors if none is named."""
        first, *others = (self[name] for name in (behaviors or tuple(self)))
        return first.union(*others)

    def meet(self, one: str, other: str) -> Relation:
        """Return the pairs of one behavior that stand in another too."""
        return self[one].meet(self[other])

    def minus(self, one: str, other: str) -> Relation:
        """Return the pairs of one behavior that do not stand in another."""
        return self[one].minus(self[other])

    def presence(self, side: str, nodes: Tensor, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return 1 for nodes with an edge in a behavior, 0 for others, on the nodes' device: (N,) -> K x (N,)."""
        return {name: relation.presence(side, nodes.device, dtype)[nodes] for name, relation in self.items()}

    def shares(self, side: str, *, eps: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the share of each behavior in the pairs of every node of a side: (U, K) or (I, K).

        Nodes without any pair have zeros. ``eps`` is added to a node's number of pairs where it divides.
        """
        degrees = torch.stack([relation.degree(side) for relation in self.values()], 1).to(dtype)
        total = degrees.sum(1, keepdim=True)
        return degrees / (total + eps if eps else total.clamp_min(1))

    def _each(self, change: Any) -> Relations:
        changed = {name: change(relation) for name, relation in self.items()}
        return Relations(changed, self.target, self.has_order)


class _EdgeType:
    """One edge type of a foreign graph, read when it is wanted."""

    def __init__(self, ends: tuple[str, str], sizes: tuple[int, int], users: Any, items: Any, data: Mapping[str, Any]):
        self.ends, self.sizes, self.users, self.items, self.data = ends, sizes, users, items, data
        self.is_ambiguous = False

    def relation(self, name: str) -> Relation:
        unread = sorted(set(self.data) - _KNOWN_EDGE_DATA)
        if unread:
            raise UsageError(
                f"edges of {name!r} carry {unread[0]!r}, which no model reads",
                "remove it from the graph, or weigh pairs yourself with Relation.weighted_sum",
            )
        made = Relation(self.users, self.items, *self.sizes, time=self.data.get("time"))
        pointers, indices = made.neighbors("user")
        twice = (indices[1:] == indices[:-1]).nonzero()[0]
        starts = set(pointers.tolist()) if len(twice) else set()
        for place in twice.tolist():
            if place + 1 not in starts:
                raise UsageError(
                    f"an edge of {name!r} stands twice, item {indices[place]}",
                    "keep one of each, as mbgraph datasets do",
                )
        return made


def _read_dgl(graph: Any) -> dict[str, _EdgeType]:
    if not hasattr(graph, "canonical_etypes"):
        raise UsageError(
            f"cannot read behaviors of a {type(graph).__name__}",
            "give a DGL heterograph, a PyG HeteroData or Relations",
        )
    found: dict[str, _EdgeType] = {}
    for source, name, destination in graph.canonical_etypes:
        users, items = graph.edges(etype=(source, name, destination))
        sizes = (graph.num_nodes(source), graph.num_nodes(destination))
        data = dict(graph[source, name, destination].edata)
        _add(found, name, _EdgeType((source, destination), sizes, users, items, data))
    return found


def _read_pyg(data: Any) -> dict[str, _EdgeType]:
    found: dict[str, _EdgeType] = {}
    for source, name, destination in data.edge_types:
        store = data[source, name, destination]
        sizes = tuple(int(data[kind].num_nodes) for kind in (source, destination))
        extra = {key: value for key, value in store.items() if key != "edge_index"}
        users, items = store["edge_index"]
        _add(found, name, _EdgeType((source, destination), (sizes[0], sizes[1]), users, items, extra))
    return found


def _add(found: dict[str, _EdgeType], name: str, edge_type: _EdgeType) -> None:
    if name in found:
        found[name].is_ambiguous = True
    else:
        found[name] = edge_type
