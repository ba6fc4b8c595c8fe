"""What the train pairs say, computed once: counts, sets of pairs, similarities of items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mbgraph.data.interactions import CSR
from mbgraph.keys import contains, union
from mbgraph.models.item_cosine import Matrix, item_similarities, matrix_of, weighted_union
from mbgraph.models.twostage.options import TwoStageOptions
from mbgraph.models.twostage.retrievers import RETRIEVERS, Retriever
from mbgraph.nn.relations import Relations
from mbgraph.typing import FloatArray, IntArray

__all__ = ["Embeddings", "Facts", "Setting"]

Embeddings = tuple[FloatArray, FloatArray]
"""Users (U, D) and items (I, D)."""


@dataclass(frozen=True)
class Setting:
    """What columns of evidence depend on.

    Attributes
    ----------
    auxiliary : tuple of str
    target : str
    has_times : bool
        Whether every auxiliary behavior has times.
    options : TwoStageOptions
    """

    auxiliary: tuple[str, ...]
    target: str
    has_times: bool
    options: TwoStageOptions

    @classmethod
    def of(cls, relations: Relations, options: TwoStageOptions) -> Setting:
        """Return the setting of a graph."""
        has_times = all(relations[name].time is not None for name in relations.auxiliary)
        return cls(relations.auxiliary, relations.target or "", has_times, options)

    @property
    def behaviors(self) -> tuple[str, ...]:
        """All behaviors, the target last."""
        return (*self.auxiliary, self.target)


class Facts:
    """Everything that evidence may ask of a graph, computed when it is first asked for.

    Parameters
    ----------
    relations : Relations
    options : TwoStageOptions
    seed : int
        Of what is drawn.
    runs : mapping of str to Embeddings
        Embeddings of trained runs, by the name of their directory.
    """

    def __init__(
        self, relations: Relations, options: TwoStageOptions, seed: int, runs: dict[str, Embeddings] | None = None
    ) -> None:
        self.relations, self.options, self.seed, self.runs = relations, options, seed, dict(runs or {})
        self.setting = Setting.of(relations, options)
        self._similar: dict[str, Matrix] = {}
        self.num_users, self.num_items = relations.num_users, relations.num_items

    @cached_property
    def lists(self) -> dict[str, CSR]:
        """Items of every user by behavior, ascending."""
        found = {}
        for name in self.setting.behaviors:
            pointers, indices = self.relations[name].neighbors("user")
            found[name] = CSR(pointers, indices.astype(np.int64))
        return found

    @cached_property
    def keys(self) -> dict[str, IntArray]:
        """``user * num_items + item`` of every pair by behavior, ascending."""
        return {name: self.relations[name].keys() for name in self.setting.behaviors}

    @cached_property
    def touched(self) -> IntArray:
        """Keys of all pairs of any auxiliary behavior, ascending."""
        return union(*(self.keys[name] for name in self.setting.auxiliary))

    @property
    def bought(self) -> IntArray:
        """Keys of all pairs of the target, ascending."""
        return self.keys[self.setting.target]

    @cached_property
    def seen(self) -> CSR:
        """Items that every user touched and did not buy, ascending."""
        return self.by_user(self.touched[~contains(self.touched, self.bought)])

    @cached_property
    def touched_or_bought(self) -> IntArray:
        """Keys of all pairs of any behavior, ascending."""
        return union(self.touched, self.bought)

    @cached_property
    def known(self) -> CSR:
        """Items of every user in any behavior, ascending."""
        return self.by_user(self.touched_or_bought)

    def by_user(self, keys: IntArray) -> CSR:
        """Return ascending keys as items by user."""
        users = keys // self.num_items
        counts = np.bincount(users, minlength=self.num_users)
        return CSR(np.concatenate([[0], counts.cumsum()]), keys - users * self.num_items)

    def users_of(self, behavior: str) -> FloatArray:
        """Return the number of users of every item: float64 (I,)."""
        return self.relations[behavior].degree("item").numpy().astype(np.float64)

    def items_of(self, behavior: str) -> FloatArray:
        """Return the number of items of every user: float64 (U,)."""
        return self.relations[behavior].degree("user").numpy().astype(np.float64)

    @cached_property
    def toucher_counts(self) -> FloatArray:
        """Number of users of every item in any auxiliary behavior: float64 (I,)."""
        return np.bincount(self.touched % self.num_items, minlength=self.num_items).astype(np.float64)

    @cached_property
    def weights(self) -> Matrix:
        """The weighted sum of all behaviors, see `mbgraph.models.item_cosine`: sparse (U, I)."""
        return weighted_union(self.relations, self.options)

    @cached_property
    def retrievers(self) -> list[Retriever]:
        """What finds untouched items, each once."""
        return [RETRIEVERS.get(name)(self) for name in dict.fromkeys(self.options.retrievers)]

    def similar(self, source: str) -> Matrix:
        """Return similarities of items by what they come from: ``all``, ``target`` or a behavior; sparse (I, I)."""
        if source not in self._similar:
            name = self.setting.target if source == "target" else source
            weights = self.weights if source == "all" else matrix_of(self.relations[name])
            self._similar[source] = item_similarities(weights, self.options)
        return self._similar[source]
