"""Purchases to fit on, and a graph that knows nothing of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbgraph.data.check import behaviors_within_target
from mbgraph.errors import DataError, UsageError
from mbgraph.keys import contains, runs, union
from mbgraph.models.twostage.options import TwoStageOptions
from mbgraph.nn.relation import Relation
from mbgraph.nn.relations import Relations
from mbgraph.random import stream
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset

__all__ = ["Labels", "labels_of", "more_labels"]


@dataclass(frozen=True)
class Labels:
    """Target pairs that were left out of every count.

    Attributes
    ----------
    users, items : int64 array (N,)
        Users ascending.
    relations : Relations
        The graph without them.
    source : str
        ``validation`` or ``held-out``.
    visited : float
        Share of them whose user has an auxiliary pair of the item in ``relations``.
    """

    users: IntArray
    items: IntArray
    relations: Relations
    source: str
    visited: float


def labels_of(dataset: MultiBehaviorDataset, relations: Relations, options: TwoStageOptions, seed: int) -> Labels:
    """Return the labels of a dataset and the graph without them.

    Raises
    ------
    DataError
        If a behavior holds target pairs only, which give the labels away, or no user has two train pairs to hold one
        out of.
    UsageError
        If validation pairs are asked for and there are none, the last pair where there are no times, or a share of
        visited labels that cannot be had.
    """
    answers = [name for name in behaviors_within_target(dataset) if name in relations.auxiliary]
    if answers:
        raise DataError(
            f"every pair of {answers[0]!r} is a pair of {dataset.target!r}: it is the answer, and no evidence of it",
            f"leave {answers[0]!r} out of the dataset",
        )
    source = options.labels
    if source == "auto":
        source = "validation" if len(dataset.valid) else "held-out"
    if source == "held-out":
        return _held_out(relations, options, stream(seed, "labels"), dataset.name, last=options.held_out == "last")
    if not len(dataset.valid):
        raise UsageError(f"{dataset.name!r} has no validation pairs", "use --set labels=held-out")
    if options.visited_share is not None:
        raise UsageError(
            "the visited share of validation pairs is what it is, and visited_share assumes another",
            "leave it out, or use --set labels=held-out",
        )
    order = np.lexsort((dataset.valid.item, dataset.valid.user))
    return _labels(dataset.valid.user[order], dataset.valid.item[order], relations, source)


def more_labels(relations: Relations, options: TwoStageOptions, seed: int, name: str, number: int) -> Labels:
    """Return one train pair of every user as labels, drawn anew by each number from 1 on; never the last by intent.

    Raises what `labels_of` does. ``name`` is the dataset's.
    """
    return _held_out(relations, options, stream(seed, "labels", number), name, last=False)


def _labels(users: IntArray, items: IntArray, relations: Relations, source: str) -> Labels:
    return Labels(users, items, relations, source, float(_visited(users, items, relations).mean()))


def _visited(users: IntArray, items: IntArray, relations: Relations) -> np.ndarray:
    touched = union(*(relations[name].keys() for name in relations.auxiliary))
    return contains(users * np.int64(relations.num_items) + items, touched)


def _held_out(
    relations: Relations, options: TwoStageOptions, generator: np.random.Generator, name: str, *, last: bool
) -> Labels:
    """Take one pair of every user out of the target, and of the auxiliary behaviors where a share says so."""
    target = relations[relations.target or ""]
    users, items = target.users.numpy(), target.items.numpy()
    if last:
        if target.time is None:
            raise UsageError(f"the {relations.target!r} pairs of {name!r} have no times", "use --set held_out=random")
        # the last one stands first; what happened at one moment is ordered by chance
        order = np.lexsort((generator.random(len(users)), -target.time.numpy().astype(np.float64), users))
    else:
        order = np.lexsort((generator.random(len(users)), users))
    several = np.bincount(users, minlength=relations.num_users)[users[order]] > 1
    chosen = order[(runs(users[order]) == 0) & several]
    if not len(chosen):
        raise DataError(
            f"no user of {name!r} has two train pairs of {relations.target!r}, so none can be held out to fit on",
            "give the dataset validation pairs",
        )
    users, items = users[chosen], items[chosen]
    gone = Relation(users, items, relations.num_users, relations.num_items)
    made = dict(relations)
    made[relations.target or ""] = target.minus(gone)
    if options.visited_share is not None:
        hidden = _hidden(users, items, relations, options.visited_share, generator)
        gone = Relation(users[hidden], items[hidden], relations.num_users, relations.num_items)
        made.update({other: relations[other].minus(gone) for other in relations.auxiliary})
    return _labels(users, items, Relations(made, relations.target, relations.has_order), "held-out")


def _hidden(
    users: IntArray, items: IntArray, relations: Relations, share: float, generator: np.random.Generator
) -> IntArray:
    """Return which labels lose their auxiliary pairs, so that a share of all is visited: (N,), (N,) -> (M,)."""
    visited = np.flatnonzero(_visited(users, items, relations))
    wanted = round(share * len(users))
    if wanted > len(visited):
        most = len(visited) / len(users)
        raise UsageError(
            f"visited_share is {share:g}, but only {most:.3f} of the held-out pairs have an auxiliary pair",
            f"assume at most {int(most * 1000) / 1000:g}, or leave it out",
        )
    return np.sort(generator.permutation(visited)[wanted:])
