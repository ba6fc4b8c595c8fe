"""Ranks of held-out items among all candidates, by counting.

A rank needs no sorted list: it is one plus the number of candidates that score higher. Scores are computed for blocks
of users, compared, and forgotten; nothing of size users x items ever exists. Products of embeddings are compared where
they are computed, if numba is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from mbgraph import _kernels
from mbgraph.data.interactions import CSR
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.evaluation.device_ranking import count_on_device
from mbgraph.evaluation.options import TIES
from mbgraph.evaluation.scorers import EmbeddingScorer, PairBonusScorer, Scorer, nan_scores
from mbgraph.typing import IntArray

__all__ = ["HeldOut", "block_rows", "held_out_ranks", "rank_from_counts"]


def block_rows(num_items: int) -> int:
    """Return the number of users per matrix product.

    It depends on nothing but the catalogue, because the rounding of a product may depend on its shape. With 256 rows
    the calls around a product cost little beside it; small catalogues take more for that reason, and large ones fewer,
    so that scores stay below 64 MiB.
    """
    rows = min(max(256, 2**22 // num_items), 1024, max(4, 2**24 // num_items))
    return 1 << (rows.bit_length() - 1)


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs of one split, and the items that are no candidates.

    Attributes
    ----------
    user, item : int64 array (N,)
        Pairs, users ascending.
    masked : CSR
        Items of each user that are left out of the ranking.
    """

    user: IntArray
    item: IntArray
    masked: CSR | None


def rank_from_counts(greater: np.ndarray, equal: np.ndarray, ties: str) -> np.ndarray:
    """Return ranks from the numbers of other candidates that score higher and the same.

    ``optimistic`` is ``1 + greater``, ``pessimistic`` ``1 + greater + equal``, ``realistic`` their mean, the expected
    rank when ties are broken at random (it may be a half). Where several held-out items of one user score the same,
    `held_out_ranks` has counted the earlier ones as higher.
    """
    if ties == "optimistic":
        return 1.0 + greater
    if ties == "pessimistic":
        return 1.0 + greater + equal
    if ties == "realistic":
        return 1.0 + greater + equal / 2
    raise UnknownNameError("tie policy", ties, TIES)


