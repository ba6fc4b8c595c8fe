"""The k best items of every user, original ids in and out.

Importing this module needs neither torch nor DGL; `recommend` imports torch when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.interactions import CSR
from mbgraph.data.masks import masked_items
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.evaluation.ranking import Scorer
    from mbgraph.models.base import Recommender

__all__ = ["EXCLUDE", "FALLBACKS", "check_k", "popular_items", "recommend", "seen_items", "top_items"]

EXCLUDE = ("target", "all", "none")
"""Which train items of a user are left out: those of the target behavior, those of any behavior, or none."""

_MASK_OF = {"target": "train-target", "all": "all-behaviors", "none": "none"}

FALLBACKS = ("popularity",)
"""What strangers can be given."""

_BLOCK_USERS, _BLOCK_SCORES = 256, 1 << 24
"""Users and scores held at a time when the caller names no chunk size: at most 64 MB of float32."""


def recommend(
    model: Recommender | Scorer,
    ds: MultiBehaviorDataset,
    users: Iterable[Any] | Any | None = None,
    k: int = 10,
    exclude: str = "target",
    fallback: str | None = None,
    chunk_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    explain: bool = False,
) -> pd.DataFrame:
    """Return the ``k`` items with the highest scores of each user.

    Parameters
    ----------
    model : Recommender or Scorer
        A model that was built on the train edges of ``ds``, or anything that `mbgraph.evaluate` can rank.
    ds : MultiBehaviorDataset
        Gives the ids and the items to leave out.
    users : original id or iterable of them, optional
        In the order wanted; a user named twice is answered once. Left out, all users in row order.
    k : int
        Length of a list. A user with fewer candidates gets a shorter one.
    exclude : str
        ``"target"`` leaves out the user's train items of the target behavior (already bought), ``"all"``
        those of any behavior, ``"none"`` nothing. Held-out pairs are not looked at: the items of ``ds.valid``
        and ``ds.test`` stay candidates, as in the evaluation. To serve real users, train on everything.
    fallback : str, optional
        ``"popularity"`` gives strangers the items with the most train users of the target behavior. Strangers
        are users whom the dataset does not know, or knows without a single train pair.
    chunk_size : int, optional
        Users scored at a time, 256 by default and fewer for a large catalogue; no users x items array is ever
        held. With the same chunk size a user gets the same list and scores alone and among others.
    progress : callable, optional
        Called after each block with the number of users in it.
    explain : bool
        Also say what speaks for each item; the model must be one that can, such as `TwoStage`.

    Returns
    -------
    pandas.DataFrame
        Columns ``user``, ``rank`` (from 1), ``item``, ``score``, best first per user; equal scores in the
        order of the item rows. With ``fallback`` also ``fallback``: true where the score counts buyers. With
        ``explain`` also ``evidence``: what each piece of evidence adds to the score, by name, largest first; nothing
        where the model has none of an item.

    Raises
    ------
    DataError
        For an unknown user without ``fallback``, or a dataset of other size than the model's.
    UsageError
        If ``k`` is not between 1 and the number of items, a name is not one of its choices, or ``explain`` is asked of
        a model that cannot.
    RunError
        If the model gives NaN.

    Examples
    --------
    >>> import mbgraph as mb
    >>> ds = mb.load_dataset("demo")
    >>> model = mb.models.Popularity(ds.graph, target=ds.target)
    >>> mb.recommend(model, ds, users=["u0001"], k=3).columns.tolist()
    ['user', 'rank', 'item', 'score']
    """
    import pandas as pd

    from mbgraph.evaluation.evaluate import scorer_for

    k = check_k(k, ds.num_items)
    block = max(1, min(_BLOCK_USERS, _BLOCK_SCORES // max(1, ds.num_items)))
    chunk_size = block if chunk_size is None else chunk_size
    if chunk_size < 1:
        raise UsageError(f"chunk_size is {chunk_size}", "give a positive number of users")
    if fallback is not None and fallback not in FALLBACKS:
        raise UnknownNameError("fallback", fallback, FALLBACKS)
    seen = seen_items(ds, exclude)
    ids, rows = _who(ds, users, fallback)
    stranger = rows < 0
    if fallback:
        stranger |= ~_has_edges(ds)[rows]  # row -1 reads the last user, who changes nothing in an "or"
    known = np.flatnonzero(~stranger)
    items = np.zeros((len(rows), k), np.int64)
    scores = np.full((len(rows), k), -np.inf)
    scorer = scorer_for(model, ds)
    for start in range(0, len(known), chunk_size):
        at = known[start : start + chunk_size]
        items[at], scores[at] = _best(scorer, rows[at], seen, k, min(block, chunk_size))
        if progress:
            progress(len(at))
    if stranger.any():
        items[stranger], scores[stranger] = popular_items(seen_items(ds, "target"), ds.num_items, k)
        if progress:
            progress(int(stranger.sum()))
    at, rank = np.nonzero(scores > -np.inf)  # masked items sort behind all others
    columns = {
        "user": ids[at],
        "rank": rank + 1,
        "item": ds.items[items[at, rank]],
        "score": scores[at, rank],
    }
    if fallback:
        columns["fallback"] = stranger[at]
    if explain:
        columns["evidence"] = _evidence(model, rows[at], items[at, rank], stranger[at])
    return pd.DataFrame(columns)


def _evidence(model: Any, users: IntArray, items: IntArray, stranger: np.ndarray) -> list[dict[str, float]]:
    """Return what speaks for each pair, nothing for those of strangers: three (N,) -> N mappings."""
    if not hasattr(model, "explain"):
        raise UsageError(f"a {type(model).__name__} has no evidence to show", "give the model itself")
    made: list[dict[str, float]] = [{} for _ in range(len(users))]
    known = np.flatnonzero(~stranger)
    for place, found in zip(known.tolist(), model.explain(users[known], items[known]), strict=True):
        made[place] = found
    return made


def _best(scorer: Scorer, rows: IntArray, seen: CSR, k: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items and scores (B, k) of a block of users; places without a candidate score -inf."""
    import torch

    from mbgraph.evaluation.scorers import nan_scores

    # A matrix product rounds as its shape demands, one of a single row most of all: short blocks are filled up.
    filled = np.pad(rows, (0, max(0, least - len(rows))), mode="edge")
    with torch.no_grad():
        scores = scorer.scores(torch.from_numpy(filled))[: len(rows)].clone()  # (B, I), the scorer may keep its own
        where, items = seen.gather(rows)
        scores[torch.from_numpy(where), torch.from_numpy(items)] = -torch.inf
        values, columns = top_items(scores, k)
    if torch.isnan(values).any():  # topk puts NaN first
        raise nan_scores()
    return columns.numpy(force=True), values.numpy(force=True)


