r"""Experts whose scores are multiples of one product of embeddings, and a gate that mixes them.

.. math::
    s(u, i) = c\, \langle x_u, x_i \rangle \sum_k g_k(u, i)\, h_k(u)\, h_k(i), \qquad
    g = \operatorname{softmax}\big([x_u; x_i] W + b\big)

So no expert has embeddings of its own: one number per node says what it is, and a score costs one product, however many
there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mbgraph.nn.projection import along
from mbgraph.nn.propagation import Rows

__all__ = ["Experts"]

_SCORES = 2**24  # numbers that a block of scores may take per expert


class Experts(NamedTuple):
    r"""Everything that scores of pairs are made of, for all nodes.

    Attributes
    ----------
    rows : (Tensor (U, D), Tensor (I, D))
        Embeddings x.
    logits : (Tensor (U, K), Tensor (I, K))
        What either side adds to the logits of the gate g; the bias stands with the items.
    factors : (Tensor (U, K), Tensor (I, K))
        h.
    scale : float
        c.

    References
    ----------
    Meng et al., "Parallel Knowledge Enhancement based Framework for Multi-behavior Recommendation", CIKM 2023.
    """

    rows: Rows
    logits: Rows
    factors: Rows
    scale: float = 1.0

    @classmethod
    def of(
        cls, rows: Rows, others: Sequence[Rows], weight: Tensor, bias: Tensor, *, share: float, scale: float = 1.0
    ) -> Experts:
        """Return a behavior's experts: its own product, and those of other behaviors' parts along its embeddings.

        Parameters
        ----------
        rows : (Tensor (U, D), Tensor (I, D))
            The behavior's embeddings.
        others : sequence of the same
            Embeddings of K - 1 other behaviors, of which ``share`` times the projection on ``rows`` scores.
        weight, bias : Tensor (2 D, K), (K,)
            W and b of the gate; the first column is the behavior's own.
        share, scale : float
        """
        factors = tuple(
            torch.cat([torch.ones_like(own[:, :1]), *(share * along(other[side], own) for other in others)], 1)
            for side, own in enumerate(rows)
        )
        of_users, of_items = weight.chunk(2)  # 2 x (D, K)
        return cls(rows, (rows[0] @ of_users, rows[1] @ of_items + bias), (factors[0], factors[1]), scale)

    def margin(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the score of the positive minus that of the negative item: (B,), (B,), (B, [n]) -> (B, [n])."""
        own = self.rows[0][users]  # (B, D)
        made = []
        for items in (positives, negatives):
            many = (slice(None), *[None] * (items.ndim - 1))  # one user row per negative
            gate = torch.softmax(self.logits[0][users][many] + self.logits[1][items], -1)  # (B, [n,] K)
            mixed = (gate * self.factors[0][users][many] * self.factors[1][items]).sum(-1)
            made.append(mixed * torch.linalg.vecdot(own[many], self.rows[1][items]))
        positive = made[0] if made[0].ndim == made[1].ndim else made[0].unsqueeze(1)
        return self.scale * (positive - made[1])

    def scores(self, users: Tensor) -> Tensor:
        """Return the scores of all items, a block of users at a time: numbers (B,) -> (B, I)."""
        everyone, items = self.rows
        made = []
        for some in users.to(everyone.device).split(max(1, _SCORES // max(1, len(items)))):
            gate = torch.softmax(self.logits[0][some].T.unsqueeze(2) + self.logits[1].T.unsqueeze(1), 0)  # (K, B, I)
            mixed = sum(
                gate[k].mul_(self.factors[0][some, k].unsqueeze(1)).mul_(self.factors[1][:, k])
                for k in range(len(gate))
            )
            made.append(self.scale * mixed * (everyone[some] @ items.T))
        return torch.cat(made) if made else everyone.new_zeros(0, len(items))
