"""Which users, items and moments a dataset keeps: at least so many pairs of each, and a window of time.

Of the filters in papers, "users and items with at least five purchases" may mean one look or many: removing a user may
leave an item with four. `Filter.core` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.data.splits import moment_of
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.typing import IntArray

__all__ = ["COUNTED", "Filter", "Kept", "filter_dataset", "in_window", "kept_pairs"]

COUNTED = ("target", "all")
BLOCK = 1 << 22


@dataclass(frozen=True)
class Filter:
    """What to keep.

    Attributes
    ----------
    min_user, min_item : int
        Users and items with fewer distinct pairs are left out, with all their pairs of all behaviors.
    of : {"target", "all"}
        Which pairs count: those of the target behavior, held-out ones among them, or those of every behavior.
    core : bool
        Count again after users and items were left out, until nothing changes (the k-core). Otherwise all are counted
        once, before any is left out.
    window : str, optional
        ``"A..B"``: only events from A to B, both included, happened. Either may be missing. Each is a number in the
        clock of the data or an ISO date, UTC unless it says otherwise; a date without a time is the whole day.

    Raises
    ------
    UsageError, UnknownNameError
        If a number is negative or something cannot be read.

    Examples
    --------
    >>> Filter(min_user=5, min_item=5, core=True).told()
    '5-core of target pairs'
    """

    min_user: int = 0
    min_item: int = 0
    of: str = "target"
    core: bool = False
    window: str | None = None

    def __post_init__(self) -> None:
        if min(self.min_user, self.min_item) < 0:
            raise UsageError(f"min_user and min_item are not negative, got {self.min_user} and {self.min_item}")
        if self.of not in COUNTED:
            raise UnknownNameError("pairs to count", self.of, COUNTED)
        if self.core and not self.counts:
            raise UsageError("core needs numbers to reach", "pass min_user or min_item (--min-user, --min-item)")
        if self.window is not None:
            _ends(self.window)

    @property
    def counts(self) -> bool:
        """Whether users or items are counted at all."""
        return self.min_user > 0 or self.min_item > 0

    @property
    def is_active(self) -> bool:
        """Whether anything could be left out."""
        return self.counts or self.window is not None

    def told(self) -> str:
        """Return the filter in words."""
        words = []
        if self.window is not None:
            words.append(f"events of {self.window}")
        if self.counts and self.core and self.min_user == self.min_item:
            words.append(f"{self.min_user}-core of {self.of} pairs")
        elif self.counts:
            least = [f"users with {self.min_user}"] * bool(self.min_user) + [f"items with {self.min_item}"] * bool(
                self.min_item
            )
            words.append(f"{' and '.join(least)} {self.of} pairs" + (", again until nothing changes" * self.core))
        return "; ".join(words)

    def record(self, **found: Any) -> dict[str, Any]:
        """Return what the metadata says of the filter and of what it left out."""
        asked = {name: value for name, value in vars(self).items() if (self.counts if name == "of" else value)}
        return {"act": "filter", **asked, **found}


@dataclass(frozen=True, eq=False)
class Kept:
    """Which pairs are kept.

    Attributes
    ----------
    pairs : bool array (N,)
    rounds : int
        How often users and items were counted until nothing changed; 1 without a core.
    """

    pairs: np.ndarray
    rounds: int


def kept_pairs(
    user: IntArray, item: IntArray, counted: np.ndarray | None, num_users: int, num_items: int, rule: Filter
) -> Kept:
    """Say which pairs the least numbers leave.

    Parameters
    ----------
    user, item : int array (N,)
        Row numbers of distinct pairs of each behavior.
    counted : bool array (N,), optional
        The pairs that count; all by default.
    num_users, num_items : int
    rule : Filter

    Raises
    ------
    DataError
        If nothing is left.
    """
    alive = np.ones(len(user), bool)
    rounds = 0
    while True:
        rounds += 1
        counting = alive if counted is None else alive & counted
        good_users = _counts(user, counting, num_users) >= rule.min_user
        good_items = _counts(item, counting, num_items) >= rule.min_item
        before = int(alive.sum())
        for start in range(0, len(user), BLOCK):
            some = slice(start, start + BLOCK)
            alive[some] &= good_users[user[some]] & good_items[item[some]]
        left = int(alive.sum())
        if not left:
            raise DataError(f"the filter ({rule.told()}) leaves nothing", "ask for fewer pairs")
        if not rule.core or left == before:
            return Kept(alive, rounds)


def _counts(rows: IntArray, mask: np.ndarray, size: int) -> IntArray:
    counts = np.zeros(size, np.int64)
    for start in range(0, len(rows), BLOCK):  # bincount makes int64 of what it counts
        some = slice(start, start + BLOCK)
        counts += np.bincount(rows[some][mask[some]], minlength=size)
    return counts


def in_window(times: np.ndarray[Any, Any], window: str) -> np.ndarray:
    """Say which times lie in a window, (N,) -> (N,) of bool; see `Filter.window`.

    Raises
    ------
    UsageError
        If an end is a date and the times count from no known moment, or the ends do not ascend.
    """
    first, last = _ends(window)
    low = moment_of(first, times) if first else -np.inf
    # a day lasts until the next begins
    after = f"{datetime.fromisoformat(last) + timedelta(days=1):%Y-%m-%d}" if last and _is_day(last) else None
    high = moment_of(after or last, times) if last else np.inf
    if not low <= high:
        raise UsageError(f"the ends of {window!r} do not ascend", "write the earlier one first")
    keep = times >= low
    keep &= times < high if after else times <= high
    return keep


def _ends(window: str) -> tuple[str, str]:
    first, dots, last = (part.strip() for part in window.partition(".."))
    wrong = next((end for end in (first, last) if end and not _is_moment(end)), None)
    if not dots or not (first or last) or wrong is not None:
        raise UsageError(f"cannot read the window {window!r}", "write A..B, such as 2017-11-25..2017-12-03 or 100..")
    return first, last


def _is_moment(text: str) -> bool:
    for read in (float, datetime.fromisoformat):
        try:
            read(text)
        except ValueError:
            continue
        return text.lower() not in ("nan", "inf", "-inf", "infinity", "-infinity")
    return False


def _is_day(text: str) -> bool:
    return len(text) == 10 and text[4] == text[7] == "-"


def filter_dataset(ds: MultiBehaviorDataset, rule: Filter) -> MultiBehaviorDataset:
    """Leave out users, items and moments of a dataset; only users and items with a pair stay, numbered anew.

    Held-out pairs count as pairs of the target and are left out like others, so a user may lose the held-out pair and
    keep the rest.

    Parameters
    ----------
    ds : MultiBehaviorDataset
    rule : Filter

    Returns
    -------
    MultiBehaviorDataset
        What was left out stands in ``metadata["filters"]``.

    Raises
    ------
    UsageError
        If a window is asked for and a part has no times.
    DataError
        If a behavior loses all pairs.
    """
    if not rule.is_active:
        return ds
    parts = {**ds.edges, **ds.splits}
    kept = dict(parts)
    if rule.window is not None:
        for name, pairs in parts.items():
            if pairs.time is None:
                raise UsageError(f"a window needs times, and {name} of {ds.name!r} has none", "leave the window out")
            kept[name] = pairs[in_window(pairs.time, rule.window)]
    rounds = 0
    if rule.counts:
        user, item = (np.concatenate([getattr(pairs, kind) for pairs in kept.values()]) for kind in ("user", "item"))
        sizes = [len(pairs) for pairs in kept.values()]
        ours = [name == ds.target or name in ds.splits for name in kept]
        counted = np.repeat(ours, sizes) if rule.of == "target" else None
        found = kept_pairs(user, item, counted, ds.num_users, ds.num_items, rule)
        rounds = found.rounds
        masks = np.split(found.pairs, np.cumsum(sizes)[:-1])
        kept = {name: pairs[mask] for (name, pairs), mask in zip(kept.items(), masks, strict=True)}
    rows = {kind: _used([getattr(pairs, kind) for pairs in kept.values()]) for kind in ("user", "item")}
    left = {name: len(parts[name]) - len(pairs) for name, pairs in kept.items() if len(pairs) < len(parts[name])}
    record = rule.record(
        users_left_out=ds.num_users - len(rows["user"]),
        items_left_out=ds.num_items - len(rows["item"]),
        pairs_left_out=left,
        **({"rounds": rounds} if rule.core else {}),
    )
    new = {
        name: Pairs(np.searchsorted(rows["user"], pairs.user), np.searchsorted(rows["item"], pairs.item), pairs.time)
        for name, pairs in kept.items()
    }
    for behavior in ds.edges:
        if not len(new[behavior]):
            raise DataError(
                f"the filter ({rule.told()}) leaves no pair of {behavior!r}", "ask for less, or leave the behavior out"
            )
    return ds.replace(
        users=ds.users.subset(rows["user"]),
        items=ds.items.subset(rows["item"]),
        edges={name: new[name] for name in ds.edges},
        splits={name: new[name] for name in ds.splits if len(new[name])},
        metadata={**ds.metadata, "filters": [*ds.metadata.get("filters", []), record]},
    )


def _used(columns: Sequence[IntArray]) -> IntArray:
    return np.unique(np.concatenate(columns))
