"""From an event log to a dataset: earliest event of every (user, item, behavior), then a split of the target."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mbgraph.data.columns import check_columns
from mbgraph.data.dataset import MultiBehaviorDataset, check_behavior_name
from mbgraph.data.formats.events import CHUNK_ROWS, EventFile, Progress
from mbgraph.data.interactions import Pairs
from mbgraph.data.splits import CUTOFFS, not_later, parse_protocol, split_pairs
from mbgraph.data.stream import BLOCK, EventLog, Source
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.random import RNGLike
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_events", "import_events"]


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
    protocol = _protocol(split, split_column, cutoff, time)
    wanted = [column for column in (user, item, behavior, time, split_column) if column is not None]
    if not hasattr(df, "columns") or not hasattr(df, "iloc"):
        raise UsageError(f"an event log is a pandas DataFrame, not {type(df).__name__}", "convert it to one")
    check_columns(df.columns, wanted)
    log = EventLog(
        user, item, behavior, time, split_column, target=str(target), behaviors=_as_set(behaviors), from_text=False
    )
    return _dataset(log, lambda: iter([df]), str(target), protocol, behaviors, cutoff, name, rng)


def import_events(
    path: str | os.PathLike[str],
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
    name: str | None = None,
    rng: RNGLike = 0,
    chunk_rows: int = CHUNK_ROWS,
    progress: Progress | None = None,
) -> MultiBehaviorDataset:
    """Make a dataset of an event log on disk: the same as ``from_events(read_events(path))``, in less memory.

    The file is read in pieces. What is kept of an event is some 17 bytes (user, item, behavior, time).

    Parameters
    ----------
    path : path
        CSV with a header, plain or gzipped, or Parquet; see `mbgraph.data.formats.events.EventFile`. In a CSV, ids are
        integers if every one of the column is written plainly as one; a single ``007`` makes all of them text.
    user, item, behavior, time, target, split, split_column, behaviors, cutoff, rng
        See `from_events`.
    name : str, optional
        Name of the dataset; the file's without its endings by default.
    chunk_rows : int
        Events read at a time. The dataset does not depend on it.
    progress : callable, optional
        Called as the file is read: (events so far, bytes or rows done, of how many).

    Raises
    ------
    DataError
        As `from_events`; and if the file is missing, damaged or empty. Rows of a CSV count from 1 after the header.
    UnknownNameError, UsageError
        As `from_events`.
    """
    protocol = _protocol(split, split_column, cutoff, time)
    file = EventFile(path)
    wanted = [column for column in (user, item, behavior, time, split_column) if column is not None]
    columns = file.wanted(wanted)
    check_columns(columns, wanted)
    log = EventLog(
        user,
        item,
        behavior,
        time,
        split_column,
        target=str(target),
        behaviors=_as_set(behaviors),
        from_text=file.is_text,
    )
    known = name or Path(path).name.split(".")[0] or "events"

    def source() -> Iterator[pd.DataFrame]:
        empty = True
        for chunk in file.chunks(columns, chunk_rows, progress):
            empty = False
            yield chunk
        if empty:
            raise DataError(f"{file.path} holds no events", "give a file with at least one row")

    return _dataset(log, source, str(target), protocol, behaviors, cutoff, known, rng)


def _as_set(behaviors: Sequence[str] | None) -> set[str] | None:
    if behaviors is None:
        return None
    return {behaviors} if isinstance(behaviors, str) else {str(label) for label in behaviors}


def _dataset(
    log: EventLog,
    source: Source,
    target: str,
    protocol: str,
    behaviors: Sequence[str] | None,
    cutoff: str,
    name: str,
    rng: RNGLike,
) -> MultiBehaviorDataset:
    """Read the log from its source, keep the earliest of each pair, split the target."""
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
    found.keep(_earliest(found, len(users), len(items), len(order)))
    pairs, parts = found.pairs(places[target])
    train, held_out, record = split_pairs(pairs, protocol, parts=parts, rng=rng)
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
                in_time = not_later(pairs[some], held_out.values(), len(users))
                left_out["later_auxiliary"] += int((keep[some] & ~in_time).sum())
                keep[some] &= in_time
        edges[label] = pairs if keep.all() else pairs[keep]
    facts = {
        "events": log.events,
        "events_of_other_behaviors": log.events - of_behaviors,
        "repeated_events": of_behaviors - len(found.number),
        **{reason: count for reason, count in left_out.items() if count},
        "users_in_no_split": len(users) - _distinct([train.user, *(held.user for held in held_out.values())]),
        "users_without_held_out": len(users) - _distinct([held.user for held in held_out.values()]),
    }
    del found, pairs, parts  # the checks of the dataset need room
    metadata = {"import": facts, "splits": [{**record, "cutoff": cutoff}]}
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

    def pairs(self, place: int) -> tuple[Pairs, np.ndarray | None]:
        """Return the pairs of one behavior and their parts."""
        at = self.number == place
        time = None if self.time is None else self.time[at]
        return Pairs(self.user[at], self.item[at], time), None if self.part is None else self.part[at]


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
