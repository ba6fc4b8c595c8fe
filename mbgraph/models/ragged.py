"""Batches of users with as many rows as each of them has: triples in groups, or all of their pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import UsageError
from mbgraph.models.history import History, draw_positives, trained_users
from mbgraph.models.moving import moved
from mbgraph.models.options import TrainingOptions
from mbgraph.nn.triples import Triple
from mbgraph.random import stream
from mbgraph.typing import IntArray

__all__ = ["RaggedBatch", "RaggedBatches", "UserBatch", "UserBatches"]


@dataclass(frozen=True)
class RaggedBatch:
    """One step's triples by group; a user has any number of rows in a group.

    Attributes
    ----------
    groups : mapping of str to (int64 tensor (B_g,), int64 tensor (B_g,), int64 tensor (B_g,) or (B_g, n))
        Users, positive items and negative items of every row.
    """

    groups: Mapping[str, Triple]
    _distinct: Mapping[str, tuple[Tensor, Tensor]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # on the host, once, as in `TripleBatch`: a step is the same operations whatever the numbers are
        made = {name: (torch.unique(rows[0]), torch.unique(rows[1])) for name, rows in self.groups.items()}
        object.__setattr__(self, "_distinct", made)

    def __len__(self) -> int:
        return sum(len(users) for users, _, _ in self.groups.values())

    def to(self, device: str | torch.device) -> RaggedBatch:
        """Return the batch on another device."""
        return moved(self, device)

    def emptied(self) -> RaggedBatch:
        """Return the batch without any row."""
        return RaggedBatch({name: (rows[0][:0], rows[1][:0], rows[2][:0]) for name, rows in self.groups.items()})

    def rows(self, group: str) -> Triple:
        """Return users, positive items and negative items of a group: (B_g,), (B_g,), (B_g,) or (B_g, n)."""
        return self.groups[group]

    def distinct(self, side: str, group: str) -> Tensor:
        """Return the distinct users or positive items of a group, ascending: (N,)."""
        return self._distinct[group][0 if side == "user" else 1]


class RaggedBatches:
    """Draws, for the users of a batch, several triples of each in every group of positives.

    Parameters
    ----------
    dataset : MultiBehaviorDataset
    groups : mapping of str to int64 array (N,)
        Per group the keys ``user * num_items + item`` of its positives, ascending.
    training : TrainingOptions
        ``batch_size`` counts users. ``history``: negatives come from outside the group's own positives (``behavior``),
        the target's items or those of all behaviors. ``negatives`` per row.
    per_user : int
        Most rows of a user in a group; who has fewer positives has as many rows. Drawn with replacement.
    users_per_epoch : int
        An epoch reads so many users in random order; 0: all of them.
    rng : int
        Seed. Epoch n depends on the seed and n alone.

    Raises
    ------
    UsageError
        If the options name a sampler: these batches know one way only; or if there is nothing to train on.

    Notes
    -----
    A user whose history holds every item has no negative and gets no row.
    """

    def __init__(
        self,
        dataset: MultiBehaviorDataset,
        groups: Mapping[str, IntArray],
        training: TrainingOptions,
        *,
        per_user: int,
        users_per_epoch: int = 0,
        rng: int = 0,
    ) -> None:
        training.only_sampler("per-user", "this model draws several rows per user")
        self.training, self.per_user, self.seed = training, per_user, int(rng)
        sizes = self.num_users, num_items = dataset.num_users, dataset.num_items
        self.users_per_epoch = min(users_per_epoch or self.num_users, self.num_users)
        self._positives = {name: History(keys, *sizes).csr() for name, keys in groups.items()}
        everyone = {"all": dataset.behaviors, "target": (dataset.target,)}.get(training.history)
        shared = None if everyone is None else History.of(dataset, everyone)
        self._histories = {name: shared or History(keys, self.num_users, num_items) for name, keys in groups.items()}
        trained_users(dataset, shared or History.of(dataset, (dataset.target,)), training)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.users_per_epoch // self.training.rows)

    def epoch(self, number: int) -> Iterator[RaggedBatch]:
        """Yield the batches of epoch ``number`` (from 1)."""
        rng = stream(self.seed, "sampler", number)
        users = rng.permutation(self.num_users)[: self.users_per_epoch]
        for start in range(0, len(users), self.training.rows):
            own = users[start : start + self.training.rows]
            yield RaggedBatch({name: self._drawn(name, own, rng) for name in self._positives})

    def _drawn(self, group: str, users: IntArray, rng: np.random.Generator) -> Triple:
        positives, history, count = self._positives[group], self._histories[group], self.training.negatives
        rows = np.repeat(users, np.minimum(positives.degrees()[users], self.per_user))  # (B,)
        rows = rows[history.sizes()[rows] < history.num_items]
        drawn = draw_positives(positives, rows, rng)
        negatives = history.draw_outside(np.repeat(rows, count), rng)
        made = negatives if count == 1 else negatives.reshape(-1, count)
        return torch.from_numpy(rows), torch.from_numpy(drawn), torch.from_numpy(made)


@dataclass(frozen=True)
class UserBatch:
    """Distinct users and all of their pairs.

    Attributes
    ----------
    users : int64 tensor (B,)
    pairs : mapping of str to (int64 tensor (M,), int64 tensor (M,))
        Per behavior, positions in ``users`` and items.
    """

    users: Tensor
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    _counts: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = {
            behavior: {
                "user": torch.unique(self.users[at], return_counts=True),
                "item": torch.unique(items, return_counts=True),
            }
            for behavior, (at, items) in self.pairs.items()
        }
        object.__setattr__(self, "_counts", made)

    def __len__(self) -> int:
        return len(self.users)

    def to(self, device: str | torch.device) -> UserBatch:
        """Return the batch on another device."""
        return moved(self, device)

    def emptied(self) -> UserBatch:
        """Return the batch without any pair."""
        return UserBatch(self.users, {name: (at[:0], items[:0]) for name, (at, items) in self.pairs.items()})

    def distinct(self, side: str, behavior: str) -> tuple[Tensor, Tensor]:
        """Return the distinct users or items of a behavior's pairs, ascending, and their pairs: (N,), (N,)."""
        return self._counts[behavior][side]


