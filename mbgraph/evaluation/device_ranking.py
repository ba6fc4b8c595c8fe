"""Counting for ranks where the scores are: product, comparison and sum in torch, in blocks of users and items.

`mbgraph.evaluation.ranking` asks for it where scores lie on another device than the CPU. The host says which pairs
stand in which block, from arrays that it has, and waits once, at the end. On the CPU it counts the same, more slowly
than the kernels there; so it is tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mbgraph.evaluation.scorers import EmbeddingScorer, Scorer, nan_scores

if TYPE_CHECKING:
    from mbgraph.data.interactions import CSR
    from mbgraph.evaluation.ranking import HeldOut

__all__ = ["COLUMNS", "USERS", "Counts", "count_on_device"]

USERS = 1024
"""Users whose products are made at a time."""
COLUMNS = 2**15
"""Items of a block of products, which then holds 128 MiB."""

Counts = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""A pair's own score, and how many other candidates score higher and the same: float (N,), int64 (N,), int64 (N,)."""


class _Part:
    """One split on the device: who is ranked, and the items that are no candidates."""

    def __init__(self, part: HeldOut, users: np.ndarray[Any, Any], device: torch.device) -> None:
        self.rows = np.searchsorted(users, part.user)  # (N,) ascending, as the users of the pairs are
        self.masked: CSR | None = part.masked
        self.where = torch.from_numpy(self.rows).to(device)
        self.item = torch.from_numpy(np.ascontiguousarray(part.item)).to(device)
        self.own = torch.empty(0, device=device)  # (N,) of the scores' type, once there are some
        self.greater, self.equal = (torch.zeros(len(self.rows), dtype=torch.int64, device=device) for _ in range(2))
        if part.masked is not None:
            starts = np.asarray(part.masked.indptr, np.int64)[part.user]
            self.degrees = np.asarray(part.masked.indptr, np.int64)[part.user + 1] - starts  # (N,) on the host
            self.starts, self.lengths = (torch.from_numpy(each).to(device) for each in (starts, self.degrees))
            self.columns = torch.from_numpy(np.asarray(part.masked.indices, np.int64)).to(device)

    def chunks(self, start: int, stop: int) -> Iterator[slice]:
        """Yield the pairs of the users from ``start`` on, not more at a time than there are users."""
        low, high = np.searchsorted(self.rows, [start, stop])
        for begin in range(low, high, stop - start):
            yield slice(begin, min(high, begin + stop - start))

    def masked_of(self, pairs: slice) -> tuple[Tensor, Tensor]:
        """Return every masked item of some pairs' users: numbers within ``pairs`` (M,), items (M,)."""
        total, lengths = int(self.degrees[pairs].sum()), self.lengths[pairs]
        numbers = torch.arange(len(lengths), device=lengths.device)
        pair = numbers.repeat_interleave(lengths, output_size=total)  # a size that is known here waits for nothing
        first = (lengths.cumsum(0) - lengths)[pair]
        places = self.starts[pairs][pair] + torch.arange(total, device=lengths.device) - first
        return pair, self.columns[places]

    def find_own(self, scores: Tensor, pairs: slice, where: Tensor, begin: int) -> None:
        """Remember the scores of the pairs whose items are columns of ``scores``, which start at item ``begin``."""
        if len(self.own) != len(self.item) or self.own.dtype != scores.dtype:
            self.own = scores.new_zeros(len(self.item))
        column = self.item[pairs] - begin
        inside = (column >= 0) & (column < scores.shape[1])
        found = scores[where, column.clamp(0, scores.shape[1] - 1)]
        self.own[pairs] = torch.where(inside, found, self.own[pairs])

    def count(self, scores: Tensor, pairs: slice, where: Tensor, begin: int, new: int) -> None:
        """Add what the columns from item ``new`` on say of some pairs."""
        rows, own = scores.index_select(0, where)[:, new - begin :], self.own[pairs].unsqueeze(1)  # (P, C), (P, 1)
        inside = (self.item[pairs] >= new) & (self.item[pairs] < new + rows.shape[1])
        self.greater[pairs] += (rows > own).sum(1)
        self.equal[pairs] += (rows == own).sum(1) - inside.long()
        if self.masked is None:
            return
        pair, column = self.masked_of(pairs)
        counted = (column >= new) & (column < begin + scores.shape[1]) & (column != self.item[pairs][pair])
        values = scores[where[pair], (column - begin).clamp(0, scores.shape[1] - 1)]
        of_own = self.own[pairs][pair]
        # whole numbers: their sum is the same in any order
        self.greater[pairs] -= torch.zeros_like(where).index_add_(0, pair, (counted & (values > of_own)).long())
        self.equal[pairs] -= torch.zeros_like(where).index_add_(0, pair, (counted & (values == of_own)).long())


@torch.no_grad()
def count_on_device(
    scorer: Scorer,
    splits: Mapping[str, HeldOut],
    device: torch.device,
    *,
    products: bool,
    users_at_a_time: int = USERS,
    columns: int = COLUMNS,
) -> dict[str, Counts]:
    """Return the counts of every held-out pair, per split.

    Parameters
    ----------
    scorer : Scorer
    splits : mapping of str to HeldOut
    device : torch device
        Where the scores lie.
    products : bool
        Whether scores are products of embeddings and nothing else, so that they can be made in blocks of items and are
        finite. Otherwise the scorer is asked for all items of some users.
    users_at_a_time, columns : int
        Size of a block. All blocks are of one size, as the rounding of a product may depend on its shape: the last
        users are filled up with the last of them, the last items with items that were counted before.

    Raises
    ------
    RunError
        If a score is NaN.
    """
    users = np.unique(np.concatenate([part.user for part in splits.values()] or [np.empty(0, np.int64)]))
    parts = [_Part(part, users, device) for part in splits.values()]
    everyone = torch.from_numpy(np.pad(users, (0, -len(users) % users_at_a_time), mode="edge") if len(users) else users)
    everyone = everyone.to(device)
    is_bad = torch.zeros((), dtype=torch.bool, device=device)
    width = min(columns, scorer.num_items) if products else scorer.num_items
    blocks = [(min(new, scorer.num_items - width), new) for new in range(0, scorer.num_items, width)]
    for start in range(0, len(users), users_at_a_time):
        stop = start + users_at_a_time
        rows = everyone[start:stop]
        chosen = [(part, pairs, part.where[pairs] - start) for part in parts for pairs in part.chunks(start, stop)]
        scores = torch.empty(0)
        for begin, _ in blocks:
            scores = _block(scorer, rows, begin, width, products)  # (B, C)
            for part, pairs, where in chosen:
                part.find_own(scores, pairs, where, begin)
        if not products:
            is_bad |= scores.isnan().any()
        for begin, new in blocks:
            if len(blocks) > 1:
                scores = _block(scorer, rows, begin, width, products)
            for part, pairs, where in chosen:
                part.count(scores, pairs, where, begin, new)
    if bool(is_bad):
        raise nan_scores()
    return {
        name: (part.own.numpy(force=True), part.greater.numpy(force=True), part.equal.numpy(force=True))
        for name, part in zip(splits, parts, strict=True)
    }


def _block(scorer: Scorer, rows: Tensor, begin: int, width: int, products: bool) -> Tensor:
    """Return the scores of some users for the items from ``begin`` on: (B,) -> (B, C)."""
    if not products:
        return scorer.scores(rows)
    assert isinstance(scorer, EmbeddingScorer)
    return scorer.users.index_select(0, rows) @ scorer.items[begin : begin + width].T
