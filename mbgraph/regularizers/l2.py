r"""Squared Euclidean norms, on one of three things that codes of the field call "the L2 term".

.. math::
    \text{propagated, ego:}\quad
    \sum_b \frac{1}{2 B_b} \sum_{r} \lVert u_r \rVert^2 + \lVert i_r \rVert^2 + \lVert j_r \rVert^2,
    \qquad \text{tables:}\quad \lVert \Theta \rVert_2^2
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers.base import REGULARIZERS, Regularizer, Schedule, StepOutputs

__all__ = ["L2", "triple_norm"]


def triple_norm(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return half the mean squared norm of triples: three (B, D) -> ()."""
    if len(user) == 0:
        return user.sum() * 0.0
    return _sum(_SquaredNorm.apply(rows) for rows in (user, positive, negative)) / (2 * len(user))


class _SquaredNorm(torch.autograd.Function):
    """Sum of squares whose derivative is one product; torch's own powers take four and as many temporaries."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        flat = rows.reshape(-1)
        return torch.dot(flat, flat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        return rows * (2 * gradients[0])


@REGULARIZERS.register("l2")
class L2(Regularizer):
    """Keep embeddings small.

    Parameters
    ----------
    weight, schedule
        See `Regularizer`.
    on : {"propagated", "ego", "tables"}
        Propagated embeddings of the batch's triples, summed over behaviors (published RMBRec); rows of the embedding
        tables of the target's triples (LightGCN); or the whole tables (RMBRec Eq. 10).
    """

    name = "l2"

    def __init__(self, weight: float = 1e-3, on: str = "propagated", schedule: Schedule | None = None) -> None:
        super().__init__(weight, schedule)
        if on not in ("propagated", "ego", "tables"):
            raise UnknownNameError("subject of l2", on, ("propagated", "ego", "tables"))
        self.on = on

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the sum of squared norms, a 0-dimensional tensor."""
        if self.on == "propagated":
            return _sum(triple_norm(*rows) for rows in outputs.need("triples", self.name).values())
        if self.on == "ego":
            ego = outputs.need("ego", self.name)
            return triple_norm(*ego[outputs.target])
        if not outputs.tables:
            raise UsageError("l2 on tables needs embedding tables, which this model does not give")
        return _sum(table.square().sum() for table in outputs.tables)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
