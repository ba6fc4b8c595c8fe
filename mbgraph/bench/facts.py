"""Figures of a dataset by name, as the paper's Tables 1 and 5 have them."""

from __future__ import annotations

from collections.abc import Sequence

from mbgraph.bench.sources import source
from mbgraph.data.aliases import canonical_behavior
from mbgraph.data.alignment import alignment, describe

__all__ = ["measured"]


def measured(dataset: str, metrics: Sequence[str]) -> dict[str, float]:
    """Return those figures that a dataset has.

    Parameters
    ----------
    dataset : str
    metrics : sequence of str
        ``users``, ``items``, ``interactions`` (train, valid and test), ``count:BEHAVIOR`` (of the target with its
        held-out pairs), ``bar:BEHAVIOR`` and ``dt`` (paper Eq. 12). Behaviors by their common names.
    """
    ds = source(dataset)
    counts, aligned = describe(ds), alignment(ds)
    found: dict[str, float] = {name: counts[name] for name in ("users", "items", "interactions")}
    for behavior in ds.behaviors:
        own = counts["target_pairs"] if behavior == ds.target else counts["counts"][behavior]
        found[f"count:{canonical_behavior(behavior)}"] = own
    found |= {f"bar:{canonical_behavior(behavior)}": rate for behavior, rate in aligned.bar.items()}
    found["dt"] = aligned.dt
    return {metric: found[metric] for metric in metrics if metric in found}
