"""Where untouched items come from, as plug-ins: each names the best few for every user."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mbgraph.keys import contains
from mbgraph.models.twostage.walks import nearest
from mbgraph.registry import Registry
from mbgraph.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from mbgraph.models.twostage.facts import Facts

__all__ = ["RETRIEVERS", "DotRetriever", "ItemCosineRetriever", "PopularityRetriever", "Retriever", "retrieved_by"]

RETRIEVERS: Registry[type[Retriever]] = Registry("retriever", "mbgraph.retrievers")

_CELLS = 2**22  # scores that are compared at a time


class Retriever:
    """Base class of all retrievers. A subclass registers with ``@RETRIEVERS.register(name)``.

    Parameters
    ----------
    facts : Facts
        Of the train pairs; they hold no label.
    """

    name: ClassVar[str]

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @abstractmethod
    def retrieve(self, users: IntArray, count: int) -> IntArray:
        """Return items that users have not touched, best first: (B,) -> (B, count), -1 where there are fewer.

        A user's items must not depend on who else is asked for.
        """


@RETRIEVERS.register("item-cosine")
class ItemCosineRetriever(Retriever):
    """What is most like the items that a user touched, see `mbgraph.models.ItemCosine`; purchases decide ties."""

    name = "item-cosine"

    def retrieve(self, users: IntArray, count: int) -> IntArray:
        """See `Retriever.retrieve`."""
        facts = self.facts
        popularity = facts.users_of(facts.setting.target)
        return nearest(facts.weights, facts.similar("all"), facts.known, popularity, users, count)


@RETRIEVERS.register("popularity")
class PopularityRetriever(Retriever):
    """What most people bought."""

    name = "popularity"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._order = np.argsort(-facts.users_of(facts.setting.target), kind="stable")  # the lower item first

    def retrieve(self, users: IntArray, count: int) -> IntArray:
        """See `Retriever.retrieve`."""
        known = self.facts.known.degrees()[users]
        found = np.full((len(users), count), -1)
        # among so many a user has at least `count` unknown ones
        first = self._order[: count + int(known.max(initial=0))]
        rows = max(1, _CELLS // max(1, len(first)))
        for start in range(0, len(users), rows):
            part = users[start : start + rows]
            keys = part[:, None] * np.int64(self.facts.num_items) + first  # (b, F)
            new = ~contains(keys.ravel(), self.facts.touched_or_bought).reshape(keys.shape)
            place = new.cumsum(1) - 1
            row, column = np.nonzero(new & (place < count))
            found[start + row, place[row, column]] = first[column]
        return found


@RETRIEVERS.register("dot")
class DotRetriever(Retriever):
    """What has the largest dot product with the user in the first of ``runs``."""

    name = "dot"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        users, items = facts.runs[facts.options.runs[0]]
        # sums of float64 that are rounded afterwards do not show how many rows were multiplied together
        self._users, self._items = users, items.astype(np.float64)

    def retrieve(self, users: IntArray, count: int) -> IntArray:
        """See `Retriever.retrieve`."""
        found = np.full((len(users), count), -1)
        rows = max(1, _CELLS // max(1, self.facts.num_items))
        for start in range(0, len(users), rows):
            part = users[start : start + rows]
            scores = (self._users[part].astype(np.float64) @ self._items.T).astype(np.float32)  # (b, I)
            row, items = self.facts.known.gather(part)
            scores[row, items] = -np.inf
            found[start : start + rows, : min(count, scores.shape[1])] = _largest(scores, count)
        return found


def _largest(scores: FloatArray, count: int) -> IntArray:
    """Return the columns of each row's largest finite numbers, among equal ones the lower first: (b, I) -> (b, k)."""
    count = min(count, scores.shape[1])
    if not count:
        return np.empty((len(scores), 0), np.int64)
    least = np.partition(scores, -count, axis=1)[:, -count]  # (b,)
    row, column = np.nonzero((scores >= least[:, None]) & np.isfinite(scores))
    order = np.lexsort((column, -scores[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < count
    found = np.full((len(scores), count), -1)
    found[row[kept], place[kept]] = column[kept]
    return found


def retrieved_by(retrievers: list[Retriever], users: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Return the items that any of some retrievers names, each once: places in ``users`` (P,), ascending, items (P,).

    Of each user those of the first retriever come first, best first.
    """
    found = np.concatenate([each.retrieve(users, count) for each in retrievers], 1) if retrievers else None
    if found is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    place, column = np.nonzero(found >= 0)
    items = found[place, column]
    if len(retrievers) > 1:
        first = np.unique(np.stack([place, items]), axis=1, return_index=True)[1]
        kept = np.sort(first)
        place, items = place[kept], items[kept]
    return place, items
