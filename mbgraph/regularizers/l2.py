r"""Euclidean norms, on one of the things that codes of the field call "the L2 term".

.. math::
    \text{rows of triples:}\quad
    \sum_b \frac{1}{2 B_b} \sum_{r} \lVert u_r \rVert^2 + \lVert i_r \rVert^2 + \lVert j_r \rVert^2,
    \qquad \text{tables:}\quad \lVert \Theta \rVert_2^2,
    \qquad \text{power 1:}\quad \sum_X \lVert X \rVert_2

The last, norms that are not squared, is what several public codes compute: of whole tables, or of a batch's block of
rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mbgraph.regularizers.base import REGULARIZERS, Regularizer
from mbgraph.regularizers.outputs import StepOutputs

__all__ = ["L2", "triple_norm"]


def triple_norm(
    user: Tensor, positive: Tensor, negative: Tensor | None, *, power: int = 2, weights: Tensor | None = None
) -> Tensor:
    """Return the norm of a batch's triples, divided by its rows.

    Half the mean squared norm for ``power=2``; for ``power=1`` the sum of the Euclidean norms of the blocks as a whole,
    divided by the rows. No rows have no norm.

    Shapes: (B, D), (B, D), (B, D) or (B, n, D) or None, weights (B,) -> ().
    """
    blocks = [user, positive, *(() if negative is None else (negative,))]
    if len(user) == 0:
        return user.sum() * 0.0
    if weights is not None:
        scale = weights.sqrt()
        blocks = [block * scale.view(-1, *[1] * (block.ndim - 1)) for block in blocks]
    if power == 1:
        return _sum(torch.linalg.vector_norm(block) for block in blocks) / len(user)
    return _sum(_SquaredNorm.apply(block) for block in blocks) / (2 * len(user))


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
    """Keep embeddings small."""

    name: ClassVar[str] = "l2"

    on: Literal["propagated", "ego", "tables", "parameters"] = "propagated"
    """Propagated embeddings of the batch's triples, summed over behaviors (published RMBRec); rows of the embedding
    tables of the target's triples (LightGCN); the whole tables (RMBRec Eq. 10); or the model's other parameters."""
    power: Literal[1, 2] = 2
    """2: squared norms; 1: norms as they are, of each table or each block of rows as a whole."""
    negatives: bool = True
    """Whether the negative items of triples count."""
    divide_by: Literal["nothing", "rows", "items", "batch"] = "nothing"
    """For tables and parameters: their norms are divided by nothing, by the rows of each, all by the rows of the item
    table, or all by the target triples of the batch (squared norms by twice as many), as norms of rows are."""

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the sum of norms, a 0-dimensional tensor."""
        if self.on == "propagated":
            return _sum(self._of(outputs, name, rows) for name, rows in outputs.need("triples", self.name).items())
        if self.on == "ego":
            ego = outputs.need("ego", self.name)
            return _sum(self._of(outputs, outputs.target, ego[name]) for name in (outputs.target,) if name in ego)
        entry = outputs.need(self.on, self.name)
        values = list(entry.values() if self.on == "parameters" else entry)
        return _sum(self._whole(value) * self._share(value, outputs) for value in values)

    def _of(self, outputs: StepOutputs, behavior: str, rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        user, positive, negative = rows
        kept = negative if self.negatives else None
        return triple_norm(user, positive, kept, power=self.power, weights=outputs.row_weights.get(behavior))

    def _share(self, value: Tensor, outputs: StepOutputs) -> float:
        """Return 1 over what the norm of a table or parameter is divided by; 0 where a batch has no triples."""
        if self.divide_by == "batch":
            rows = outputs.need("ego", self.name).get(outputs.target, ((),))[0]
            return 1 / (self.power * len(rows)) if len(rows) else 0.0
        if self.divide_by == "nothing":
            return 1.0
        return 1 / len(value if self.divide_by == "rows" else outputs.need("tables", self.name)[-1])

    def _whole(self, table: Tensor) -> Tensor:
        return table.square().sum() if self.power == 2 else torch.linalg.vector_norm(table)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    listed = list(terms)
    return torch.stack(listed).sum() if listed else torch.zeros(())