@torch.no_grad()
def held_out_ranks(
    scorer: Scorer, splits: Mapping[str, HeldOut], ties: str = "realistic", chunk_size: int | None = None
) -> dict[str, np.ndarray]:
    """Return the rank of every held-out pair, per split, scoring each user once.

    Parameters
    ----------
    scorer : Scorer
    splits : mapping of str to HeldOut
    ties : {"realistic", "optimistic", "pessimistic"}
        See `rank_from_counts`.
    chunk_size : int, optional
        Users held in memory at a time, rounded up to whole blocks of `block_rows`; a scorer with ``scores_into`` never
        needs more than one. Ranks do not depend on it.

    Returns
    -------
    dict of str to float64 array (N,)
        1 is best.

    Raises
    ------
    RunError
        If a score is NaN.
    """
    if ties not in TIES:
        raise UnknownNameError("tie policy", ties, TIES)
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"chunk_size must be positive, got {chunk_size}")
    if (
        _is_product(scorer)
        and _kernels.available
        and scorer.users.shape[1] <= _kernels.WIDEST
        and scorer.users.device.type == "cpu"
        and scorer.users.dtype == torch.float32
    ):
        return _product_ranks(scorer, splits, ties)
    if isinstance(scorer, EmbeddingScorer) and scorer.users.device.type != "cpu":
        return _device_ranks(scorer, splits, ties, scorer.users.device)
    block = block_rows(scorer.num_items)
    chunk = block if hasattr(scorer, "scores_into") else block * -(-(chunk_size or block) // block)
    users = np.unique(np.concatenate([part.user for part in splits.values()] or [np.empty(0, np.int64)]))
    counts = {
        name: (np.zeros(len(part.user), np.int64), np.zeros(len(part.user), np.int64)) for name, part in splits.items()
    }
    buffer: Tensor | None = None
    for start in range(0, len(users), chunk):
        rows = users[start : start + chunk]
        buffer = _score(scorer, rows, block, buffer)
        if buffer.device.type != "cpu":
            return _device_ranks(scorer, splits, ties, buffer.device)
        scores = buffer.numpy(force=True)  # (>= C, I)
        if not _is_product(scorer) and np.isnan(scores[: len(rows)]).any():
            raise nan_scores()
        bounds = {name: np.searchsorted(part.user, [rows[0], rows[-1] + 1]) for name, part in splits.items()}
        wheres = {name: np.searchsorted(rows, splits[name].user[low:high]) for name, (low, high) in bounds.items()}
        items = {name: splits[name].item[low:high] for name, (low, high) in bounds.items()}
        greater, equal = _count(scores, np.concatenate([*wheres.values()]), np.concatenate([*items.values()]))
        start_of = 0
        for name, (low, high) in bounds.items():
            mine = slice(start_of, start_of + high - low)
            start_of += high - low
            part, where, item = splits[name], wheres[name], items[name]
            if part.masked is not None:
                _subtract_masked(scores, where, item, part.masked, rows, greater[mine], equal[mine])
            _part_ties(scores[where, item], where, greater[mine], equal[mine])
            counts[name][0][low:high], counts[name][1][low:high] = greater[mine], equal[mine]
    return {name: rank_from_counts(greater, equal, ties) for name, (greater, equal) in counts.items()}


def _is_product(scorer: Scorer) -> TypeGuard[EmbeddingScorer]:
    """Say whether scores are products, or products plus bonuses, which are finite: a subclass may score otherwise."""
    kind: type[Any] = type(scorer)
    return (
        isinstance(scorer, EmbeddingScorer)
        and kind.scores is EmbeddingScorer.scores
        and kind.scores_into in (EmbeddingScorer.scores_into, PairBonusScorer.scores_into)
    )


def _product_ranks(scorer: EmbeddingScorer, splits: Mapping[str, HeldOut], ties: str) -> dict[str, np.ndarray]:
    """Return what `held_out_ranks` does, without a block of scores."""
    users, items = scorer.users.contiguous().numpy(), scorer.items.contiguous().numpy()
    threads = torch.get_num_threads()
    who, held_out = _checked_pairs(scorer, splits)
    extra = scorer.bonus_of(who, held_out) if isinstance(scorer, PairBonusScorer) else np.empty(0, np.float32)
    counted = _kernels.count_products(users, items, who, held_out, threads, extra)
    ranks, start = {}, 0
    for name, part in splits.items():
        own, greater, equal = (values[start : start + len(part.user)] for values in counted)
        start += len(part.user)
        arguments = (users, items, part.user, part.item, own)
        if part.masked is not None:
            lists = (part.masked.indptr, part.masked.indices)
            _kernels.subtract_masked_products(*arguments, *lists, greater, equal, threads)
        if isinstance(scorer, PairBonusScorer):
            pairs, bonus = scorer.without(part.masked)
            _kernels.subtract_masked_products(*arguments, pairs.indptr, pairs.indices, greater, equal, threads, bonus)
        _part_ties(own, part.user, greater, equal)
        ranks[name] = rank_from_counts(greater, equal, ties)
    return ranks


def _checked_pairs(scorer: Scorer, splits: Mapping[str, HeldOut]) -> tuple[IntArray, IntArray]:
    """Return the users and items of all held-out pairs; raises `UsageError` for one that the scorer does not know."""
    who = np.concatenate([part.user for part in splits.values()] or [np.empty(0, np.int64)])
    held_out = np.concatenate([part.item for part in splits.values()] or [np.empty(0, np.int64)])
    for side, numbers, count in (("user", who, scorer.num_users), ("item", held_out, scorer.num_items)):
        for number in (numbers.min(), numbers.max()) if len(numbers) else ():
            if not 0 <= number < count:
                raise UsageError(f"held-out pairs name {side} {number}, the scorer has {count} {side}s")
    return who, held_out


def _device_ranks(
    scorer: Scorer, splits: Mapping[str, HeldOut], ties: str, device: torch.device, **sizes: int
) -> dict[str, np.ndarray]:
    """Return what `held_out_ranks` does, counted where the scores are; ``sizes`` are those of `count_on_device`."""
    _checked_pairs(scorer, splits)
    products = _is_product(scorer) and not isinstance(scorer, PairBonusScorer)
    if not products:
        sizes = {"users_at_a_time": block_rows(scorer.num_items), **sizes}
    ranks = {}
    for name, (own, greater, equal) in count_on_device(scorer, splits, device, products=products, **sizes).items():
        _part_ties(own, splits[name].user, greater, equal)
        ranks[name] = rank_from_counts(greater, equal, ties)
    return ranks


def _score(scorer: Scorer, rows: IntArray, block: int, buffer: Tensor | None) -> Tensor:
    """Score users block by block into ``buffer``, or into new memory where the scorer cannot: (C,) -> (>= C, I).

    The last block is filled up with its last user: a product of one or two rows is rounded differently, and a user's
    ranks must not depend on who else is evaluated.
    """
    rows = np.pad(rows, (0, -len(rows) % block), mode="edge")
    blocks = torch.from_numpy(rows).split(block)
    if buffer is not None and hasattr(scorer, "scores_into"):
        scorer.scores_into(blocks[0], buffer)
        return buffer
    parts = [scorer.scores(part) for part in blocks]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _count(scores: np.ndarray[Any, Any], where: IntArray, items: IntArray) -> tuple[IntArray, IntArray]:
    """Count the items that score higher than each pair, and the same: (C, I), (M,), (M,) -> (M,), (M,)."""
    if _kernels.available:
        by_item = np.ascontiguousarray(scores.T)  # (I, C), as `EmbeddingScorer` has it
        return _kernels.count_above(by_item, where, items, torch.get_num_threads())
    greater, equal = np.empty(len(where), np.int64), np.empty(len(where), np.int64)
    hit = np.empty(scores.shape[1], bool)
    by_user = np.ascontiguousarray(scores)
    # a row at a time: counting one contiguous row of booleans is many times faster than counting along an axis
    for pair, (row, item) in enumerate(zip(where.tolist(), items.tolist(), strict=True)):
        own = by_user[row, item]
        greater[pair] = np.count_nonzero(np.greater(by_user[row], own, out=hit))
        equal[pair] = np.count_nonzero(np.equal(by_user[row], own, out=hit)) - 1
    return greater, equal


def _subtract_masked(
    scores: np.ndarray[Any, Any],
    where: IntArray,
    items: IntArray,
    masked: CSR,
    rows: IntArray,
    greater: IntArray,
    equal: IntArray,
) -> None:
    """Subtract the items that are no candidates from the counts, in place."""
    if _kernels.available:
        _kernels.subtract_masked(scores, where, items, rows, masked.indptr, masked.indices, greater, equal)
        return
    pair, columns = masked.gather(rows[where])  # every masked item of every pair's user
    values = scores[where[pair], columns]
    own = scores[where, items][pair]
    other = columns != items[pair]
    greater -= np.bincount(pair[(values > own) & other], minlength=len(where))
    equal -= np.bincount(pair[(values == own) & other], minlength=len(where))


def _part_ties(own: np.ndarray[Any, Any], where: IntArray, greater: IntArray, equal: IntArray) -> None:
    """Give held-out items of one user with the same score different places, in the order of the pairs; in place.

    They cannot all stand on one place of one list, and metrics that count them as if they did exceed 1. The ``j``-th of
    ``m`` has the ``j - 1`` before it as higher and only the other candidates as equal.
    """
    tied = np.flatnonzero(equal)
    if len(tied) < 2:
        return
    tied = tied[np.lexsort((tied, own[tied], where[tied]))]
    starts = np.flatnonzero(np.r_[True, (np.diff(where[tied]) != 0) | (own[tied][1:] != own[tied][:-1])])
    sizes = np.diff(np.append(starts, len(tied)))
    greater[tied] += np.arange(len(tied)) - np.repeat(starts, sizes)
    equal[tied] -= np.repeat(sizes - 1, sizes)
