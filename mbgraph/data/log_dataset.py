"""From the columns of an event log to a dataset: the earliest of each pair, a filter, a split of the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset, check_behavior_name
from mbgraph.data.filters import Filter, in_window, kept_pairs
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.log_columns import BLOCK
from mbgraph.data.splits import not_later, split_pairs
from mbgraph.data.stream import EventLog, Source
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.random import RNGLike
from mbgraph.typing import IntArray

__all__ = ["make_dataset"]


def make_dataset(
    log: EventLog,
    source: Source,
    target: str,
    protocol: str,
    *,
    behaviors: Sequence[str] | None = None,
    cutoff: str = "none",
    ties: str = "rows",
    rule: Filter | None = None,
    name: str = "events",
    rng: RNGLike = 0,
) -> MultiBehaviorDataset:
    """Read the log from its source, keep the earliest of each pair and what the filter leaves, split the target."""
    rule = rule or Filter()
    log.read(source)
    labels = log.labels.words()
    order = _behavior_order(labels, log.counts, target, behaviors)
    places = {label: place for place, label in enumerate(order)}
    table = np.array([places.get(label, -1) for label in labels], np.int8 if len(order) < 128 else np.int32)
    number = log.take_behaviors(table)
    (users, user_rows), (items, item_rows) = log.take_ids("user"), log.take_ids("item")
    found = _Events(number, user_rows, item_rows, log.take_times(source), log.take_parts())
    del number, user_rows, item_rows

    of_behaviors = len(found.number)
    if rule.window is not None:
        assert found.time is not None
        found.keep(in_window(found.time, rule.window))
        if not len(found.number):
            raise DataError(f"no event lies in the window {rule.window}", "move its ends")
    in_time = len(found.number)
    found.keep(_earliest(found, len(users), len(items), len(order)))
    distinct = len(found.number)
    filters = []
    if rule.is_active:
        before = len(users), len(items)
        pairs_left_out = _keep_enough(found, rule, order, target, *before)
        users, found.user = _compacted(users, found.user)
        items, found.item = _compacted(items, found.item)
        record = rule.record(
            events_left_out=of_behaviors - in_time,
            users_left_out=before[0] - len(users),
            items_left_out=before[1] - len(items),
            **pairs_left_out,
        )
        filters.append(record)
    pairs, parts = found.pairs(places[target])
    train, held_out, record = split_pairs(pairs, protocol, parts=parts, ties=ties, rng=rng)
    edges: dict[str, Pairs] = {}
    left_out = {"later_auxiliary": 0, "held_out_auxiliary": 0}
    for label in order:
        if label == target:
            edges[label] = train
            continue
        pairs, parts = found.pairs(places[label])
        keep = np.ones(len(pairs), bool) if parts is None else parts == 0
        left_out["held_out_auxiliary"] += int((~keep).sum())
        if cutoff == "target":
            for start in range(0, len(pairs), BLOCK):
                some = slice(start, start + BLOCK)
                known = not_later(pairs[some], held_out.values(), len(users))
                left_out["later_auxiliary"] += int((keep[some] & ~known).sum())
                keep[some] &= known
        edges[label] = pairs if keep.all() else pairs[keep]
    facts = {
        "events": log.events,
        "events_of_other_behaviors": log.events - of_behaviors,
        "repeated_events": in_time - distinct,
        **{reason: count for reason, count in left_out.items() if count},
        "users_in_no_split": len(users) - _distinct([train.user, *(held.user for held in held_out.values())]),
        "users_without_held_out": len(users) - _distinct([held.user for held in held_out.values()]),
    }
    del found, pairs, parts  # the checks of the dataset need room
    metadata: dict[str, Any] = {"import": facts, "splits": [{**record, "cutoff": cutoff}]}
    if filters:
        metadata["filters"] = filters
    return MultiBehaviorDataset(name, users, items, edges, target, held_out, metadata)


@dataclass
class _Events:
    """Events in the order of the log: places of behaviors, rows of users and items, times, parts of a split; (N,)."""

    number: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None
    part: np.ndarray | None

    def keep(self, mask: np.ndarray) -> None:
        """Keep some, one column at a time: the old one goes before the next is made."""
        if not mask.all():
            for name, column in list(vars(self).items()):
                if column is not None:
                    setattr(self, name, column[mask])

    def counts(self, behaviors: int) -> IntArray:
        """Return the number of events of each behavior, (B,)."""
        return np.array([int((self.number == place).sum()) for place in range(behaviors)])

    def pairs(self, place: int) -> tuple[Pairs, np.ndarray | None]:
        """Return the pairs of one behavior and their parts."""
        at = self.number == place
        time = None if self.time is None else self.time[at]
        return Pairs(self.user[at], self.item[at], time), None if self.part is None else self.part[at]


def _behavior_order(labels: list[str], counts: IntArray, target: str, behaviors: Sequence[str] | None) -> list[str]:
    """Return the behaviors to keep, in their order."""
    found = dict(zip(labels, counts.tolist(), strict=True))
    if target not in found:
        raise UnknownNameError("target behavior", target, found)
    if behaviors is None:
        rest = sorted((label for label in found if label != target), key=lambda label: (-found[label], label))
        return [check_behavior_name(label) for label in (*rest, target)]
    order = [behaviors] if isinstance(behaviors, str) else [str(label) for label in behaviors]
    for label in order:
        if label not in found:
            raise UnknownNameError("behavior (it has no events)", label, found)
        if order.count(label) > 1:
            raise UsageError(f"behavior {label!r} is listed twice", "list each once")
    if target not in order:
        raise UsageError(f"the target {target!r} is not among the behaviors to keep", "add it to the list")
    return [check_behavior_name(label) for label in order]


def _keep_enough(
    found: _Events, rule: Filter, order: list[str], target: str, num_users: int, num_items: int
) -> dict[str, Any]:
    """Keep the pairs of users and items with enough of them; return how many pairs of each behavior went."""
    if not rule.counts:
        return {}
    counted = found.number == order.index(target) if rule.of == "target" else None
    kept = kept_pairs(found.user, found.item, counted, num_users, num_items, rule)
    before = found.counts(len(order))
    found.keep(kept.pairs)
    left_out = dict(zip(order, (before - found.counts(len(order))).tolist(), strict=True))
    told = {"pairs_left_out": {behavior: count for behavior, count in left_out.items() if count}}
    return {**told, "rounds": kept.rounds} if rule.core else told


def _compacted(ids: Vocabulary, rows: np.ndarray) -> tuple[Vocabulary, np.ndarray]:
    """Return the ids that have an event, and the events' row numbers among them, int32 (N,)."""
    present = np.zeros(len(ids), bool)
    present[rows] = True
    if present.all():
        return ids, rows
    numbers = (np.cumsum(present) - 1).astype(np.int32)
    return ids.subset(np.flatnonzero(present)), numbers[rows]


