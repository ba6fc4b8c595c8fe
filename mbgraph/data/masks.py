"""Items that a user is not shown: one rule for rankings, recommendations and exports."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import CSR, Pairs
from mbgraph.errors import UnknownNameError
from mbgraph.keys import union

__all__ = ["MASKS", "Mask", "masked_items"]

Mask = Literal["train-target", "train+valid-target", "all-behaviors", "none"]
MASKS: tuple[str, ...] = Mask.__args__  # type: ignore[attr-defined]


def masked_items(ds: MultiBehaviorDataset, mask: str, split: str | None = None) -> CSR:
    """Return the items that a mask keeps from being candidates, by user.

    Parameters
    ----------
    ds : MultiBehaviorDataset
    mask : {"train-target", "train+valid-target", "all-behaviors", "none"}
        The user's train items of the target; those and, where the test split is ranked, the validation items; all train
        items of any behavior; nothing.
    split : str, optional
        Held-out pairs that are ranked. A validation item is a candidate where validation pairs are.

    Returns
    -------
    CSR
        Items of each of the U users, ascending.

    Raises
    ------
    UnknownNameError
        For another mask.
    """
    if mask not in MASKS:
        raise UnknownNameError("mask", mask, MASKS)
    if mask == "train-target" or (mask == "train+valid-target" and (split != "test" or not len(ds.valid))):
        return ds.csr(ds.target)  # the dataset keeps it
    if mask == "none":
        return CSR(np.zeros(ds.num_users + 1, np.int64), np.empty(0, np.int64))
    parts = ds.edges.values() if mask == "all-behaviors" else (ds.edges[ds.target], ds.valid)
    keys = union(*(pairs.keys(ds.num_items) for pairs in parts))
    return Pairs(keys // ds.num_items, keys % ds.num_items).csr(ds.num_users)
