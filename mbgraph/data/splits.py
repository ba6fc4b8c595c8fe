"""Splitting target pairs into train, validation and test; every act is pure and recorded in ``metadata["splits"]``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.keys import runs
from mbgraph.random import RNGLike, as_generator
from mbgraph.typing import IntArray

__all__ = [
    "CUTOFFS",
    "PROTOCOLS",
    "TIES",
    "assign_loo",
    "assign_ratio",
    "assign_temporal",
    "hold_out",
    "merge_split",
    "moment_of",
    "not_later",
    "parse_protocol",
    "split_pairs",
    "split_within_ties",
    "temporal_cuts",
]

PROTOCOLS = ("loo", "random", "ratio:TRAIN,VALID,TEST", "temporal:CUT", "auto", "given", "none")
"""Ways to split target pairs, as they are written; the last three only make sense for a log that is imported."""

CUTOFFS = ("none", "target")
TIES = ("rows", "random")
"""What decides among target pairs of one user and moment: a later row counts as later, or a draw."""

TRAIN, VALID, TEST = 0, 1, 2


def parse_protocol(text: str) -> tuple[str, tuple[Any, ...]]:
    """Split ``"ratio:0.7,0.2,0.1"`` into its name and shares, ``"temporal:2024-05-01"`` into its name and cuts.

    Other protocols have no values. A cut is a number or an ISO date as text.

    Raises
    ------
    UnknownNameError, UsageError
    """
    name, _, rest = text.partition(":")
    if name not in {known.partition(":")[0] for known in PROTOCOLS}:
        raise UnknownNameError("split protocol", text, PROTOCOLS)
    if name == "temporal":
        cuts = tuple(cut.strip() for cut in rest.split(","))
        if len(cuts) > 2 or not all(cuts):
            raise UsageError(
                f"cannot read split {text!r}", "write it as temporal:2024-05-01, or temporal:VALID,TEST with two dates"
            )
        return name, cuts
    if name != "ratio":
        if rest:
            raise UsageError(f"split protocol {name!r} takes no shares", f"write it as {name}")
        return name, ()
    try:
        shares = tuple(float(share) for share in rest.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not (min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) <= 1e-6):  # NaN is none
        raise UsageError(f"cannot read split {text!r}", "write it as ratio:0.7,0.2,0.1, three shares that add up to 1")
    return name, shares


def temporal_cuts(cuts: Sequence[str], times: np.ndarray) -> list[float]:
    """Return cuts in the clock of ``times`` (N,): numbers as they are, ISO dates as seconds, ms, us or ns since 1970.

    Which of them the clock counts is told by its size: seconds of the years 1973 to 5138 are between 1e8 and 1e11.

    Raises
    ------
    UsageError
        If a cut is neither, the second is not later than the first, or the clock does not count since 1970.
    """
    found = [moment_of(cut, times) for cut in cuts]
    if len(found) == 2 and not found[0] < found[1]:
        raise UsageError(f"the cuts {', '.join(cuts)} do not ascend", "give the one for validation first")
    return found


def moment_of(text: str, times: np.ndarray) -> float:
    """Return a moment in the clock of ``times`` (N,): a number as it is, an ISO date counted since 1970.

    Raises
    ------
    UsageError
        If the text is neither, or is a date and the clock does not count since 1970.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"cannot read the cut {text!r}", "write a number, or a date as 2024-05-01") from error
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    middle = float(np.median(times[:: max(1, len(times) >> 20)])) if len(times) else 0.0
    unit = next((unit for unit in (1, 10**3, 10**6, 10**9) if 1e8 <= middle / unit < 1e11), None)
    if unit is None:
        raise UsageError(f"the times of this data are no dates (their median is {middle:g})", "give a number")
    return seconds * unit


def assign_temporal(times: np.ndarray, cuts: Sequence[float]) -> IntArray:
    """Cut all users at the same moments: from the last cut on test, from the first of two on valid: (N,) -> (N,)."""
    part = np.where(times >= cuts[-1], TEST, TRAIN)
    if len(cuts) == 2:
        part[(times >= cuts[0]) & (times < cuts[1])] = VALID
    return part


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
    train = np.floor(shares[0] * total + 1e-9)  # .29 of 100 is 28.999999999999996
    valid = np.ceil(shares[1] * total - 1e-9)
    part = np.zeros(len(user), np.int64)
    part[order[place >= train]] = VALID
    part[order[place >= train + valid]] = TEST
    return part


