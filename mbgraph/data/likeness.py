"""Is the validation split like the test split? Told by structure alone, without a model.

A validation split that asks another question than the test split chooses the wrong epoch, and its figures are not those
of the test split. Two properties of the pairs decide how hard they are to rank: whether the user already visited the
item, and how popular the item is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.keys import contains, union

__all__ = ["POPULARITY_FACTOR", "VISITED_DIFFERENCE", "SplitStructure", "split_structure", "unlike_test"]

VISITED_DIFFERENCE = 0.1
"""Shares of visited pairs that differ by more than this are not alike."""

POPULARITY_FACTOR = 2.0
"""Median popularities that differ by more than this factor are not alike."""


@dataclass(frozen=True)
class SplitStructure:
    """What decides how hard the pairs of a split are to rank.

    Attributes
    ----------
    visited : float
        Share of the pairs whose user has an auxiliary train edge to the item.
    popularity : float
        Median over the pairs of the item's train users of the target.
    """

    visited: float
    popularity: float


def split_structure(ds: MultiBehaviorDataset, split: str) -> SplitStructure:
    """Return the structure of a split's pairs; the split must hold some."""
    pairs = ds.splits[split]
    visited = 0.0
    if ds.auxiliary:
        known = union(*(ds.edges[behavior].keys(ds.num_items) for behavior in ds.auxiliary))
        visited = float(contains(pairs.keys(ds.num_items), known).mean())
    buyers = np.bincount(ds.edges[ds.target].item, minlength=ds.num_items)
    return SplitStructure(visited, float(np.median(buyers[pairs.item])))


def unlike_test(ds: MultiBehaviorDataset) -> str | None:
    """Say in one line how the validation split differs from the test split; None where it does not, or one is missing.

    Differing means shares of visited pairs more than `VISITED_DIFFERENCE` apart, or median popularities (plus one) more
    than a factor of `POPULARITY_FACTOR` apart.
    """
    if not len(ds.valid) or not len(ds.test):
        return None
    valid, test = split_structure(ds, "valid"), split_structure(ds, "test")
    found = []
    if abs(valid.visited - test.visited) > VISITED_DIFFERENCE:
        found.append(f"{valid.visited:.0%} of its pairs are visited, {test.visited:.0%} of test's")
    low, high = sorted((valid.popularity + 1, test.popularity + 1))
    if high > POPULARITY_FACTOR * low:
        found.append(
            f"its median item has {valid.popularity:,.0f} train {ds.target} users, test's {test.popularity:,.0f}"
        )
    return f"validation is unlike test: {'; '.join(found)}" if found else None
