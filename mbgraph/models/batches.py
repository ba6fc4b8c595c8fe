"""What a model trains on: batches of triples (user, positive item, negative items), drawn without a Python loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import CSR
from mbgraph.errors import UsageError
from mbgraph.keys import contains, union
from mbgraph.models.moving import moved
from mbgraph.models.options import TrainingOptions
from mbgraph.random import stream
from mbgraph.typing import IntArray

__all__ = ["ANY", "Batches", "ExtendedBatches", "TripleBatch", "TripleBatches"]

ANY = ""
"""Under this name stand triples whose positives are pairs of any behavior; no behavior can be called so."""

_REJECTION_ROUNDS = 30
_ROWS_AT_A_TIME = 2**20
B = TypeVar("B", covariant=True)
T = TypeVar("T", bound="TripleBatch")


class Batches(Protocol[B]):
    """What `Recommender.batches` returns: the batches of any epoch, by its number alone.

    A batch is anything with ``to(device)`` that the model's own `step` understands.
    """

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield the batches of epoch ``number`` (from 1); the same ones whenever it is asked."""
        ...


@dataclass(frozen=True)
class TripleBatch:
    """One training step's triples, row by row for all behaviors.

    Attributes
    ----------
    users : int64 tensor (B,)
        One user per row.
    positives : mapping of str to int64 tensor (B,)
        Per behavior an item of the user's; -1 where the user lacks the behavior.
    negatives : mapping of str to int64 tensor (B,) or (B, n)
        Items outside the user's history; -1 where there is no positive.
    kinds : int64 tensor (B,), optional
        With sampler ``every-edge``: the number of the behavior that each row is an edge of.

    Raises
    ------
    UsageError
        If a triple with a positive item lacks its user or a negative item.
    """

    users: Tensor
    positives: Mapping[str, Tensor]
    negatives: Mapping[str, Tensor]
    kinds: Tensor | None = None
    _made: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # what depends on the numbers in a batch is decided here, once, so that a step is the same operations whatever
        # they are: it can be compiled as a whole, and a device need not wait for the host
        made: dict[str, Any] = {"present": {}, "positions": {}, "users": {}, "items": {}, "negatives": {}}
        for behavior, positives in self.positives.items():
            present = (positives >= 0).nonzero()[:, 0]
            made["positions"][behavior] = present
            rows = (self.users[present], positives[present], self.negatives[behavior][present])
            if any(bool((part < 0).any()) for part in rows):
                raise UsageError(
                    f"a triple of {behavior!r} has a positive item, but no user or no negative (-1)",
                    "leave a row out by a positive of -1",
                )
            made["present"][behavior] = rows
            for kind, part in zip(("users", "items", "negatives"), rows, strict=True):
                made[kind][behavior] = torch.unique(part)
        object.__setattr__(self, "_made", made)

    def __len__(self) -> int:
        return len(self.users)

    def to(self, device: str | torch.device) -> TripleBatch:
        """Return the batch on another device."""
        return moved(self, device)

    def extended(self, kind: type[T], **entries: Any) -> T:
        """Return the batch as one of a subclass, with what that has beside the triples."""
        return kind(self.users, self.positives, self.negatives, self.kinds, **entries)

    def emptied(self) -> TripleBatch:
        """Return the batch as it were if nobody in it had any behavior."""

        def absent(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {behavior: torch.full_like(values, -1) for behavior, values in rows.items()}

        return replace(self, positives=absent(self.positives), negatives=absent(self.negatives))

    def positions(self, behavior: str, padding: tuple[int, int] | None = None) -> Tensor:
        """Return which rows of the batch `rows` returns: (B_b,)."""
        if padding is not None:
            return torch.arange(len(self), device=self.users.device)
        made: Tensor = self._made["positions"][behavior]
        return made

    def distinct(self, side: str, behavior: str, padding: int | None = None) -> Tensor:
        """Return the distinct users, positive items or negative ones of a behavior's triples, ascending: (N,).

        ``side`` is user, item or negative. With the number of a ``padding`` node it stands at the end where a user of
        the batch lacks the behavior.
        """
        rows: Tensor = self._made[f"{side}s"][behavior]
        if padding is None or len(self._made["present"][behavior][0]) == len(self):
            return rows
        return torch.cat([rows, rows.new_full((1,), padding)])

    def rows(self, behavior: str, padding: tuple[int, int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return users, positive items and negative items of a behavior's triples: (B_b,), (B_b,), (B_b,) or (B_b, n).

        Rows of users who lack the behavior are left out, or become rows of the ``padding`` nodes (user, item), as codes
        that number nodes from 1 have it.
        """
        if padding is None:
            made: tuple[Tensor, Tensor, Tensor] = self._made["present"][behavior]
            return made
        positives, negatives = self.positives[behavior], self.negatives[behavior]
        user, item = padding
        absent = positives < 0
        return (
            self.users.masked_fill(absent, user),
            positives.masked_fill(absent, item),
            negatives.masked_fill(absent if negatives.ndim == 1 else absent.unsqueeze(1), item),
        )


class TripleBatches:
    """Draws the triples of one epoch after the other.

    Parameters
    ----------
    dataset : MultiBehaviorDataset
        Only its train edges are read.
    behaviors : sequence of str
        Behaviors to draw triples for.
    training : TrainingOptions
        ``batch_size``; ``sampler``, what the rows are; ``history``, what is no negative; ``negatives``, how many.
        The last batch of an epoch may be shorter.
    any_of : sequence of str
        Behaviors whose pairs are drawn as one, under the name `ANY`, beside the others.
    counts : mapping of str to int
        Negatives of single behaviors, where not as many as ``negatives`` says.
    rng : int
        Seed. Epoch n depends on the seed and n alone, so a resumed run continues exactly.

    Raises
    ------
    UsageError
        If no user at all has a target item and an item outside the history.

    Notes
    -----
    The positive of a row's own edge is that edge's item (under ``every-edge`` and ``any_of`` the one of `ANY`); others
    are drawn for the row's user. Negatives are uniform over the allowed items: drawn over all items, each checked
    against the history, rejected and drawn again; after 30 rounds the few that remain are drawn from the explicit
    complement. A user whose history holds every item has no negative and gets no triple (-1).
    """

    def __init__(
        self,
        dataset: MultiBehaviorDataset,
        behaviors: Sequence[str],
        training: TrainingOptions,
        *,
        any_of: Sequence[str] = (),
        counts: Mapping[str, int] | None = None,
        rng: int = 0,
    ) -> None:
        self.dataset, self.training, self.seed = dataset, training, int(rng)
        self.any_of, self.counts = tuple(any_of), dict(counts or {})
        self.behaviors = (*((ANY,) if any_of else ()), *behaviors)
        self._histories: dict[str, History] = {}
        made: dict[tuple[str, ...], History] = {}
        for behavior in (*self.behaviors, dataset.target):
            own = self.any_of if behavior == ANY else (behavior,)
            sources = {"all": dataset.behaviors, "behavior": own, "target": (dataset.target,)}[training.history]
            if sources not in made:
                made[sources] = History.of(dataset, sources)
            self._histories[behavior] = made[sources]
        self._users = trained_users(dataset, self._histories[dataset.target], training)
        self._any = History.of(dataset, self.any_of).csr() if any_of else None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        rows = {
            "per-user": self.dataset.num_users,
            "every-edge": sum(len(self.dataset.edges[name]) for name in self._edges_of()),
        }.get(self.training.sampler, self._num_edges)
        return -(-rows // self.training.rows)

    @property
    def _num_edges(self) -> int:
        return len(self.dataset.edges[self.dataset.target])

    def _edges_of(self) -> tuple[str, ...]:
        """Return the behaviors whose edges are the rows of ``every-edge``."""
        return self.any_of or self.behaviors

    def epoch(self, number: int) -> Iterator[TripleBatch]:
        """Yield the batches of epoch ``number`` (from 1)."""
        rng = stream(self.seed, "sampler", number)
        users, positives, kinds = self._rows(rng)
        negatives = {}
        for behavior in self.behaviors:
            present = np.flatnonzero(positives[behavior] >= 0)
            drawn = self._draw_negatives(behavior, users[present], rng)  # (P, n)
            rows = np.full((len(users), drawn.shape[1]), -1, np.int64)
            rows[present] = drawn
            positives[behavior] = np.where(rows[:, 0] >= 0, positives[behavior], -1)
            negatives[behavior] = rows[:, 0] if drawn.shape[1] == 1 else rows
        size = self._batch_rows()
        for start in range(0, len(users), size):
            part = slice(start, start + size)
            yield TripleBatch(
                torch.from_numpy(users[part]),
                {behavior: torch.from_numpy(positives[behavior][part]) for behavior in self.behaviors},
                {behavior: torch.from_numpy(negatives[behavior][part]) for behavior in self.behaviors},
                None if kinds is None else torch.from_numpy(kinds[part]),
            )

    def _batch_rows(self) -> int:
        size = self.training.rows
        return min(size, len(self._users)) if self.training.sampler == "distinct-users" else size

    def _draw_negatives(self, behavior: str, users: IntArray, rng: np.random.Generator) -> IntArray:
        """Return negatives per row, some rows at a time: an epoch of every edge has many millions: (R, n)."""
        count, history = self.counts.get(behavior, self.training.negatives), self._histories[behavior]
        drawn = np.empty((len(users), count), np.int64)
        for start in range(0, len(users), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            drawn[part] = history.draw_outside(np.repeat(users[part], count), rng).reshape(-1, count)
        return drawn

    def _rows(self, rng: np.random.Generator) -> tuple[IntArray, dict[str, IntArray], IntArray | None]:
        """Return the epoch's users (R,) in random order, a positive per behavior (R,), -1 for none, and kinds (R,)."""
        sampler, target = self.training.sampler, self.dataset.edges[self.dataset.target]
        own: dict[str, IntArray] = {}  # positives that the rows bring along, -1 where they bring none
        kinds: IntArray | None = None
        if sampler == "per-user":
            users = rng.permutation(self.dataset.num_users)
        elif sampler == "per-edge":
            order = rng.permutation(len(target))
            users, own = target.user[order], {self.dataset.target: target.item[order]}
        elif sampler == "every-edge":
            edges = [self.dataset.edges[name] for name in self._edges_of()]
            kinds = np.repeat(np.arange(len(edges)), [len(pairs) for pairs in edges])
            order = rng.permutation(len(kinds))
            users, items = (np.concatenate([getattr(pairs, side) for pairs in edges]) for side in ("user", "item"))
            users, items, kinds = users[order], items[order], kinds[order]
            own = {name: np.where(kinds == number, items, -1) for number, name in enumerate(self._edges_of())}
            own = {ANY: items} if self.any_of else own
        elif sampler == "with-replacement":
            users = rng.choice(self._users, self._num_edges)
        else:
            users = np.concatenate(
                [rng.choice(self._users, self._batch_rows(), replace=False) for _ in range(len(self))]
            )
        return users, {name: self._positives(name, users, own.get(name), rng) for name in self.behaviors}, kinds

    def _positives(self, behavior: str, users: IntArray, own: IntArray | None, rng: np.random.Generator) -> IntArray:
        """Return a positive per row, the row's own where it has one: (R,)."""
        if own is not None and (own >= 0).all():
            return own
        csr = self.dataset.csr(behavior) if self._any is None or behavior != ANY else self._any
        drawn = draw_positives(csr, users, rng)
        return drawn if own is None else np.where(own >= 0, own, drawn)


class ExtendedBatches:
    """Triples with more in every batch: what a step draws, or what is looked up on the host.

    A step that finds its random numbers and ragged lists in the batch is the same operations whatever they are, and
    compiles as a whole.

    Parameters
    ----------
    triples : TripleBatches
    extend : callable
        ``extend(batch, rng)`` returns the batch that the model's step reads, see `TripleBatch.extended`. The generator
        is the epoch's own, apart from the one that draws the triples.
    """

    def __init__(self, triples: TripleBatches, extend: Callable[[TripleBatch, np.random.Generator], TripleBatch]):
        self.triples, self.extend = triples, extend

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.triples)

    def epoch(self, number: int) -> Iterator[TripleBatch]:
        """Yield the batches of epoch ``number`` (from 1)."""
        rng = stream(self.triples.seed, "extension", number)
        for batch in self.triples.epoch(number):
            yield self.extend(batch, rng)


def trained_users(dataset: MultiBehaviorDataset, history: History, training: TrainingOptions) -> IntArray:
    """Return the users with a target item and an item outside their history: (R,); raises `UsageError` for none."""
    users = np.flatnonzero((dataset.csr(dataset.target).degrees() > 0) & (history.sizes() < dataset.num_items))
    if not len(users):
        raise UsageError(
            f"no user of {dataset.name!r} has both a {dataset.target!r} and an item outside the history "
            f"({training.history}), so there is nothing to train on",
            "choose a smaller history: --set history=behavior or --set history=target",
        )
    return users


def draw_positives(csr: CSR, users: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw one item of each user uniformly: (R,) -> (R,), -1 for users without any."""
    starts = csr.indptr[users]
    counts = csr.indptr[users + 1] - starts
    picks = starts + (rng.random(len(users)) * counts).astype(np.int64)
    drawn = csr.indices[np.minimum(picks, len(csr.indices) - 1)]
    return np.where(counts > 0, drawn, -1)


class History:
    """Items of every user, as sorted keys: what is no negative.

    Parameters
    ----------
    keys : int64 array (N,)
        ``user * num_items + item``, ascending.
    num_users, num_items : int
    """

    def __init__(self, keys: IntArray, num_users: int, num_items: int) -> None:
        self.keys, self.num_items = keys, num_items
        self.indptr = np.searchsorted(keys, np.arange(num_users + 1, dtype=np.int64) * num_items)

    @classmethod
    def of(cls, dataset: MultiBehaviorDataset, behaviors: Sequence[str]) -> History:
        """Return the items of every user in any of the behaviors."""
        keys = union(*(dataset.edges[name].keys(dataset.num_items) for name in behaviors))
        return cls(keys, dataset.num_users, dataset.num_items)

    def csr(self) -> CSR:
        """Return the items by user."""
        return CSR(self.indptr, self.keys % self.num_items)

    def sizes(self) -> IntArray:
        """Return the number of items of every user: (U,)."""
        return np.diff(self.indptr)

    def contains(self, users: IntArray, items: IntArray) -> np.ndarray:
        """Return whether each (user, item) stands in the history: two (R,) -> bool (R,)."""
        keys = users * np.int64(self.num_items) + items
        order = np.argsort(keys)  # keys that ascend are found five times as fast
        found = np.empty(len(keys), bool)
        found[order] = contains(keys[order], self.keys)
        return found

    def draw_outside(self, users: IntArray, rng: np.random.Generator) -> IntArray:
        """Draw one item outside each user's history uniformly: (R,) -> (R,), -1 where none is left."""
        drawn = rng.integers(0, self.num_items, len(users))
        open_rows = np.flatnonzero(self.contains(users, drawn))
        for _ in range(_REJECTION_ROUNDS):
            if len(open_rows) == 0:
                return drawn
            again = rng.integers(0, self.num_items, len(open_rows))
            drawn[open_rows] = again
            open_rows = open_rows[self.contains(users[open_rows], again)]
        for row in open_rows:
            user = users[row]
            seen = self.keys[self.indptr[user] : self.indptr[user + 1]] - user * self.num_items
            free = np.setdiff1d(np.arange(self.num_items), seen, assume_unique=True)
            drawn[row] = rng.choice(free) if len(free) else -1
        return drawn