def split_pairs(
    pairs: Pairs, protocol: str = "auto", *, parts: IntArray | None = None, ties: str = "rows", rng: RNGLike = 0
) -> tuple[Pairs, dict[str, Pairs], dict[str, Any]]:
    """Split the target's pairs user by user.

    Parameters
    ----------
    pairs : Pairs
        Distinct pairs.
    protocol : str
        One of `PROTOCOLS`. ``"auto"`` is ``"loo"``: the last pair of each user is test, the one before it validation,
        as long as one stays in train (`assign_loo`). ``"random"`` is the same in random order. ``"ratio:A,B,C"``: see
        `assign_ratio`. ``"temporal:CUT"`` or ``"temporal:VALID,TEST"``: see `assign_temporal`. Loo and ratio go by time
        where there are times, by a random order where there are none.
        ``"given"``: ``parts``. ``"none"``: everything is train.
    parts : int array (N,), optional
        For ``"given"``: 0 train, 1 valid, 2 test.
    ties : {"rows", "random"}
        What decides where a user's pairs have the same time, as all of a day have in a log of days: ``"rows"``: a
        later pair in this list counts as later. ``"random"``: a random order.
    rng : int or Generator
        The random order depends on the set of pairs, not on their order in the list.

    Returns
    -------
    train : Pairs
    held_out : dict of str to Pairs
        Under ``"valid"`` and ``"test"``, as far as they hold pairs, in the order of ``pairs``.
    record : dict
        Protocol, order and seed, for the metadata. Where the order is that of time, also ``ties`` and
        ``users_with_ties``: users with pairs of one moment in different parts.

    Raises
    ------
    UnknownNameError, UsageError
        If the protocol cannot be understood, or needs times.
    DataError
        If a cut leaves no train or no test pair.
    """
    name, values = parse_protocol(protocol)
    if (name == "given") != (parts is not None):
        raise UsageError("split 'given' and parts belong together", "pass both or neither")
    if ties not in TIES:
        raise UnknownNameError("rule for ties", ties, TIES)
    generator = as_generator(rng)
    by = {"given": "given", "none": "nothing", "random": "random"}.get(name, "random" if pairs.time is None else "time")
    if parts is None:
        order_key = _random_order(pairs, generator) if by == "random" else pairs.time
        if by == "time" and ties == "random" and pairs.time is not None:
            order_key = _places(pairs.time, _random_order(pairs, generator))
        if name == "temporal":
            parts = _cut(pairs, values, protocol)
        elif by == "nothing" or order_key is None:
            parts = np.full(len(pairs), TRAIN)
        else:
            parts = assign_ratio(pairs.user, order_key, values) if values else assign_loo(pairs.user, order_key)
    record: dict[str, Any] = {"act": "split", "protocol": "loo" if name == "auto" else protocol, "by": by}
    if by == "time":
        record.update(ties=ties, users_with_ties=len(split_within_ties(pairs, parts)))
    if (by == "random" or (by == "time" and ties == "random")) and not isinstance(rng, np.random.Generator):
        record["seed"] = int(rng)
    held_out = {split: pairs[parts == part] for split, part in (("valid", VALID), ("test", TEST))}
    return pairs[parts == TRAIN], {split: held for split, held in held_out.items() if len(held)}, record


def _cut(pairs: Pairs, cuts: Sequence[str], protocol: str) -> IntArray:
    if pairs.time is None:
        raise UsageError(f"split {protocol!r} needs times", "name the time column, or use another protocol")
    parts = assign_temporal(pairs.time, temporal_cuts(cuts, pairs.time))
    for part, name in ((TRAIN, "train"), (TEST, "test")):
        if not (parts == part).any():
            low, high = pairs.time.min(), pairs.time.max()
            raise DataError(f"{protocol!r} leaves no {name} pair (times run from {low} to {high})", "move the cut")
    return parts


