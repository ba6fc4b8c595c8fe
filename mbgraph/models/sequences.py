"""What users did one after the other: sequences of items and behaviors, and batches of windows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mbgraph.errors import UsageError
from mbgraph.models.moving import moved
from mbgraph.models.options import TrainingOptions
from mbgraph.nn.relations import Relations
from mbgraph.random import stream
from mbgraph.typing import IntArray

__all__ = ["SequenceBatch", "SequenceBatches", "Sequences"]


class Sequences:
    """The pairs of every user in all behaviors, in order.

    Parameters
    ----------
    relations : Relations
    order : {"auto", "time", "behaviors"}
        ``time``: by the times of the pairs, equal times by behavior. ``behaviors``: all pairs of the first behavior, in
        the order of the dataset, then those of the next, the target's last: what can be done without times. ``auto``:
        by time where every pair has one.

    Attributes
    ----------
    timed : bool
    pointers : int64 array (U + 1,)
    items, types : int64 array (E,)
        Types are numbers of behaviors.

    Raises
    ------
    UsageError
        If the order is ``time`` and a behavior has none.
    """

    def __init__(self, relations: Relations, order: str = "auto") -> None:
        without = [name for name, relation in relations.items() if relation.time is None]
        if order == "time" and without:
            raise UsageError(
                f"order=time needs a time of every pair, and {', '.join(without)} of this dataset has none",
                "use --set order=behaviors, a surrogate, or a dataset with times",
            )
        self.timed = not without and order != "behaviors"
        users, items = (
            np.concatenate([getattr(relation, side).numpy() for relation in relations.values()])
            for side in ("users", "items")
        )
        types = np.repeat(np.arange(len(relations)), [relation.num_edges for relation in relations.values()])
        if self.timed:
            times = np.concatenate([np.asarray(relation.time) for relation in relations.values()])
            placed = np.lexsort((types, times, users))
        else:
            placed = np.argsort(users, kind="stable")
        self.items, self.types = items[placed], types[placed]
        self.pointers = np.zeros(relations.num_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=relations.num_users), out=self.pointers[1:])

    def lengths(self) -> IntArray:
        """Return the number of pairs of every user: (U,)."""
        return np.diff(self.pointers)

    def latest(self, length: int, block: int = 512) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the last ``length`` positions of all users, a block of them at a time: items, types (B, T) each."""
        ends = self.lengths()
        for start in range(0, len(ends), block):
            users = np.arange(start, min(start + block, len(ends)))
            yield self.windows(users, ends[users], length)

    def windows(self, users: IntArray, ends: IntArray, length: int) -> tuple[IntArray, IntArray]:
        """Return the ``length`` positions before each end, oldest first, -1 where there is none.

        Parameters
        ----------
        users, ends : int64 array (B,)
            Ends count the user's pairs from 0 and are not part of the window.
        length : int

        Returns
        -------
        items, types : int64 array (B, T)
        """
        numbers = ends[:, None] - length + np.arange(length)  # (B, T)
        inside = numbers >= 0
        places = np.where(inside, self.pointers[users][:, None] + numbers, 0)
        if not len(self.items):
            return np.full_like(places, -1), np.full_like(places, -1)
        return np.where(inside, self.items[places], -1), np.where(inside, self.types[places], -1)


@dataclass(frozen=True)
class SequenceBatch:
    """Windows of some users, and what followed their positions.

    Attributes
    ----------
    items, types : int64 tensor (B, T)
        -1 where a window has no position; such places come first.
    positions : int64 tensor (M,)
        Positions, counted through all windows, whose next pair is to be predicted.
    next_items, next_types : int64 tensor (M,)
    sampled : int64 tensor (N,)
        One of them per user who has any.
    """

    items: Tensor
    types: Tensor
    positions: Tensor
    next_items: Tensor
    next_types: Tensor
    sampled: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def to(self, device: str | torch.device) -> SequenceBatch:
        """Return the batch on another device."""
        return moved(self, device)

    def emptied(self) -> SequenceBatch:
        """Return windows without any position."""
        nothing = torch.full_like(self.items, -1)
        ends = {name: getattr(self, name)[:0] for name in ("positions", "next_items", "next_types", "sampled")}
        return replace(self, items=nothing, types=nothing, **ends)


class SequenceBatches:
    """Batches of a window per user: the latest one, or now and then a random one.

    Parameters
    ----------
    sequences : Sequences
    training : TrainingOptions
        ``batch_size`` counts users. No negatives are drawn.
    length : int
        Positions of a window.
    predicted : float
        Share of the positions whose next pair is predicted.
    earlier : float
        Share of the longer sequences of which a random window is taken.
    rng : int
        Seed. Epoch n depends on the seed and n alone.

    Raises
    ------
    UsageError
        If the options name a sampler, or no user has two pairs.
    """

    def __init__(
        self,
        sequences: Sequences,
        training: TrainingOptions,
        *,
        length: int,
        predicted: float,
        earlier: float = 0.2,
        rng: int = 0,
    ) -> None:
        training.only_sampler("per-user", "this model reads sequences")
        self.sequences, self.size, self.length = sequences, training.rows, length
        self.predicted, self.earlier, self.seed = predicted, earlier, int(rng)
        self.users = np.flatnonzero(sequences.lengths() > 1)
        if not len(self.users):
            raise UsageError("no user has two pairs, so no pair follows another", "use --model lightgcn")

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.users) // self.size)

    def epoch(self, number: int) -> Iterator[SequenceBatch]:
        """Yield the batches of epoch ``number`` (from 1)."""
        rng = stream(self.seed, "sampler", number)
        users = rng.permutation(self.users)
        for start in range(0, len(users), self.size):
            yield self._batch(users[start : start + self.size], rng)

    def _batch(self, users: IntArray, rng: np.random.Generator) -> SequenceBatch:
        ends = self.sequences.lengths()[users] - 1  # the last pair is only predicted
        longer = (ends > self.length) & (rng.random(len(users)) < self.earlier)
        ends[longer] = self.length + rng.integers(0, ends[longer] - self.length + 1)
        items, types = self.sequences.windows(users, ends, self.length)
        next_items, next_types = (rows[:, 1:] for rows in self.sequences.windows(users, ends + 1, self.length + 1))
        labelled = (types >= 0) & (rng.random(types.shape) < self.predicted)
        order = np.where(labelled, rng.random(types.shape), -1.0)  # a random one per user: the largest
        some = labelled.any(1)
        sampled = np.arange(len(users))[some] * self.length + order.argmax(1)[some]
        positions = np.flatnonzero(labelled)
        parts = (items, types, positions, next_items.ravel()[positions], next_types.ravel()[positions], sampled)
        return SequenceBatch(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))
