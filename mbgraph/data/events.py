"""From an event log to a dataset: earliest occurrence of every (user, item, behavior), then a split of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.splits import TEST, VALID, assign_loo, assign_ratio, parse_protocol
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.random import RNGLike, as_generator
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_events"]

_PARTS = {"train": 0, "valid": VALID, "test": TEST}


def from_events(
    df: pd.DataFrame,
    *,
    user: str = "user",
    item: str = "item",
    behavior: str = "behavior",
    time: str | None = None,
    target: str,
    split: str = "auto",
    split_column: str | None = None,
    behaviors: Sequence[str] | None = None,
    name: str = "events",
    rng: RNGLike = 0,
) -> MultiBehaviorDataset:
    """Make a dataset of an event log.

    Of several events of the same user, item and behavior the earliest is kept; without a time column the first row. The
    target's pairs are then split; auxiliary pairs are train. Users and items of every kept event become nodes, so
    nobody is lost to the split. Ids are sorted: integers by value, everything else as text.

    Parameters
    ----------
    df : DataFrame
        One row per event.
    user, item, behavior : str
        Column names. Ids are all integers or all text (anything else is turned into text).
    time : str, optional
        Column of numbers or datetimes; datetimes become int64 nanoseconds.
    target : str
        The behavior to predict.
    split : str
        ``"loo"`` or ``"auto"``: each user's last target pair is test and the one before it validation, as long as one
        stays in train; "last" is by time, and random with ``rng`` when there is no time. ``"random"``: the same, random
        although there is a time. ``"ratio:0.7,0.2,0.1"``: floor(0.7 n) earliest pairs train, ceil(0.2 n) validation, the
        rest test. ``"given"``: ``split_column`` says train, valid or test. ``"none"``: everything is train.
    split_column : str, optional
        For ``"given"``; rows of auxiliary behaviors must say train.
    behaviors : sequence of str, optional
        Behaviors to keep, in this order; by default all, the most frequent first and the target last.
    name : str
        Name of the dataset.
    rng : int or Generator
        For random splits.

    Returns
    -------
    MultiBehaviorDataset
        ``metadata["import"]`` records the split, the seed, events read, repeated events dropped and users in no split.

    Raises
    ------
    DataError
        Empty log, missing ids, mixed id types, a column that stands twice, a behavior without events.
    UnknownNameError
        A column, behavior or protocol that does not exist; the message names the nearest.

    Examples
    --------
    >>> import pandas as pd
    >>> log = pd.DataFrame({"who": ["ann", "ann", "ann", "bob"], "what": [1, 1, 2, 2],
    ...                     "how": ["view", "buy", "buy", "buy"], "when": [1, 2, 3, 4]})
    >>> from_events(log, user="who", item="what", behavior="how", time="when", target="buy")
    MultiBehaviorDataset('events', 2 users, 2 items, view=1, buy=2, test=1)
    """
    import pandas as pd

    protocol, shares = parse_protocol(split)
    if protocol == "given" and split_column is None:
        raise UsageError("split 'given' needs the column that says train, valid or test", "pass split_column")
    wanted = [column for column in (user, item, behavior, time, split_column) if column is not None]
    _check_columns(df, wanted)
    if len(df) == 0:
        raise DataError("the event log is empty", "give at least one event")
    for column in wanted:
        missing = np.flatnonzero(df[column].isna().to_numpy())
        if len(missing):
            raise DataError(
                f"column {column!r} has {len(missing)} missing values, the first in row {missing[0]}", "drop or fill them"
            )
    labels = df[behavior].astype(str)
    order = _behavior_order(labels, target, behaviors)
    keep = labels.isin(order).to_numpy()
    users, user_codes = _vocabulary(df[user].to_numpy()[keep], user, "user")
    items, item_codes = _vocabulary(df[item].to_numpy()[keep], item, "item")
    codes = pd.Categorical(labels.to_numpy()[keep], categories=order).codes.astype(np.int64)
    times = None if time is None else _times(df[time])[keep]
    parts = _given_parts(df[split_column], split_column)[keep] if protocol == "given" and split_column else None

    earliest = np.arange(len(codes)) if times is None else np.argsort(times, kind="stable")
    keys = (codes * len(users) + user_codes) * np.int64(len(items)) + item_codes
    _, first = np.unique(keys[earliest], return_index=True)
    kept = np.sort(earliest[first]) if times is None else earliest[np.sort(first)]
    user_codes, item_codes, codes = user_codes[kept], item_codes[kept], codes[kept]
    times = None if times is None else times[kept]
    parts = None if parts is None else parts[kept]

    edges, splits = {}, {}
    for number, label in enumerate(order):
        rows = np.flatnonzero(codes == number)
        pairs = Pairs(user_codes[rows], item_codes[rows], None if times is None else times[rows])
        if label != target:
            if parts is not None and (parts[rows] != 0).any():
                raise DataError(f"column {split_column!r} holds out events of {label!r}", f"only {target!r} is held out")
            edges[label] = pairs
            continue
        part = _assign(pairs, protocol, shares, as_generator(rng), None if parts is None else parts[rows])
        edges[label] = pairs[part == 0]
        splits = {split_name: pairs[part == value] for split_name, value in (("valid", VALID), ("test", TEST))}
    splits = {split_name: pairs for split_name, pairs in splits.items() if len(pairs)}
    held = np.concatenate([pairs.user for pairs in splits.values()] or [np.empty(0, np.int64)])
    record: dict[str, Any] = {
        "split": protocol if not shares else split,
        "by": "given" if protocol == "given" else "time" if times is not None and protocol != "random" else "random",
        "events": len(df),
        "events_of_other_behaviors": int((~keep).sum()),
        "repeated_events_dropped": int(keep.sum() - len(kept)),
        "users_in_no_split": len(users) - len(np.unique(held)),
        "users_without_target": len(users) - len(np.unique(np.concatenate([edges[target].user, held]))),
    }
    if isinstance(rng, int | np.integer):
        record["seed"] = int(rng)
    return MultiBehaviorDataset(name, users, items, edges, target, splits, {"import": record})


def _check_columns(df: pd.DataFrame, wanted: Sequence[str]) -> None:
    names = [str(column) for column in df.columns]
    for column in wanted:
        if column not in names:
            raise UnknownNameError("column", column, names)
        if names.count(column) > 1:
            raise DataError(f"the event log has two columns called {column!r}", "rename one")
    if len(set(wanted)) != len(wanted):
        raise UsageError("one column is named for two purposes", "name different columns")


def _behavior_order(labels: pd.Series, target: str, behaviors: Sequence[str] | None) -> list[str]:
    counts = labels.value_counts()
    found = sorted(counts.index, key=lambda label: (-counts[label], label))
    if target not in counts.index:
        raise UnknownNameError("target behavior", target, found)
    if behaviors is None:
        return [label for label in found if label != target] + [target]
    order = list(behaviors)
    for label in order:
        if label not in counts.index:
            raise UnknownNameError("behavior (no events)", label, found)
    if len(set(order)) != len(order):
        raise UsageError("a behavior is listed twice", "list each once")
    if target not in order:
        raise UsageError(f"the target {target!r} is not among the behaviors to keep", "add it to the list")
    return order


def _vocabulary(ids: np.ndarray, column: str, kind: str) -> tuple[Vocabulary, IntArray]:
    """Return sorted distinct ids and the row number of each event."""
    import pandas as pd

    inferred = pd.api.types.infer_dtype(ids, skipna=False)
    if inferred in ("floating", "mixed-integer-float", "decimal"):
        numbers = np.asarray(ids, dtype=np.float64)
        if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any():
            raise DataError(f"column {column!r} holds ids that are no whole numbers", "turn them into integers or text")
        ids, inferred = numbers.astype(np.int64), "integer"
    if inferred in ("mixed", "mixed-integer"):
        kinds = {type(value).__name__ for value in ids}
        if len(kinds) > 1:
            raise DataError(f"column {column!r} mixes ids of types {', '.join(sorted(kinds))}", "turn all into text")
    if inferred == "integer":
        codes, values = pd.factorize(np.asarray(ids, dtype=np.int64), sort=True)
    else:
        codes, values = pd.factorize(np.array([str(value) for value in ids], dtype=object), sort=True)
    return Vocabulary(np.asarray(values), kind=kind), codes.astype(np.int64)


def _times(column: pd.Series) -> np.ndarray:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        moments = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
        return moments.to_numpy().astype("datetime64[ns]").astype(np.int64)
    if pd.api.types.is_bool_dtype(column):
        raise DataError(f"column {column.name!r} is true or false, not a time", "name another time column")
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy()
    try:
        return _times(pd.to_datetime(column, utc=True))
    except (ValueError, TypeError) as error:
        raise DataError(f"column {column.name!r} is no time ({str(error).splitlines()[0][:80]})", "use numbers or dates") from error


def _given_parts(column: pd.Series, name: str | None) -> IntArray:
    labels = column.astype(str)
    unknown = sorted(set(labels.unique()) - set(_PARTS))
    if unknown:
        raise UnknownNameError(f"split in column {name!r}", unknown[0], _PARTS)
    return labels.map(_PARTS).to_numpy(dtype=np.int64)


def _assign(
    pairs: Pairs, protocol: str, shares: tuple[float, ...], rng: np.random.Generator, parts: IntArray | None
) -> IntArray:
    """Return 0 train, 1 valid, 2 test for every target pair: (N,)."""
    if parts is not None:
        return parts
    if protocol == "none":
        return np.zeros(len(pairs), np.int64)
    in_time = pairs.time is not None and protocol != "random"
    # Ties in time fall back to the order of the log, which lexsort keeps.
    key = pairs.time if in_time and pairs.time is not None else rng.random(len(pairs))
    return assign_ratio(pairs.user, key, shares) if protocol == "ratio" else assign_loo(pairs.user, key)
