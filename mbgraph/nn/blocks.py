r"""Message passing over the pairs of a block of users, instead of over the whole graph.

A user of the block reads all of its items; an item reads those of its users who are in the block, and their sum stands
for the sum over all of its users:

.. math:: \sum_{u \in N_i} x_u \approx \frac{|N_i|}{|N_i \cap B|} \sum_{u \in N_i \cap B} x_u

Degree factors are those of the whole graph. A pass then costs the pairs of the block, and rows for all nodes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mbgraph.nn.relation import Relation

__all__ = ["Block", "in_block", "read_in_block", "reading"]


class Block:
    """A block of users, and what is left of each relation in it.

    Parameters
    ----------
    users : int64 tensor (B,)
        They may repeat.
    """

    def __init__(self, users: Tensor) -> None:
        self.users = torch.unique(users.cpu())
        self._made: dict[int, tuple[Relation, Relation]] = {}

    def of(self, relation: Relation) -> Relation:
        """Return a relation's pairs of the block's users; made once per relation."""
        if relation.handle not in self._made:
            known = self.users[self.users < relation.num_users]
            self._made[relation.handle] = (relation, relation.of_users(known))  # the first keeps its number alive
        return self._made[relation.handle][1]

    def holds(self, relation: Relation) -> bool:
        """Return whether a relation is one that `of` has made."""
        return any(relation is own for _, own in self._made.values())


_entered: list[Block] = []


@contextlib.contextmanager
def reading(block: Block | None) -> Iterator[None]:
    """Let `mbgraph.nn.propagate` and `propagate_each` read the block's pairs alone while entered; None: all pairs.

    A pass that was recorded meanwhile derives itself from the same pairs, whenever that is.
    """
    if block is None:
        yield
        return
    _entered.append(block)
    try:
        yield
    finally:
        _entered.pop()


def read_in_block(relations: Sequence[Relation]) -> Sequence[Relation]:
    """Return the relations as they are to be read: those of the block that was entered last, if any."""
    if torch.compiler.is_compiling() or not _entered:
        return relations
    return [_entered[-1].of(relation) for relation in relations]


def in_block() -> bool:
    """Return whether a block is entered: its relations serve one step, and nothing should be made ready for more."""
    return bool(_entered)
