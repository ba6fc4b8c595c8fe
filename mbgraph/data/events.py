"""From an event log to a dataset: earliest event of every (user, item, behavior), then a split of the target."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mbgraph.data.columns import check_columns
from mbgraph.data.dataset import MultiBehaviorDataset, check_behavior_name
from mbgraph.data.filters import Filter
from mbgraph.data.formats.events import EventFiles, Paths, Progress
from mbgraph.data.formats.log_file import CHUNK_ROWS, REMEDY
from mbgraph.data.formats.npz import check_file_name
from mbgraph.data.log_dataset import make_dataset
from mbgraph.data.one_hot import BEHAVIOR, OneHot
from mbgraph.data.splits import CUTOFFS, TIES, parse_protocol
from mbgraph.data.stream import EventLog, Piece
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.files import reading
from mbgraph.random import RNGLike

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
    one_hot: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    cutoff: str = "none",
    ties: str = "rows",
    filter: Filter | None = None,
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
    one_hot : sequence of str, optional
        Columns that say 0 or 1, one per behavior, in place of the column ``behavior``: a row with several is an event
        of each. Behaviors are called like them.
    rename : mapping of str to str, optional
        Other names for behaviors, such as ``{"4": "buy"}``; ``target`` and ``behaviors`` speak of the new ones. Several
        may become one.
    cutoff : {"none", "target"}
        ``"none"``, as in the published datasets: all auxiliary pairs are train edges. ``"target"``: those later than
        their user's first held-out pair are left out, as nobody knows them when the prediction is made. Needs a time.
    ties : {"rows", "random"}
        Which of a user's target pairs of the same moment counts as later: the later row, or a random one.
    filter : Filter, optional
        Users, items and a window of time to keep; see `mbgraph.data.filters.Filter`. The window comes first, then the
        earliest events are found, then users and items counted.
    name : str
        Name of the dataset.
    rng : int or Generator
        For random orders.

    Returns
    -------
    MultiBehaviorDataset
        ``metadata["splits"]`` starts with the split (protocol, order, seed); ``metadata["import"]`` counts events, what
        was left out and why, users without any target pair (``users_in_no_split``) and without a held-out one;
        ``metadata["filters"]`` what a filter left out.

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
    protocol = _protocol(split, split_column, cutoff, time, ties, filter)
    wanted = _wanted(user, item, behavior, time, split_column, one_hot)
    if not hasattr(df, "columns") or not hasattr(df, "iloc"):
        raise UsageError(f"an event log is a pandas DataFrame, not {type(df).__name__}", "convert it to one")
    check_columns(df.columns, wanted)
    log = EventLog(
        user,
        item,
        BEHAVIOR if one_hot else behavior,
        time,
        split_column,
        target=str(target),
        behaviors=_as_set(behaviors),
        rename=rename,
    )
    spread = OneHot(one_hot) if one_hot else None
    return make_dataset(
        log,
        lambda: _pieces(iter([df[wanted] if one_hot else df]), spread),
        str(target),
        protocol,
        behaviors=behaviors,
        cutoff=cutoff,
        ties=ties,
        rule=filter,
        name=name,
        rng=rng,
    )


def import_events(
    paths: Paths,
    *,
    user: str | None = None,
    item: str | None = None,
    behavior: str = "behavior",
    time: str | None = None,
    target: str | int,
    columns: Sequence[str] | None = None,
    encoding: str | None = None,
    split: str = "auto",
    split_column: str | None = None,
    behaviors: Sequence[str] | None = None,
    one_hot: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    cutoff: str = "none",
    ties: str = "rows",
    filter: Filter | None = None,
    name: str | None = None,
    rng: RNGLike = 0,
    chunk_rows: int = CHUNK_ROWS,
    progress: Progress | None = None,
) -> MultiBehaviorDataset:
    """Make a dataset of an event log on disk: the same as ``from_events(read_events(paths))``, in less memory.

    The files are read in pieces. What is kept of an event is some 17 bytes (user, item, behavior, time).

    Parameters
    ----------
    paths : path or sequence of paths
        CSV, JSON lines or Parquet, folders of them too; see `mbgraph.data.formats.events.EventFiles`. In a CSV, ids are
        integers if every one of the column is written plainly as one; a single ``007`` makes all of them text.
    user, item : str, optional
        Columns of ids, by default ``user`` and ``item``; in a file with RecBole's header ``user_id`` and ``item_id``.
    columns : sequence of str, optional
        Names of all columns, in order, of a CSV without a header; ``_`` leaves one out. One called ``time`` is the time
        if no other is named.
    encoding : str, optional
        Of text, by its name in Python; by default UTF-8, or what a byte order mark says.
    behavior, time, target, split, split_column, behaviors, one_hot, rename, cutoff, ties, filter, rng
        See `from_events`.
    name : str, optional
        Name of the dataset; the first file's without its endings by default.
    chunk_rows : int
        Events read at a time. The dataset does not depend on it.
    progress : callable, optional
        Called as the files are read: (events so far, bytes or rows done, of how many).

    Raises
    ------
    DataError
        As `from_events`; and if a file is missing, damaged or empty, or a behavior cannot be the name of a file. Rows
        count from 1 after the header.
    UnknownNameError, UsageError
        As `from_events`.
    """
    if time is None and columns is not None and "time" in columns:
        time = "time"
    protocol = _protocol(split, split_column, cutoff, time, ties, filter)
    files = EventFiles(paths, names=columns, encoding=encoding)
    user = user or ("user_id" if files.typed else "user")
    item = item or ("item_id" if files.typed else "item")
    wanted = _wanted(user, item, behavior, time, split_column, one_hot)
    read = files.wanted(wanted)
    check_columns(read, wanted)
    log = EventLog(
        user,
        item,
        BEHAVIOR if one_hot else behavior,
        time,
        split_column,
        target=str(target),
        behaviors=_as_set(behaviors),
        from_text=files.is_text,
        rename=rename,
        check_behavior=_check_behavior,
        place=files.place,
    )
    spread = OneHot(one_hot, files.place) if one_hot else None

    def source() -> Iterator[Piece]:
        empty = True
        for piece in _pieces(files.chunks(read, chunk_rows, progress), spread):
            empty = False
            yield piece
        if empty:
            raise DataError(f"{files.told()} holds no events", "give a file with at least one row")

    with reading(files.told(), REMEDY):
        ds = make_dataset(
            log,
            source,
            str(target),
            protocol,
            behaviors=behaviors,
            cutoff=cutoff,
            ties=ties,
            rule=filter,
            name=name or files.paths[0].name.split(".")[0] or "events",
            rng=rng,
        )
    if spread is not None and spread.empty:
        ds.metadata["import"]["rows_without_behavior"] = spread.empty
    return ds


def _pieces(frames: Iterator[pd.DataFrame], spread: OneHot | None) -> Iterator[Piece]:
    return map(Piece, frames) if spread is None else spread.events(frames)


def _wanted(
    user: str, item: str, behavior: str, time: str | None, split_column: str | None, one_hot: Sequence[str] | None
) -> list[str]:
    if one_hot is not None and not one_hot:
        raise UsageError("one_hot names no column", "name the columns of the behaviors, or leave it out")
    if one_hot and BEHAVIOR in (user, item, time, split_column):
        raise UsageError(f"a column called {BEHAVIOR!r} cannot stand beside columns of behaviors", "rename it")
    kinds = (user, item, *(one_hot or [behavior]), time, split_column)
    return [column for column in kinds if column is not None]


def _check_behavior(label: str) -> None:
    """Refuse a behavior whose file could not be written, before the rest of the log is read."""
    try:
        check_file_name("behavior", check_behavior_name(label))
    except DataError as error:
        safe = re.sub(r"[^\w-]+", "_", label).strip("_") or "other"
        safe = f"{safe}_behavior" if safe in ("valid", "test") else safe
        raise DataError(
            error.message, f"rename it: --rename '{label[:40]}={safe[:40]}', or name those to keep (--behaviors)"
        ) from error


def _as_set(behaviors: Sequence[str] | None) -> set[str] | None:
    if behaviors is None:
        return None
    return {behaviors} if isinstance(behaviors, str) else {str(label) for label in behaviors}


def _protocol(
    split: str, split_column: str | None, cutoff: str, time: str | None, ties: str, rule: Filter | None
) -> str:
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
    if ties not in TIES:
        raise UnknownNameError("rule for ties", ties, TIES)
    if rule is not None and rule.window is not None and time is None:
        raise UsageError("a window needs times", "name the time column")
    return split
