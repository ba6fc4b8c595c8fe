"""What a dataset is like before any model sees it: alignment, leakage, counts and degrees."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.keys import contains, union
from mbgraph.typing import IntArray

__all__ = ["Alignment", "Leakage", "alignment", "describe", "leakage"]

_NOTHING = np.empty(0, np.int64)
_QUANTILES = {"min": 0, "25%": 25, "median": 50, "75%": 75, "95%": 95, "max": 100}


@dataclass(frozen=True)
class Alignment:
    """How far the auxiliary behaviors agree with the target behavior (paper Eq. 12, Table 1).

    Attributes
    ----------
    bar : mapping of str to float
        Behavior alignment rate per auxiliary behavior: share of all target pairs (train, valid and test) that
        are train edges of it too. This is what the paper's Table 1 prints.
    dt : float
        Direct targets: share of all target pairs that no auxiliary behavior has.
    train_bar, train_dt : as above
        The same over the train target pairs alone: what a model may know.
    """

    bar: Mapping[str, float]
    dt: float
    train_bar: Mapping[str, float]
    train_dt: float


@dataclass(frozen=True)
class Leakage:
    """Where held-out pairs shine through.

    Attributes
    ----------
    overlap : mapping of str to int
        Target pairs that two splits share: ``train/valid``, ``train/test``, ``valid/test``.
    valid_equals_test : bool
        Whether valid and test hold the same pairs, so that model selection would read the test set.
    visible : mapping of str to mapping of str to int
        Per split and auxiliary behavior, held-out pairs that are train edges of that behavior;
        under ``"any"`` those of at least one.
    visible_share : mapping of str to mapping of str to float
        The same as a share of the split's pairs.
    users_in_no_split : int
        Users without any target pair in train, valid or test.
    users_without_train : int
        Users with held-out pairs but without a train target pair.
    unseen_items : mapping of str to int
        Held-out pairs per split whose item has no train target edge.
    """

    overlap: Mapping[str, int]
    valid_equals_test: bool
    visible: Mapping[str, Mapping[str, int]]
    visible_share: Mapping[str, Mapping[str, float]]
    users_in_no_split: int
    users_without_train: int
    unseen_items: Mapping[str, int]


def _sorted(pairs: Pairs, num_items: int) -> IntArray:
    keys = pairs.keys(num_items)
    return keys if (keys[1:] >= keys[:-1]).all() else np.sort(keys)


def _auxiliary_keys(ds: MultiBehaviorDataset) -> dict[str, IntArray]:
    return {behavior: _sorted(ds.edges[behavior], ds.num_items) for behavior in ds.auxiliary}


def alignment(ds: MultiBehaviorDataset) -> Alignment:
    """Measure BAR per auxiliary behavior and DT (paper Eq. 12).

    The paper leaves open what the target pairs are; its Table 1 comes out only with train, valid and test
    target pairs together against the auxiliary train edges, so that is ``bar`` and ``dt``. The leak-free
    figures over train pairs alone stand beside them.

    Examples
    --------
    >>> from mbgraph.data.synthetic import demo
    >>> found = alignment(demo())
    >>> dict(found.bar), found.dt
    ({'view': 0.55, 'cart': 0.35}, 0.35)
    """
    train = _sorted(ds.edges[ds.target], ds.num_items)
    everything = union(train, *(pairs.keys(ds.num_items) for pairs in ds.splits.values()))
    auxiliary = _auxiliary_keys(ds)
    bar, dt = _rates(everything, auxiliary)
    train_bar, train_dt = _rates(train, auxiliary)
    return Alignment(bar, dt, train_bar, train_dt)


def _rates(target: IntArray, auxiliary: Mapping[str, IntArray]) -> tuple[dict[str, float], float]:
    covered = np.zeros(len(target), bool)
    bar = {}
    for behavior, keys in auxiliary.items():
        found = contains(target, keys)
        bar[behavior] = int(found.sum()) / len(target)
        covered |= found
    return bar, int((~covered).sum()) / len(target)


def leakage(ds: MultiBehaviorDataset) -> Leakage:
    """Look for held-out pairs that a model could meet in training.

    An auxiliary edge on a held-out pair is no mistake: who buys has often viewed before. But such pairs are
    re-surfaced, not discovered, and the share says how much of a result that can be.
    """
    keys = {"train": _sorted(ds.edges[ds.target], ds.num_items)}
    keys.update({split: np.sort(pairs.keys(ds.num_items)) for split, pairs in ds.splits.items()})
    overlap = {
        f"{first}/{second}": int(contains(keys[second], keys[first]).sum())
        for first, second in itertools.combinations([name for name in ("train", "valid", "test") if name in keys], 2)
    }
    auxiliary = _auxiliary_keys(ds)
    visible: dict[str, dict[str, int]] = {}
    for split in ds.splits:
        found = {behavior: contains(keys[split], known) for behavior, known in auxiliary.items()}
        visible[split] = {behavior: int(hit.sum()) for behavior, hit in found.items()}
        visible[split]["any"] = int(np.logical_or.reduce([np.zeros(len(keys[split]), bool), *found.values()]).sum())
    has_train = np.zeros(ds.num_users, bool)
    has_train[ds.edges[ds.target].user] = True
    is_held_out = np.zeros(ds.num_users, bool)
    for pairs in ds.splits.values():
        is_held_out[pairs.user] = True
    trained_items = np.zeros(ds.num_items, bool)
    trained_items[ds.edges[ds.target].item] = True
    return Leakage(
        overlap=overlap,
        valid_equals_test=len(ds.valid) > 0 and np.array_equal(keys["valid"], keys.get("test", _NOTHING)),
        visible=visible,
        visible_share={
            split: {behavior: n / max(len(keys[split]), 1) for behavior, n in found.items()}
            for split, found in visible.items()
        },
        users_in_no_split=int((~has_train & ~is_held_out).sum()),
        users_without_train=int((~has_train & is_held_out).sum()),
        unseen_items={split: int((~trained_items[pairs.item]).sum()) for split, pairs in ds.splits.items()},
    )


def describe(ds: MultiBehaviorDataset) -> dict[str, Any]:
    """Return the counts of the paper's Table 5 and what follows from them, as plain numbers.

    Returns
    -------
    dict
        ``users``, ``items``, ``counts`` (train pairs per behavior, held-out pairs per split),
        ``target_pairs`` (train, valid and test, as Table 5 counts them), ``interactions`` (those and the
        auxiliary train edges), ``density`` (share of users x items per behavior), ``degrees`` ({behavior:
        {"user" | "item": quantiles, mean and the number isolated}}, train edges), ``isolated`` (users and
        items without any train edge) and ``nested`` (pairs of behaviors, all train edges of the first being
        the second's too).
    """
    degrees: dict[str, dict[str, dict[str, float | int]]] = {}
    touched = {"user": np.zeros(ds.num_users, bool), "item": np.zeros(ds.num_items, bool)}
    for behavior, pairs in ds.edges.items():
        degrees[behavior] = {}
        for kind, rows in (("user", pairs.user), ("item", pairs.item)):
            degree = np.bincount(rows, minlength=len(touched[kind]))
            touched[kind] |= degree > 0
            degrees[behavior][kind] = _spread(degree)
    target_pairs = len(ds.edges[ds.target]) + len(ds.valid) + len(ds.test)
    return {
        "users": ds.num_users,
        "items": ds.num_items,
        "counts": ds.counts,
        "target_pairs": target_pairs,
        "interactions": target_pairs + sum(len(ds.edges[behavior]) for behavior in ds.auxiliary),
        "density": {behavior: len(pairs) / (ds.num_users * ds.num_items) for behavior, pairs in ds.edges.items()},
        "degrees": degrees,
        "isolated": {kind: int((~seen).sum()) for kind, seen in touched.items()},
        "nested": _nested(ds),
    }


def _spread(degree: IntArray) -> dict[str, float | int]:
    spread: dict[str, float | int] = {
        name: float(np.percentile(degree, percent)) for name, percent in _QUANTILES.items()
    }
    return {**spread, "mean": float(degree.mean()), "isolated": int((degree == 0).sum())}


def _nested(ds: MultiBehaviorDataset) -> list[list[str]]:
    keys = {behavior: _sorted(pairs, ds.num_items) for behavior, pairs in ds.edges.items()}
    return [
        [inner, outer]
        for inner, outer in itertools.permutations(keys, 2)
        if len(keys[inner]) <= len(keys[outer]) and contains(keys[inner], keys[outer]).all()
    ]
