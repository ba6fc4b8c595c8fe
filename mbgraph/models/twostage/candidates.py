"""The two lists of every user: items touched and not bought, and untouched ones that retrievers found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mbgraph.models.twostage.facts import Facts
from mbgraph.models.twostage.retrievers import retrieved_by
from mbgraph.typing import IntArray

__all__ = ["LISTS", "Candidates", "candidates_of", "seen_of"]

LISTS = ("seen", "retrieved")


@dataclass(frozen=True)
class Candidates:
    """Pairs of some users, in the order of users, of each the touched items first.

    Attributes
    ----------
    users, items : int64 array (P,)
        Row numbers; users ascend.
    seen : bool array (P,)
        Whether the user touched the item.
    """

    users: IntArray
    items: IntArray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, selection: Any) -> Candidates:
        return Candidates(self.users[selection], self.items[selection], self.seen[selection])

    def on(self, name: str) -> np.ndarray:
        """Return which pairs stand on a list: bool (P,)."""
        return self.seen if name == "seen" else ~self.seen

    @staticmethod
    def joined(parts: list[Candidates]) -> Candidates:
        """Return the pairs of several blocks of users, one after the other."""
        return Candidates(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items", "seen"))
        )


def seen_of(facts: Facts, users: IntArray) -> Candidates:
    """Return the seen lists of some users, ascending: (B,) -> P pairs."""
    where, items = facts.seen.gather(users)
    return Candidates(users[where], items, np.ones(len(items), bool))


def candidates_of(facts: Facts, users: IntArray) -> Candidates:
    """Return the lists of some users, ascending: (B,) -> P pairs."""
    where, items = facts.seen.gather(users)
    place, near = retrieved_by(facts.retrievers, users, facts.options.retrieved)
    owners = np.concatenate([where, place])
    items = np.concatenate([items, near])
    seen = np.arange(len(items)) < len(where)
    order = np.argsort(owners, kind="stable")
    return Candidates(users[owners[order]], items[order], seen[order])
