"""From an event log to a dataset: earliest event of every (user, item, behavior), then a split of the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.columns import check_columns, check_missing, encode_ids, encode_labels, parts_of, times_of
from mbgraph.data.dataset import MultiBehaviorDataset, check_behavior_name
from mbgraph.data.interactions import Pairs
from mbgraph.data.splits import CUTOFFS, not_later, parse_protocol, split_pairs
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.random import RNGLike
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_events"]


def from_events(
    df: pd.DataFrame,
    *,
    user: str = "user",
    item: str = "item",
    behavior: str = "behavior",
    time: str | None = None,
    target: str | int,
    split: str = "auto",
    split_column: str | None = None,
    behaviors: Sequence[str] | None = None,
    cutoff: str = "none",
    name: str = "events",
    rng: RNGLike = 0,
) -> MultiBehaviorDataset:
    """Make a dataset of an event log.

    Of several events of the same user, item and behavior the earliest is kept, and among equal times (or without a time
    column) the first row. The target's pairs are then split; auxiliary pairs are train. Users and items of every kept
    event become nodes, so nobody is lost to the split. Pairs keep the order of the log.

    Parameters
    ----------
    df : DataFrame
        One row per event.
    user, item : str
        Columns of ids: all integers, all text or all `uuid.UUID` (which become text). Row numbers follow the sorted
        ids, integers by value, text by code point.
    behavior : str
        Column of behavior names (text or integers).
    time : str, optional
        Column of numbers or dates. Dates become int64 nanoseconds since 1970, UTC.
    target : str or int
        The behavior to predict.
    split : str
        ``"loo"`` or ``"auto"``: each user's last target pair is test and the one before it validation, as long as one
        stays in train (one pair: train; two: train and test). ``"random"``: the same in random order, although there
        is a time. ``"ratio:0.7,0.2,0.1"``: of n pairs the floor(0.7 n) earliest are train, the next ceil(0.2 n)
        validation, the rest test, so users with few pairs may have none in train. ``"given"``: ``split_column``.
        ``"none"``: everything is train. Without a time column all orders are random by ``rng``, and the same whatever
        the order of the rows.
    split_column : str, optional
        Column that says train, valid or test for every target event (of the one that is kept). Auxiliary events marked
        valid or test are left out and counted; unmarked ones are train.
    behaviors : sequence of str, optional
        Behaviors to keep, in this order; by default all, the most frequent first and the target last.
    cutoff : {"none", "target"}
        ``"none"``, as in the published datasets: all auxiliary pairs are train edges. ``"target"``: those later than
        their user's first held-out pair are left out, as nobody knows them when the prediction is made. Needs a time.
    name : str
        Name of the dataset.
    rng : int or Generator
        For random orders.

    Returns
    -------
    MultiBehaviorDataset
        ``metadata["splits"]`` starts with the split (protocol, order, seed); ``metadata["import"]`` counts events, what
        was left out and why, users without any target pair (``users_in_no_split``) and without a held-out one.

    Raises
    ------
    DataError
        Empty log, missing ids (with number and row, counted from 1), mixed id types, a column that stands twice, a
        behavior without train pairs.
    UnknownNameError
        A column, behavior or protocol that does not exist; the message names the nearest.
    UsageError
        Arguments that contradict each other.

    Examples
    --------
    >>> import pandas as pd
    >>> log = pd.DataFrame({"who": ["ann", "ann", "ann", "bob"], "what": [1, 1, 2, 2],
    ...                     "how": ["view", "buy", "buy", "buy"], "when": [1, 2, 3, 4]})
    >>> from_events(log, user="who", item="what", behavior="how", time="when", target="buy")
    MultiBehaviorDataset('events', 2 users, 2 items, view=1, buy=2, test=1)
    """
    target = str(target)
    protocol = _protocol(split, split_column, cutoff, time)
    wanted = [column for column in (user, item, behavior, time, split_column) if column is not None]
    if not hasattr(df, "columns") or not hasattr(df, "iloc"):
        raise UsageError(f"an event log is a pandas DataFrame, not {type(df).__name__}", "convert it to one")
    check_columns(df, wanted)
    if len(df) == 0:
        raise DataError("the event log is empty", "give at least one event")
    for column in wanted:
        if column != split_column:
            check_missing(df[column])

    labels, label_codes = encode_labels(df[behavior])
    order = _behavior_order(labels, np.bincount(label_codes), target, behaviors)
    number = np.array([order.index(label) if label in order else -1 for label in labels])[label_codes]
    rows = np.flatnonzero(number >= 0)
    number = number[rows]
    kept_log = df if len(rows) == len(df) else df.iloc[rows]
    users, user_rows = encode_ids(kept_log[user], "user")
    items, item_rows = encode_ids(kept_log[item], "item")
    times = None if time is None else times_of(df[time])[rows]
    parts = None if split_column is None else parts_of(df[split_column], label_codes == labels.index(target))[rows]

    kept = _earliest(number, user_rows, item_rows, times, len(users), len(items))
    edges: dict[str, Pairs] = {}
    left_out = {"later_auxiliary": 0, "held_out_auxiliary": 0}
    chosen = {label: kept[number[kept] == place] for place, label in enumerate(order)}
    pairs = {
        label: Pairs(user_rows[at], item_rows[at], None if times is None else times[at]) for label, at in chosen.items()
    }
    target_parts = None if parts is None else parts[chosen[target]]
    train, held_out, record = split_pairs(pairs[target], protocol, parts=target_parts, rng=rng)
    for label in order:
        if label == target:
            edges[label] = train
            continue
        keep = np.ones(len(pairs[label]), bool)
        if parts is not None:
            keep = parts[chosen[label]] == 0
            left_out["held_out_auxiliary"] += int((~keep).sum())
        if cutoff == "target":
            in_time = not_later(pairs[label], held_out.values(), len(users))
            left_out["later_auxiliary"] += int((keep & ~in_time).sum())
            keep &= in_time
        edges[label] = pairs[label][keep]
    facts = {
        "events": len(df),
        "events_of_other_behaviors": len(df) - len(rows),
        "repeated_events": len(rows) - len(kept),
        **{reason: count for reason, count in left_out.items() if count},
        "users_in_no_split": len(users) - _distinct([train.user, *(held.user for held in held_out.values())]),
        "users_without_held_out": len(users) - _distinct([held.user for held in held_out.values()]),
    }
    metadata = {"import": facts, "splits": [{**record, "cutoff": cutoff}]}
    return MultiBehaviorDataset(name, users, items, edges, target, held_out, metadata)


def _protocol(split: str, split_column: str | None, cutoff: str, time: str | None) -> str:
    protocol, _ = parse_protocol(split)
    if split_column is not None and protocol == "auto":
        split = protocol = "given"
    if protocol == "given" and split_column is None:
        raise UsageError("split 'given' needs the column that says train, valid or test", "pass split_column")
    if protocol != "given" and split_column is not None:
        raise UsageError(f"split {split!r} does not read split_column {split_column!r}", "use split='given'")
    if cutoff not in CUTOFFS:
        raise UnknownNameError("cutoff", cutoff, CUTOFFS)
    if cutoff == "target" and time is None:
        raise UsageError("cutoff 'target' needs times", "name the time column")
    return split


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


def _earliest(
    number: IntArray,
    user_rows: IntArray,
    item_rows: IntArray,
    times: np.ndarray[Any, Any] | None,
    num_users: int,
    num_items: int,
) -> IntArray:
    """Return the places of the earliest event of every (behavior, user, item), ascending."""
    import pandas as pd

    if (int(number.max()) + 1) * num_users * num_items > np.iinfo(np.int64).max:
        raise DataError(f"{num_users:,} users x {num_items:,} items are too many for one dataset", "split the log")
    keys = (number * num_users + user_rows) * num_items + item_rows
    if times is None or (times[1:] >= times[:-1]).all():
        return np.flatnonzero(~pd.Series(keys).duplicated().to_numpy())
    order = np.argsort(times, kind="stable")
    return np.sort(order[~pd.Series(keys[order]).duplicated().to_numpy()])


def _distinct(parts: Iterable[IntArray]) -> int:
    return len(np.unique(np.concatenate([np.empty(0, np.int64), *parts])))