def top_items(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest scores of each row and their columns; of equal scores the lower column first.

    `torch.topk` alone picks and orders equal scores as its threads please.

    Shapes: (B, I) -> (B, k), (B, k).
    """
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    # where the place after the last holds the same score, topk chose among equals
    crowded = (values[:, -1] == values[:, k - 1]).nonzero()[:, 0] if k < scores.shape[1] else columns.new_empty(0)
    columns = columns[:, :k]
    if len(crowded):
        block, cut = scores[crowded], values[crowded, -1:]
        above, level = block > cut, block == cut
        room = k - above.sum(1, keepdim=True)
        kept = above | (level & (level.cumsum(1, dtype=columns.dtype) <= room))  # k per row, columns ascending
        columns[crowded] = kept.nonzero()[:, 1].view(-1, k)
    columns = columns.sort(dim=1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def seen_items(ds: MultiBehaviorDataset, exclude: str) -> CSR:
    """Return the train items of every user that ``exclude`` leaves out, items ascending.

    Raises
    ------
    UnknownNameError
        If ``exclude`` is not one of `EXCLUDE`.
    """
    if exclude not in EXCLUDE:
        raise UnknownNameError("exclude", exclude, EXCLUDE)
    return masked_items(ds, _MASK_OF[exclude])


def popular_items(bought: CSR, num_items: int, k: int) -> tuple[IntArray, np.ndarray]:
    """Return the ``k`` items with the most users and their counts; of equal counts the lower row is first."""
    counts = np.bincount(bought.indices, minlength=num_items)
    best = np.argsort(-counts, kind="stable")[:k]
    return best, counts[best]


def check_k(k: int, num_items: int) -> int:
    """Return ``k`` as an int; raises `UsageError` if it is not between 1 and the number of items."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise UsageError(f"k must be a whole number, not {k!r}", "for example k=10")
    if not 1 <= k <= num_items:
        raise UsageError(f"k is {k}", f"choose it from 1 to {num_items}, the number of items")
    return int(k)


def _has_edges(ds: MultiBehaviorDataset) -> np.ndarray:
    known = np.zeros(ds.num_users, bool)
    for pairs in ds.edges.values():
        known[pairs.user] = True
    return known


def _who(ds: MultiBehaviorDataset, users: Any, fallback: str | None) -> tuple[np.ndarray, IntArray]:
    """Return original ids and rows of the users asked for, each once; row -1 where the dataset knows none."""
    if users is None:
        return ds.users.ids, np.arange(ds.num_users, dtype=np.int64)
    given = [users] if isinstance(users, str) or not isinstance(users, Iterable) else list(users)
    rows = ds.users.find(given)
    unknown = [given[place] for place in np.flatnonzero(rows < 0)]
    if unknown and not fallback:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise DataError(
            f"unknown user {unknown[0]!r}{more}, dataset {ds.name!r} has {ds.num_users} users",
            "leave it out, or ask for the fallback 'popularity'",
        )
    numeric = ds.users.ids.dtype.kind == "i"
    asked: dict[Any, int] = {}
    for value, row in zip(given, rows.tolist(), strict=True):
        if row >= 0:
            asked.setdefault(ds.users[row], row)
            continue
        if numeric and not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", str(value)):
            raise DataError(f"{value!r} cannot be a user", f"user ids of dataset {ds.name!r} are whole numbers")
        asked.setdefault(int(value) if numeric else str(value), row)
    ids = np.empty(len(asked), ds.users.ids.dtype)
    ids[:] = list(asked)
    return ids, np.array(list(asked.values()), np.int64)
