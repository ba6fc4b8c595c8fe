"""From edge lists to a graph, with everything that can be wrong about them said in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph._heterograph.graph import CanonicalType, HeteroGraph
from mbgraph.errors import UsageError

__all__ = ["heterograph"]


def heterograph(
    data_dict: Mapping[CanonicalType, tuple[Any, Any]],
    num_nodes_dict: Mapping[str, int] | None = None,
    idtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> HeteroGraph:
    """Make a graph of edge lists.

    Parameters
    ----------
    data_dict : mapping of (source node type, edge type, destination node type) to (sources, destinations)
        Node ids from 0: lists, integer arrays or integer tensors (E,). Tensors and arrays are shared, not copied.
    num_nodes_dict : mapping of node type to int, optional
        By default the largest id of each type plus one. Give it: a node without an edge is lost otherwise.
    idtype : {torch.int32, torch.int64}, optional
        Type of ids; by default that of the tensors given, int64 for lists and arrays.
    device : torch device, optional
        Where the graph shall lie; by default where the tensors do.

    Raises
    ------
    UsageError
        If a triple, the ids or the counts make no graph. One line says which and why.

    Examples
    --------
    >>> graph = heterograph({("user", "view", "item"): ([0, 1], [0, 0]), ("user", "buy", "item"): ([1], [1])},
    ...                     num_nodes_dict={"user": 3, "item": 2})
    >>> graph.etypes
    ['buy', 'view']
    >>> graph.in_degrees(etype="view")
    tensor([2, 0])
    """
    if not data_dict:
        raise UsageError("a graph needs at least one edge type")
    edges = {}
    for triple, pair in data_dict.items():
        if not (isinstance(triple, tuple) and len(triple) == 3 and all(isinstance(part, str) for part in triple)):
            raise UsageError(f"an edge type is (source type, edge type, destination type), not {triple!r}")
        if not isinstance(pair, Sequence) or len(pair) != 2 or isinstance(pair[0], str):
            raise UsageError(f"edges of {triple[1]!r} are (sources, destinations)", "pass two lists, arrays or tensors")
        sources, destinations = (_ids(part, idtype, device, triple[1]) for part in pair)
        if len(sources) != len(destinations):
            raise UsageError(f"edges of {triple[1]!r} have {len(sources)} sources and {len(destinations)} destinations")
        edges[triple] = (sources, destinations)
    kinds = {(part.dtype, part.device) for pair in edges.values() for part in pair}
    if len(kinds) > 1:
        raise UsageError("edges mix id types or devices", "pass idtype= and device=")
    counts = _checked_counts(edges, num_nodes_dict)
    return HeteroGraph(
        {triple: edges[triple] for triple in sorted(edges)}, {name: counts[name] for name in sorted(counts)}
    )


def _ids(given: Any, idtype: torch.dtype | None, device: torch.device | str | None, etype: str) -> Tensor:
    if isinstance(given, Tensor):
        ids = given
    else:
        array = np.asarray(given)
        if array.dtype.kind not in "iu" and array.size:  # an empty list has no type of its own
            raise UsageError(f"node ids of {etype!r} must be whole numbers, not {array.dtype}")
        # torch wants memory it may write to
        ids = torch.from_numpy(np.require(array, dtype=np.int64, requirements="W"))
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.ndim != 1:
        raise UsageError(f"node ids of {etype!r} must be whole numbers in one dimension")
    wanted = idtype or (ids.dtype if ids.dtype == torch.int32 else torch.int64)
    if wanted not in (torch.int32, torch.int64):
        raise UsageError(f"node ids are int32 or int64, not {wanted}")
    return ids.to(device=device, dtype=wanted)


def _checked_counts(
    edges: Mapping[CanonicalType, tuple[Tensor, Tensor]], given: Mapping[str, int] | None
) -> dict[str, int]:
    """Return the number of nodes per type after comparing it with the ids."""
    needed: dict[str, int] = {}
    for (source, etype, target), pair in edges.items():
        for ntype, ids in zip((source, target), pair, strict=True):
            low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)
            if low < 0:
                raise UsageError(f"node ids of {etype!r} start at 0, not {low}")
            needed[ntype] = max(needed.get(ntype, 0), high + 1)
    if given is None:
        return needed
    for ntype, count in needed.items():
        if ntype not in given:
            raise UsageError(f"num_nodes_dict lacks the node type {ntype!r}")
        if given[ntype] < count:
            raise UsageError(f"num_nodes_dict says {given[ntype]} nodes of type {ntype!r}, but the edges name {count}")
    return {ntype: int(count) for ntype, count in given.items()}
