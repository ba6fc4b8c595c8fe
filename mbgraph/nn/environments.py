"""Environments: sets of behaviors, each with the union of their pairs as its graph."""

from __future__ import annotations

import itertools
from typing import Literal

from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import Relations

__all__ = ["environments"]


def environments(
    relations: Relations, kind: Literal["subsets", "singles"] = "subsets"
) -> dict[tuple[str, ...], Relation]:
    """Return the relation of every environment, by the number of its behaviors, the target's first.

    Parameters
    ----------
    relations : Relations
    kind : {"subsets", "singles"}
        ``subsets``: every non-empty set of behaviors, 2^K - 1 of them; ``singles``: each behavior and all together, K +
        1 of them. Either way the first K are the single behaviors, from the last to the first, and the last one is the
        set of all.

    References
    ----------
    Yan et al., "User Invariant Preference Learning for Multi-Behavior Recommendation", TOIS 2025.
    """
    names = tuple(relations)[::-1]
    sizes = range(1, len(names) + 1) if kind == "subsets" else (1, len(names))
    sets = [one for size in sizes for one in itertools.combinations(names, size)]
    return {one: relations[one[0]] if len(one) == 1 else relations.union(*one) for one in sets}
