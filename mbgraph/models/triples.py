"""One step's triples (user, positive item, negative items), and what of them does not depend on the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from mbgraph.errors import UsageError
from mbgraph.models.moving import moved
from mbgraph.nn.triples import Triple

__all__ = ["ANY", "TripleBatch"]

ANY = ""
"""Under this name stand triples whose positives are pairs of any behavior; no behavior can be called so."""

T = TypeVar("T", bound="TripleBatch")


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

    def places(self, behavior: str) -> Triple:
        """Return where a behavior's triples stand among their distinct nodes: (B_b,), (B_b,), (B_b, [n])."""
        kinds = zip(("user", "item", "negative"), self.rows(behavior), strict=True)
        users, positives, negatives = (torch.searchsorted(self.distinct(kind, behavior), rows) for kind, rows in kinds)
        return users, positives, negatives

    def rows(self, behavior: str, padding: tuple[int, int] | None = None) -> Triple:
        """Return users, positive items and negative items of a behavior's triples: (B_b,), (B_b,), (B_b,) or (B_b, n).

        Rows of users who lack the behavior are left out, or become rows of the ``padding`` nodes (user, item), as codes
        that number nodes from 1 have it.
        """
        if padding is None:
            made: Triple = self._made["present"][behavior]
            return made
        positives, negatives = self.positives[behavior], self.negatives[behavior]
        user, item = padding
        absent = positives < 0
        return (
            self.users.masked_fill(absent, user),
            positives.masked_fill(absent, item),
            negatives.masked_fill(absent if negatives.ndim == 1 else absent.unsqueeze(1), item),
        )