class UserBatches:
    """Batches of the users who have any pair, each of them once in an epoch.

    Parameters
    ----------
    dataset : MultiBehaviorDataset
    behaviors : sequence of str
    training : TrainingOptions
        ``batch_size`` counts users. No negatives are drawn.
    only : str, optional
        Read only users who have this behavior.
    drop_last : bool
        Leave the last batch out where it is not full.
    rng : int
        Seed. Epoch n depends on the seed and n alone.

    Raises
    ------
    UsageError
        If the options name a sampler.
    """

    def __init__(
        self,
        dataset: MultiBehaviorDataset,
        behaviors: Sequence[str],
        training: TrainingOptions,
        *,
        only: str | None = None,
        drop_last: bool = False,
        rng: int = 0,
    ) -> None:
        training.only_sampler("per-user", "this model reads all pairs of its users")
        self.size, self.drop_last, self.seed = training.rows, drop_last, int(rng)
        self.pairs = {name: dataset.csr(name) for name in behaviors}
        degrees = sum(csr.degrees() for name, csr in self.pairs.items() if only in (None, name))
        self.users = np.flatnonzero(degrees)
        if not len(self.users):
            raise UsageError(f"no user of {dataset.name!r} has a pair", "check the dataset: mbgraph inspect")

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        full, rest = divmod(len(self.users), self.size)
        return full + bool(rest and not (self.drop_last and full))

    def epoch(self, number: int) -> Iterator[UserBatch]:
        """Yield the batches of epoch ``number`` (from 1)."""
        users = stream(self.seed, "sampler", number).permutation(self.users)
        for batch in range(len(self)):
            own = users[batch * self.size : (batch + 1) * self.size]
            gathered = {name: csr.gather(own) for name, csr in self.pairs.items()}
            yield UserBatch(
                torch.from_numpy(own),
                {name: (torch.from_numpy(at), torch.from_numpy(items)) for name, (at, items) in gathered.items()},
            )
