"""Triples (user, positive item, negative items): their rows of embeddings, and how far the positive is ahead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Triple", "negative_columns", "part_triple", "triple_at", "triple_margin"]

Triple = tuple[Tensor, Tensor, Tensor]
"""Users, positive items and negative ones: numbers (B,), (B,), (B,) or (B, n), or rows (B, D), (B, D), (B, [n,] D)."""


def triple_at(tables: Sequence[Tensor], numbers: Triple) -> Triple:
    """Return the rows of triples, picked from a table of users and one of items: (B,), .. -> (B, D), .."""
    users, positives, negatives = numbers
    return tables[0][users], tables[1][positives], tables[1][negatives]


def part_triple(users: Tensor, items: Tensor, negatives: Tensor) -> Triple:
    """Return rows that were asked for in one go, positive items before negative ones, as triples.

    One gather per table does: each costs a gradient of the table's size.

    Shapes: (B, D), (B (1 + n), D), numbers of the negatives (B,) or (B, n) -> (B, D), (B, D), (B, [n,] D).
    """
    positive, negative = items.split([len(users), negatives.numel()])
    return users, positive, negative.view(*negatives.shape, items.shape[-1])


def triple_margin(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the score of the positive item minus the score of the negative one, as inner products.

    Shapes: (B, D), (B, D), (B, D) -> (B,); with n negatives (B, n, D) -> (B, n). The items are subtracted first, so
    that one product is derived and not two.
    """
    if negatives.ndim == 3:
        return torch.linalg.vecdot(users.unsqueeze(1), positives.unsqueeze(1) - negatives)
    return torch.linalg.vecdot(users, positives - negatives)


def negative_columns(negatives: Tensor) -> Tensor:
    """Return negatives with a column each, one where there is one per row: (B,) or (B, n) -> (B, n)."""
    return negatives if negatives.ndim == 2 else negatives.unsqueeze(1)
