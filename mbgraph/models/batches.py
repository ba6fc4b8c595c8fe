"""What a model trains on: batches of triples (user, positive item, negative items), drawn without a Python loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.models.history import History, draw_positives, trained_users
from mbgraph.models.options import TrainingOptions
from mbgraph.models.triples import ANY, TripleBatch
from mbgraph.random import stream
from mbgraph.typing import IntArray

__all__ = ["Batches", "TripleBatches"]

_ROWS_AT_A_TIME = 2**20
B = TypeVar("B", covariant=True)


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