def _earliest(found: _Events, num_users: int, num_items: int, num_behaviors: int) -> np.ndarray:
    """Say which events are the earliest of their (behavior, user, item), (N,) of bool."""
    import pandas as pd

    if num_behaviors * num_users * num_items > np.iinfo(np.int64).max:
        raise DataError(f"{num_users:,} users x {num_items:,} items are too many for one dataset", "split the log")
    times = found.time
    if times is not None and (times[1:] >= times[:-1]).all():
        times = None
    earliest = np.zeros(len(found.number), bool)
    # users in turn: keys of all events at once, and what sorts them, would take more memory than the log
    for first, last in _user_blocks(found.user, num_users):
        rows = np.flatnonzero((found.user >= first) & (found.user < last))
        if times is not None:
            rows = rows[np.argsort(times[rows], kind="stable")]
        keys = (found.number[rows].astype(np.int64) * num_users + found.user[rows]) * num_items + found.item[rows]
        earliest[rows[~pd.Series(keys).duplicated().to_numpy()]] = True
    return earliest


def _user_blocks(user_rows: np.ndarray, num_users: int) -> list[tuple[int, int]]:
    """Return ranges of users, each of about `BLOCK` events (more if a single user has more)."""
    if len(user_rows) <= BLOCK:
        return [(0, num_users)]
    counts = np.zeros(num_users, np.int64)
    for start in range(0, len(user_rows), BLOCK):
        counts += np.bincount(user_rows[start : start + BLOCK], minlength=num_users)
    wanted = np.arange(BLOCK, len(user_rows), BLOCK)
    borders = np.unique(np.r_[0, np.searchsorted(np.cumsum(counts), wanted), num_users])
    return list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))


def _distinct(parts: Iterable[IntArray]) -> int:
    return len(np.unique(np.concatenate([np.empty(0, np.int64), *parts])))
