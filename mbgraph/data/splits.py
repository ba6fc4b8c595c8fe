"""Splitting target pairs into train, validation and test; every act is pure and recorded in ``metadata["splits"]``."""

from __future__ import annotations

from typing import Any

import numpy as np

from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.data.keys import runs
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.random import RNGLike, as_generator
from mbgraph.typing import IntArray

__all__ = ["PROTOCOLS", "assign_loo", "assign_ratio", "hold_out", "merge_split", "parse_protocol"]

PROTOCOLS = ("auto", "loo", "random", "ratio:TRAIN,VALID,TEST", "given", "none")
TRAIN, VALID, TEST = 0, 1, 2


def parse_protocol(text: str) -> tuple[str, tuple[float, ...]]:
    """Split ``"ratio:0.7,0.2,0.1"`` into its name and shares; other protocols have none.

    Raises
    ------
    UnknownNameError, UsageError
    """
    name, _, rest = text.partition(":")
    if name not in ("auto", "loo", "random", "ratio", "given", "none"):
        raise UnknownNameError("split protocol", text, PROTOCOLS)
    if name != "ratio":
        if rest:
            raise UsageError(f"split protocol {name!r} takes no shares", f"write it as {name}")
        return name, ()
    try:
        shares = tuple(float(share) for share in rest.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or any(share < 0 for share in shares) or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(f"cannot read split {text!r}", "write it as ratio:0.7,0.2,0.1, three shares that add up to 1")
    return name, shares


def _positions(user: IntArray, order_key: np.ndarray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the order by (user, key), each pair's place within its user, and its user's number of pairs."""
    order = np.lexsort((order_key, user))
    place = runs(user[order])
    total = np.bincount(user)[user[order]]
    return order, place, total


def assign_loo(user: IntArray, order_key: np.ndarray) -> IntArray:
    """Leave one out: a user's last pair is test, the one before validation, and at least one stays in train.

    Two pairs give train and test, one pair gives train only.

    Shapes: (N,), (N,) -> (N,) of 0 train, 1 valid, 2 test.
    """
    order, place, total = _positions(user, order_key)
    part = np.zeros(len(user), np.int64)
    left = total - place  # 1 for the last pair
    part[order[(left == 1) & (total >= 2)]] = TEST
    part[order[(left == 2) & (total >= 3)]] = VALID
    return part


def assign_ratio(user: IntArray, order_key: np.ndarray, shares: tuple[float, ...]) -> IntArray:
    """Split every user's n pairs: train ``floor(a n)``, validation ``ceil(b n)``, test the rest (as published TMall).

    Shapes: (N,), (N,) -> (N,) of 0 train, 1 valid, 2 test.
    """
    order, place, total = _positions(user, order_key)
    train = np.floor(shares[0] * total + 1e-9).astype(np.int64)
    valid = np.minimum(np.ceil(shares[1] * total - 1e-9).astype(np.int64), total - train)
    valid = np.where(shares[2] > 0, valid, total - train)
    part = np.zeros(len(user), np.int64)
    part[order[(place >= train) & (place < train + valid)]] = VALID
    part[order[place >= train + valid]] = TEST
    return part


def hold_out(
    ds: MultiBehaviorDataset, *, n: int = 1, split: str = "valid", min_train: int = 1, rng: RNGLike = 0
) -> MultiBehaviorDataset:
    """Move ``n`` random train target pairs of every user into a split.

    Users who would keep fewer than ``min_train`` train target pairs give none.

    Parameters
    ----------
    ds : MultiBehaviorDataset
        Must not have the split yet.
    n, min_train : int
    split : {"valid", "test"}
    rng : int or Generator

    Raises
    ------
    UsageError
        If the split exists already.
    DataError
        If no user has enough pairs.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if len(ds.splits.get(split, ())):
        raise UsageError(f"{ds.name!r} already has {split} pairs", "merge them first: mbgraph.merge_split")
    if n < 1 or min_train < 0:
        raise UsageError(f"n must be positive and min_train not negative, got {n} and {min_train}")
    pairs = ds.edges[ds.target]
    order, place, total = _positions(pairs.user, as_generator(rng).random(len(pairs)))
    chosen = np.zeros(len(pairs), bool)
    chosen[order[(place < n) & (total >= n + min_train)]] = True
    if not chosen.any():
        raise DataError(f"no user of {ds.name!r} has {n + min_train} train pairs of {ds.target!r}", "use --validation none")
    record = {"act": "hold_out", "split": split, "n": n, "min_train": min_train, "pairs": int(chosen.sum())}
    if not isinstance(rng, np.random.Generator):
        record["seed"] = int(rng)
    return ds.replace(
        edges={**ds.edges, ds.target: pairs[~chosen]},
        splits={**ds.splits, split: pairs[chosen]},
        metadata=_recorded(ds, record),
    )


def merge_split(ds: MultiBehaviorDataset, split: str) -> MultiBehaviorDataset:
    """Move a split's pairs into the train pairs of the target."""
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if split not in ds.splits:
        raise UsageError(f"{ds.name!r} has no {split} pairs")
    train, held = ds.edges[ds.target], ds.splits[split]
    time = None if train.time is None or held.time is None else np.concatenate([train.time, held.time])
    merged = Pairs(np.concatenate([train.user, held.user]), np.concatenate([train.item, held.item]), time)
    return ds.replace(
        edges={**ds.edges, ds.target: merged},
        splits={name: part for name, part in ds.splits.items() if name != split},
        metadata=_recorded(ds, {"act": "merge_split", "split": split, "pairs": len(held)}),
    )


def _recorded(ds: MultiBehaviorDataset, record: dict[str, Any]) -> dict[str, Any]:
    return {**ds.metadata, "splits": [*ds.metadata.get("splits", []), record]}