def split_within_ties(pairs: Pairs, parts: IntArray) -> IntArray:
    """Return the users that have pairs of the same moment in different parts: time alone did not split them.

    Shapes: (N,), (N,) -> (U,), ascending.
    """
    if pairs.time is None or not len(pairs):
        return np.empty(0, np.int64)
    order = np.lexsort((parts, pairs.time, pairs.user))
    user, time, part = pairs.user[order], pairs.time[order], np.asarray(parts)[order]
    undecided = (user[1:] == user[:-1]) & (time[1:] == time[:-1]) & (part[1:] != part[:-1])
    return np.unique(user[1:][undecided])


def _places(first: np.ndarray, second: np.ndarray) -> IntArray:
    """Return each entry's place in the order by both keys, (N,)."""
    places = np.empty(len(first), np.int64)
    places[np.lexsort((second, first))] = np.arange(len(first))
    return places


def _random_order(pairs: Pairs, generator: np.random.Generator) -> np.ndarray:
    key = np.empty(len(pairs))
    key[np.lexsort((pairs.item, pairs.user))] = generator.random(len(pairs))
    return key


def not_later(pairs: Pairs, held_out: Iterable[Pairs], num_users: int) -> np.ndarray:
    """Say which pairs are not later than their user's first held-out pair; equal times are not later.

    Shapes: (N,), (M,) -> (N,) of bool. Users without held-out pairs keep everything.
    """
    keep = np.ones(len(pairs), bool)
    for held in held_out:
        if pairs.time is None or held.time is None:
            raise UsageError("a cutoff needs times", "name the time column, or use cutoff 'none'")
        order = np.lexsort((held.time, held.user))
        user = held.user[order]
        first = order[np.r_[True, user[1:] != user[:-1]]] if len(user) else order
        row = np.full(num_users, -1)
        row[held.user[first]] = np.arange(len(first))
        known = np.flatnonzero(row[pairs.user] >= 0)
        keep[known] &= pairs.time[known] <= held.time[first][row[pairs.user[known]]]
    return keep


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
        raise DataError(
            f"no user of {ds.name!r} has {n + min_train} train pairs of {ds.target!r}",
            "use --validation none, or a smaller n",
        )
    record = {"act": "hold_out", "split": split, "n": n, "min_train": min_train, "pairs": int(chosen.sum())}
    if not isinstance(rng, np.random.Generator):
        record["seed"] = int(rng)
    return ds.replace(
        edges={**ds.edges, ds.target: pairs[~chosen]},
        splits={**ds.splits, split: pairs[chosen]},
        metadata=_recorded(ds, record),
    )


def merge_split(ds: MultiBehaviorDataset, split: str) -> MultiBehaviorDataset:
    """Move a split's pairs into the train pairs of the target, after those that are there.

    Times survive if both have them; the record in the metadata says when they do not.

    Raises
    ------
    UnknownNameError
        If ``split`` is not ``valid`` or ``test``.
    UsageError
        If the dataset lacks it.
    DataError
        If a pair is held out by the other split too.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if split not in ds.splits:
        raise UsageError(f"{ds.name!r} has no {split} pairs", f"its splits: {', '.join(ds.splits) or 'none'}")
    train, held = ds.edges[ds.target], ds.splits[split]
    time = None if train.time is None or held.time is None else np.concatenate([train.time, held.time])
    record: dict[str, Any] = {"act": "merge_split", "split": split, "pairs": len(held)}
    if time is None and train.time is not None:
        record["times_dropped"] = len(train)
    merged = Pairs(np.concatenate([train.user, held.user]), np.concatenate([train.item, held.item]), time)
    return ds.replace(
        edges={**ds.edges, ds.target: merged},
        splits={name: part for name, part in ds.splits.items() if name != split},
        metadata=_recorded(ds, record),
    )


def _recorded(ds: MultiBehaviorDataset, record: dict[str, Any]) -> dict[str, Any]:
    return {**ds.metadata, "splits": [*ds.metadata.get("splits", []), record]}
