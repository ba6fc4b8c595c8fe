"""Nodes and edges of several types, and the questions one asks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mbgraph._heterograph.features import Features
from mbgraph.errors import UnknownNameError, UsageError

__all__ = ["CanonicalType", "HeteroGraph", "reverse"]

CanonicalType: TypeAlias = tuple[str, str, str]
"""Source node type, edge type, destination node type."""

_FORMATS = ("coo", "csr", "csc")
_ORDERS = (None, "eid", "srcdst")


class HeteroGraph:
    """Nodes and edges of several types; made by `heterograph`.

    Parameters
    ----------
    edges : mapping of canonical edge type to (sources, destinations)
        Integer tensors (E,), one dtype and device for all.
    num_nodes : mapping of node type to int

    Attributes
    ----------
    ntypes, etypes, canonical_etypes : list of str, list of str, list of tuple
        Sorted by `heterograph`, edge types by their triples.
    ndata, edata : mapping of feature name to tensor
        Features of nodes (N, ...) and edges (E, ...). With several types the value is a mapping of type to tensor, as
        in DGL.
    """

    def __init__(self, edges: Mapping[CanonicalType, tuple[Tensor, Tensor]], num_nodes: Mapping[str, int]) -> None:
        self._edges, self._num_nodes = dict(edges), dict(num_nodes)
        self._made: dict[Any, Any] = {}
        self.ndata = Features(dict(self._num_nodes))
        self.edata = Features({etype: len(sources) for etype, (sources, _) in self._edges.items()})

    @property
    def ntypes(self) -> list[str]:
        """Node types."""
        return list(self._num_nodes)

    @property
    def canonical_etypes(self) -> list[CanonicalType]:
        """Triples (source node type, edge type, destination node type)."""
        return list(self._edges)

    @property
    def etypes(self) -> list[str]:
        """The middle of each triple, in the order of `canonical_etypes`."""
        return [etype for _, etype, _ in self._edges]

    @property
    def idtype(self) -> torch.dtype:
        """Type of node and edge ids, int32 or int64."""
        return next(iter(self._edges.values()))[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return next(iter(self._edges.values()))[0].device

    def to_canonical_etype(self, etype: str | CanonicalType | None) -> CanonicalType:
        """Return the triple that a name, a triple or None (the only edge type) stands for.

        Raises
        ------
        UsageError
            If there is no such edge type, or more than one.
        """
        if etype is None:
            found = list(self._edges)
            if len(found) > 1:
                raise UsageError("this graph has several edge types", f"pass etype=, one of: {', '.join(self.etypes)}")
        elif isinstance(etype, str):
            found = [triple for triple in self._edges if triple[1] == etype]
            if len(found) > 1:
                raise UsageError(f"edge type {etype!r} is ambiguous", "pass (source type, edge type, destination type)")
        else:
            found = [triple for triple in self._edges if triple == tuple(etype)]
        if not found:
            raise UnknownNameError("edge type", etype if isinstance(etype, str) else " ".join(etype or ()), self.etypes)
        return found[0]

    def num_nodes(self, ntype: str | None = None) -> int:
        """Return the number of nodes of a type, of all types by default."""
        if ntype is None:
            return sum(self._num_nodes.values())
        if ntype not in self._num_nodes:
            raise UnknownNameError("node type", ntype, self._num_nodes)
        return self._num_nodes[ntype]

    def num_edges(self, etype: str | CanonicalType | None = None) -> int:
        """Return the number of edges of a type, of all types by default."""
        chosen = list(self._edges) if etype is None else [self.to_canonical_etype(etype)]
        return sum(len(self._edges[triple][0]) for triple in chosen)

    def num_src_nodes(self, ntype: str | None = None) -> int:
        """Return the number of nodes of a source type, of all types that edges leave by default."""
        return self._num_end_nodes(0, ntype)

    def num_dst_nodes(self, ntype: str | None = None) -> int:
        """Return the number of nodes of a destination type, of all types that edges enter by default."""
        return self._num_end_nodes(2, ntype)

    def edges(
        self, form: str = "uv", order: str | None = "eid", etype: str | CanonicalType | None = None
    ) -> tuple[Tensor, ...] | Tensor:
        """Return the edges of a type.

        Parameters
        ----------
        form : {"uv", "eid", "all"}
            Sources and destinations, edge ids, or all three.
        order : {"eid", "srcdst"} or None
            By edge id, which is the order they were given in and what None means too, or by source and destination.
        etype : str or tuple, optional
            Needed with several edge types.
        """
        if form not in ("uv", "eid", "all"):
            raise UnknownNameError("form of edges", str(form), ("uv", "eid", "all"))
        if order not in _ORDERS:
            raise UnknownNameError("order of edges", str(order), [name for name in _ORDERS if name])
        triple = self.to_canonical_etype(etype)
        sources, destinations = self._edges[triple]  # (E,)
        ids = torch.arange(len(sources), dtype=self.idtype, device=self.device)  # (E,)
        if order == "srcdst":
            ids = ids[destinations.argsort(stable=True)]
            ids = ids[sources[ids.long()].argsort(stable=True)]
            sources, destinations = sources[ids.long()], destinations[ids.long()]
        if form == "eid":
            return ids
        return (sources, destinations) if form == "uv" else (sources, destinations, ids)

    def in_degrees(self, v: Any = None, etype: str | CanonicalType | None = None) -> Tensor | int:
        """Return the number of edges that enter the nodes ``v``, all by default; an int for a single node."""
        return self._degrees(2, v, etype)

    def out_degrees(self, u: Any = None, etype: str | CanonicalType | None = None) -> Tensor | int:
        """Return the number of edges that leave the nodes ``u``, all by default; an int for a single node."""
        return self._degrees(0, u, etype)

    def adj_tensors(self, fmt: str, etype: str | CanonicalType | None = None) -> tuple[Tensor, ...]:
        """Return the adjacency matrix, sources x destinations, in pieces.

        Parameters
        ----------
        fmt : {"coo", "csr", "csc"}
        etype : str or tuple, optional
            Needed with several edge types.

        Returns
        -------
        tuple of tensors
            coo: sources and destinations (E,). csr and csc: row (column) pointers (N + 1,), the other end of each edge
            (E,), and its edge id (E,); edges of one node are in the order of their ids.
        """
        if fmt not in _FORMATS:
            raise UnknownNameError("sparse format", fmt, _FORMATS)
        triple = self.to_canonical_etype(etype)
        sources, destinations = self._edges[triple]
        if fmt == "coo":
            return sources, destinations
        key = (fmt, triple)
        if key not in self._made:
            own, other = (sources, destinations) if fmt == "csr" else (destinations, sources)
            ids = own.argsort(stable=True)  # (E,)
            pointers = torch.zeros(self._num_nodes[triple[0 if fmt == "csr" else 2]] + 1, dtype=torch.long)
            torch.cumsum(torch.bincount(own.cpu(), minlength=len(pointers) - 1), 0, out=pointers[1:])
            self._made[key] = (pointers.to(self.device, self.idtype), other[ids], ids.to(self.idtype))
        return self._made[key]

    def formats(self, formats: str | Sequence[str] | None = None) -> Any:
        """Return which sparse formats are made, or this graph where DGL would restrict it to the given ones.

        Formats are made on first use and the edge list is always there, so there is nothing to restrict.
        """
        wanted = (formats,) if isinstance(formats, str) else tuple(formats or ())
        for name in wanted:
            if name not in _FORMATS:
                raise UnknownNameError("sparse format", str(name), _FORMATS)
        if wanted:
            return self
        made = {"coo", *(key[0] for key in self._made if key[0] in _FORMATS)}
        return {
            "created": [name for name in _FORMATS if name in made],
            "not created": [name for name in _FORMATS if name not in made],
        }

    def to(self, device: torch.device | str) -> HeteroGraph:
        """Return this graph on a device, features included; itself if it lies there already."""
        device = torch.empty(0, device=device).device  # "cuda" means a numbered device
        if device == self.device:
            return self
        moved = {triple: (u.to(device), v.to(device)) for triple, (u, v) in self._edges.items()}
        other = HeteroGraph(moved, self._num_nodes)
        other.ndata, other.edata = self.ndata.to(device), self.edata.to(device)
        return other

    def cpu(self) -> HeteroGraph:
        """Return this graph in main memory."""
        return self.to("cpu")

    def to_dgl(self) -> Any:
        """Return the same graph as a ``dgl.DGLGraph``, features included; DGL sorts the types.

        Raises
        ------
        DGLImportError
            If DGL is missing or does not load.
        """
        from mbgraph._dgl import open_dgl

        graph = open_dgl().heterograph(dict(self._edges), num_nodes_dict=dict(self._num_nodes), idtype=self.idtype)
        graph = graph.to(self.device)
        for frames, view in ((self.ndata, graph.nodes), (self.edata, graph.edges)):
            for kind, features in frames.by_type.items():
                view[kind].data.update(features)
        return graph

    @classmethod
    def from_dgl(cls, graph: Any) -> HeteroGraph:
        """Return a ``dgl.DGLGraph`` as a graph of this class, features included; edge ids stay what they are."""
        made = cls(
            {triple: _by_id(*graph.edges(form="all", order=None, etype=triple)) for triple in graph.canonical_etypes},
            {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes},
        )
        for frames, view in ((made.ndata, graph.nodes), (made.edata, graph.edges)):
            for kind, features in frames.by_type.items():
                features.update(view[kind].data)
        return made

    def __getitem__(self, etype: str | CanonicalType) -> HeteroGraph:
        """Return the graph of one edge type and the node types at its ends, features included."""
        triple = self.to_canonical_etype(etype)
        part = HeteroGraph({triple: self._edges[triple]}, {end: self._num_nodes[end] for end in sorted(triple[::2])})
        for frames, own in ((part.ndata, self.ndata), (part.edata, self.edata)):
            for kind, features in frames.by_type.items():
                features.update(own.by_type[kind])
        return part

    def __copy__(self) -> HeteroGraph:
        other = HeteroGraph(self._edges, self._num_nodes)
        other.ndata, other.edata = self.ndata.to(self.device), self.edata.to(self.device)
        other._made = dict(self._made)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # made again on first use

    def __repr__(self) -> str:
        gap = "\n" + " " * (len(type(self).__name__) + 1)
        counts = {triple: len(sources) for triple, (sources, _) in self._edges.items()}
        ends = [(source, target, etype) for source, etype, target in self._edges]
        return f"{type(self).__name__}(num_nodes={self._num_nodes},{gap}num_edges={counts},{gap}metagraph={ends})"

    def _num_end_nodes(self, end: int, ntype: str | None) -> int:
        kinds = {triple[end] for triple in self._edges}
        if ntype is None:
            return sum(self._num_nodes[kind] for kind in kinds)
        if ntype not in kinds:
            raise UnknownNameError("source node type" if end == 0 else "destination node type", ntype, kinds)
        return self._num_nodes[ntype]

    def _degrees(self, end: int, nodes: Any, etype: str | CanonicalType | None) -> Tensor | int:
        triple = self.to_canonical_etype(etype)
        key = ("degrees", end, triple)
        if key not in self._made:
            counted = torch.bincount(self._edges[triple][end // 2].cpu(), minlength=self._num_nodes[triple[end]])
            self._made[key] = counted.to(self.device, self.idtype)  # (N,)
        degrees = self._made[key]
        if nodes is None:
            return degrees.clone()
        chosen = torch.as_tensor(nodes, device=self.device).long()
        if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(degrees):
            raise UsageError(f"there are {len(degrees)} nodes of type {triple[end]!r}, and node ids start at 0")
        return degrees[chosen] if chosen.ndim else int(degrees[chosen])


def reverse(graph: HeteroGraph) -> HeteroGraph:
    """Return the graph with every edge turned round; names, their order, ids and node features stay."""
    turned = {(target, etype, source): (v, u) for (source, etype, target), (u, v) in graph._edges.items()}
    other = HeteroGraph(turned, graph._num_nodes)
    other.ndata = graph.ndata.to(graph.device)
    return other


def _by_id(sources: Tensor, destinations: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    place = ids.argsort()  # a DGL graph without its edge list gives edges in the order of a sparse format
    return sources[place], destinations[place]
