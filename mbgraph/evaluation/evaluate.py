"""Full-ranking evaluation of a model on held-out pairs, split into visited and unvisited ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, cast
from weakref import WeakKeyDictionary

import numpy as np

from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset
from mbgraph.data.interactions import CSR, Pairs
from mbgraph.data.masks import masked_items
from mbgraph.errors import DataError, UnknownNameError
from mbgraph.evaluation.metrics import per_user_metrics, usable_cutoffs
from mbgraph.evaluation.options import MASKS, TIES
from mbgraph.evaluation.ranking import HeldOut, held_out_ranks
from mbgraph.evaluation.scorers import Scorer
from mbgraph.files import atomic_write
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

    from mbgraph.models.base import Recommender

__all__ = ["EvaluationResult", "Group", "evaluate", "evaluate_splits", "held_out_pairs", "scorer_for"]

GROUPS = ("all", "visited", "unvisited")


class Group(TypedDict):
    """Metrics of some of the held-out pairs.

    Keys
    ----
    metrics : dict
        Means over users with a pair in the group; empty when there is none.
    share : float
        The group's share of the evaluated pairs.
    pairs, users : int
    """

    metrics: dict[str, float]
    share: float
    pairs: int
    users: int


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation came to.

    Attributes
    ----------
    split, mask, ties : str
        What was evaluated and how.
    cutoffs : tuple of int
    groups : dict of str to Group
        ``all``; ``visited``: the user has an auxiliary train edge to the held-out item; ``unvisited``: the others.
    users_evaluated : int
        Users with at least one evaluated pair; the means are over them.
    users_left_out : int
        Users without one.
    users_without_train : int
        Evaluated users who have no train edge of the target.
    pairs_left_out : int
        Held-out pairs whose item the mask keeps from being a candidate (visited ones under ``all-behaviors``).
    users : int64 array (n,)
        Row numbers of the evaluated users, ascending.
    values : dict of str to float array (n,)
        Each metric per user.
    pair_user, pair_item, pair_rank, pair_visited : arrays (N,)
        Every evaluated pair.
    """

    split: str
    mask: str
    ties: str
    cutoffs: tuple[int, ...]
    groups: dict[str, Group]
    users_evaluated: int
    users_left_out: int
    users_without_train: int
    pairs_left_out: int
    users: IntArray = field(repr=False)
    user_ids: np.ndarray = field(repr=False)
    values: dict[str, np.ndarray] = field(repr=False)
    pair_user: IntArray = field(repr=False)
    pair_item: IntArray = field(repr=False)
    pair_rank: np.ndarray = field(repr=False)
    pair_visited: np.ndarray = field(repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics over all evaluated pairs, ``{"HR@10": ..}``."""
        return self.groups["all"]["metrics"]

    def per_user(self) -> pd.DataFrame:
        """Return one row per evaluated user: original id and every metric."""
        import pandas as pd

        return pd.DataFrame({"user": self.user_ids, **self.values})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: metrics on top, then groups and counts."""
        return {
            **self.metrics,
            "groups": {name: dict(group) for name, group in self.groups.items()},
            "mask": self.mask,
            "ties": self.ties,
            "users_evaluated": self.users_evaluated,
            "users_left_out": self.users_left_out,
            "users_without_train": self.users_without_train,
            "pairs_left_out": self.pairs_left_out,
        }

    def save_per_user(self, path: str | os.PathLike[str]) -> None:
        """Write per-user metrics and per-pair ranks as npz: ``user``, ``user_id``, ``HR@10``, .., ``pair_*``."""
        ids = self.user_ids if self.user_ids.dtype.kind == "i" else self.user_ids.astype(str)
        with atomic_write(path) as file:
            np.savez_compressed(
                file,
                split=np.array(self.split),
                mask=np.array(self.mask),
                ties=np.array(self.ties),
                user=self.users,
                user_id=ids,
                pair_user=self.pair_user,
                pair_item=self.pair_item,
                pair_rank=self.pair_rank,
                pair_visited=self.pair_visited,
                **cast("dict[str, Any]", self.values),
            )


def evaluate(
    model: Recommender | Scorer,
    ds: MultiBehaviorDataset,
    split: str = "test",
    k: Sequence[int] = (10, 20),
    mask: str = "train-target",
    ties: str = "realistic",
    chunk_size: int | None = None,
) -> EvaluationResult:
    """Rank all items for every user with held-out pairs.

    Parameters
    ----------
    model : Recommender or Scorer
        A model must have been built on the train edges of ``ds``. To score from another graph pass
        ``model.scorer(graph)``.
    ds : MultiBehaviorDataset
    split : {"test", "valid"}
    k : sequence of int
        Cut-offs; those beyond the catalogue are cut to its size.
    mask : {"train-target", "train+valid-target", "all-behaviors", "none"}
        Which items are no candidates. ``train-target``: what the user bought in train (the paper's).
        ``train+valid-target``: at test, also the user's validation items. ``all-behaviors``: everything the user
        touched in train, so that only discoveries count; visited held-out pairs are left out. ``none``: nothing.
    ties : {"realistic", "optimistic", "pessimistic"}
        See `mbgraph.evaluation.ranking.rank_from_counts`.
    chunk_size : int, optional
        Users scored at a time; changes memory, never numbers.

    Raises
    ------
    DataError
        If the split has no pairs, the mask leaves none, or the model was built on another dataset.
    UsageError
        For a cut-off that is no whole number of at least 1, or an unknown policy.
    RunError
        If scores are NaN.
    """
    return evaluate_splits(model, ds, (split,), k, mask, ties, chunk_size)[split]


def evaluate_splits(
    model: Recommender | Scorer,
    ds: MultiBehaviorDataset,
    splits: Sequence[str] = ("valid", "test"),
    k: Sequence[int] = (10, 20),
    mask: str = "train-target",
    ties: str = "realistic",
    chunk_size: int | None = None,
) -> dict[str, EvaluationResult]:
    """Like `evaluate` for several splits, scoring every user once for all of them."""
    if mask not in MASKS:
        raise UnknownNameError("mask policy", mask, MASKS)
    cutoffs = usable_cutoffs(k, ds.num_items)
    for split in splits:
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        if not len(ds.splits.get(split, ())):
            raise DataError(
                f"{ds.name!r} has no {split} pairs", "hold some out: mbgraph.hold_out, or --validation holdout"
            )
    if ties not in TIES:
        raise UnknownNameError("tie policy", ties, TIES)
    parts = {split: held_out_pairs(ds, split, mask) for split in splits}
    scorer = scorer_for(model, ds)
    ranks = held_out_ranks(scorer, {split: part for split, (part, _) in parts.items()}, ties, chunk_size)
    return {
        split: _result(ds, split, part, visited, ranks[split], mask, ties, cutoffs)
        for split, (part, visited) in parts.items()
    }


def scorer_for(model: Recommender | Scorer, ds: MultiBehaviorDataset) -> Scorer:
    """Return a model's scorer, or a scorer as it is, after checking that it belongs to a dataset.

    Raises
    ------
    DataError
        If the model was built on other train edges, or the scorer is for other numbers of users and items.
    """
    scorer = cast("Scorer", model)
    if hasattr(model, "scorer"):
        asked = cast("Recommender", model)
        asked.check_dataset(ds)
        scorer = asked.scorer()
    if (scorer.num_users, scorer.num_items) != (ds.num_users, ds.num_items):
        raise DataError(
            f"the model scores {scorer.num_users} users x {scorer.num_items} items, dataset {ds.name!r} has "
            f"{ds.num_users} x {ds.num_items}",
            "use the dataset the model was built on",
        )
    return scorer


def _contains(lists: CSR, pairs: Pairs) -> np.ndarray:
    """Return which pairs stand in the lists: (N,) -> (N,)."""
    where, items = lists.gather(pairs.user)
    return np.bincount(where[items == pairs.item[where]], minlength=len(pairs)) > 0


_prepared: WeakKeyDictionary[MultiBehaviorDataset, dict[tuple[str, str], tuple[HeldOut, np.ndarray]]] = (
    WeakKeyDictionary()
)
"""Held-out pairs as `held_out_pairs` prepares them: training asks for the same ones every epoch."""


def held_out_pairs(ds: MultiBehaviorDataset, split: str, mask: str) -> tuple[HeldOut, np.ndarray]:
    """Return the pairs of a split that can be ranked, with their masks, and which are visited; kept per dataset."""
    known = _prepared.setdefault(ds, {})
    if (split, mask) not in known:
        known[split, mask] = _prepare(ds, split, mask)
    return known[split, mask]


def _prepare(ds: MultiBehaviorDataset, split: str, mask: str) -> tuple[HeldOut, np.ndarray]:
    pairs = ds.splits[split]
    pairs = pairs[np.lexsort((pairs.item, pairs.user))]  # tied pairs of a user: the same places in any file order
    masked = None if mask == "none" else masked_items(ds, mask, split)
    if masked is not None:
        candidate = ~_contains(masked, pairs)
        if not candidate.any():
            raise DataError(
                f"mask {mask!r} leaves none of the {len(pairs)} {split} pairs of {ds.name!r} a candidate",
                "choose another mask, for example train-target, or another split",
            )
        pairs = pairs[candidate]
    visited = np.zeros(len(pairs), bool)
    for behavior in ds.auxiliary:  # the dataset keeps its lists, so validating every epoch builds nothing anew
        visited |= _contains(ds.csr(behavior), pairs)
    return HeldOut(pairs.user, pairs.item, masked), visited


def _result(
    ds: MultiBehaviorDataset,
    split: str,
    part: HeldOut,
    visited: np.ndarray,
    ranks: np.ndarray,
    mask: str,
    ties: str,
    cutoffs: tuple[int, ...],
) -> EvaluationResult:
    groups: dict[str, Group] = {}
    users, values = np.empty(0, np.int64), {}
    for name, chosen in (("all", np.ones(len(ranks), bool)), ("visited", visited), ("unvisited", ~visited)):
        members, owner = np.unique(part.user[chosen], return_inverse=True)
        per_user = per_user_metrics(ranks[chosen], owner, len(members), cutoffs)
        means = {metric: float(column.mean()) for metric, column in per_user.items()} if len(members) else {}
        share = float(chosen.mean()) if len(chosen) else 0.0
        groups[name] = Group(metrics=means, share=share, pairs=int(chosen.sum()), users=len(members))
        if name == "all":
            users, values = members, per_user
    return EvaluationResult(
        split=split,
        mask=mask,
        ties=ties,
        cutoffs=cutoffs,
        groups=groups,
        users_evaluated=len(users),
        users_left_out=ds.num_users - len(users),
        users_without_train=int((ds.csr(ds.target).degrees()[users] == 0).sum()),
        pairs_left_out=len(ds.splits[split]) - len(ranks),
        users=users,
        user_ids=np.asarray(ds.users.ids[users]),
        values=values,
        pair_user=part.user,
        pair_item=part.item,
        pair_rank=ranks,
        pair_visited=visited,
    )
