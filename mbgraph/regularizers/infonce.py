r"""InfoNCE between a user's target embedding and the same user's auxiliary embedding (RMBRec's RRM, Eq. 3-4).

With :math:`S_{uv} = \cos(a_u, o_v) / \tau` (cross) the term of one direction is

.. math:: -\frac1N \sum_u \Big[ S_{uu} - \log \sum_v \exp S_{uv} \Big]

The paper prints another form: negatives are other users of the *same* behavior (intra) and the positive stands outside
the denominator, which leaves the loss unbounded below. Both are choices here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers.base import REGULARIZERS, Regularizer, Schedule, StepOutputs

__all__ = ["InfoNCE", "infonce"]

DIRECTIONS = ("both", "anchor", "other")
NEGATIVES = ("cross", "intra")
REDUCTIONS = ("mean", "sum")
_COLDEST = 0.025  # exp(-2 / temperature) is still a float32 number, so no row needs its maximum subtracted


def infonce(
    anchor: Tensor,
    other: Tensor,
    *,
    temperature: float = 0.07,
    direction: str = "both",
    negatives: str = "cross",
    include_positive: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Contrast row ``u`` of ``anchor`` with row ``u`` of ``other`` against the rows of other users.

    Parameters
    ----------
    anchor, other : Tensor (N, D)
        Embeddings of the same N users; normalised here.
    temperature : float
        Divides the cosine.
    direction : {"both", "anchor", "other"}
        Whose rows pick among the other side's rows; ``"both"`` is the mean of the two.
    negatives : {"cross", "intra"}
        Candidates of a row: the other side's rows, or the rows of its own side.
    include_positive : bool
        Whether the positive stands in the denominator.
    reduction : {"mean", "sum"}
        Over the N users.

    Returns
    -------
    Tensor ()
        Zero for a single user without the positive in the denominator (there is nothing to contrast).
    """
    for kind, value, choices in (
        ("direction", direction, DIRECTIONS),
        ("kind of negatives", negatives, NEGATIVES),
        ("reduction", reduction, REDUCTIONS),
    ):
        if value not in choices:
            raise UnknownNameError(kind, value, choices)
    if not temperature > 0:
        raise UsageError(f"temperature must be positive, got {temperature}")
    a = torch.nn.functional.normalize(anchor, dim=1)  # (N, D)
    o = torch.nn.functional.normalize(other, dim=1)  # (N, D)
    if len(a) == 0 or (len(a) == 1 and not include_positive):
        return anchor.sum() * 0.0
    if direction == "both" and negatives == "cross" and include_positive and temperature > _COLDEST:
        loss = _BothWays.apply(a, o, temperature)  # (N,)
        return loss.mean() if reduction == "mean" else loss.sum()
    if negatives == "cross":
        similarity = a @ o.T / temperature  # (N, N)
        positive = similarity.diagonal()
        terms = {
            "anchor": lambda: _one_way(similarity, positive, include_positive),
            "other": lambda: _one_way(similarity.T, positive, include_positive),
        }
    else:
        positive = torch.linalg.vecdot(a, o) / temperature  # (N,)
        terms = {
            "anchor": lambda: _one_way_intra(a, positive, temperature, include_positive),
            "other": lambda: _one_way_intra(o, positive, temperature, include_positive),
        }
    loss = (terms["anchor"]() + terms["other"]()) / 2 if direction == "both" else terms[direction]()
    return loss.mean() if reduction == "mean" else loss.sum()


class _BothWays(torch.autograd.Function):
    """The published form by hand: both directions share one exponential of the (N, N) matrix.

    Cosines are at most 1, so ``1 / temperature`` bounds every entry and stands for the maximum of each row.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, o: Tensor, temperature: float) -> Tensor:
        bound = 1 / temperature
        weights = torch.mm(a, o.T)  # (N, N)
        own = weights.diagonal() * bound  # (N,)
        weights.sub_(1).mul_(bound).exp_()
        rows, columns = weights.sum(1), weights.sum(0)  # (N,), (N,)
        ctx.save_for_backward(a, o, weights, rows, columns)
        ctx.temperature = temperature
        return (rows.log() + columns.log()) / 2 + bound - own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, o, weights, rows, columns = ctx.saved_tensors
        (gradient,) = gradients  # (N,)
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            similarity = a @ o.T / ctx.temperature
            positive = similarity.diagonal()
            loss = (_one_way(similarity, positive, True) + _one_way(similarity.T, positive, True)) / 2
            return (*torch.autograd.grad(loss, (a, o), gradient, create_graph=True), None)
        half = gradient / (2 * ctx.temperature)
        inner = torch.add((half / rows).unsqueeze(1), half / columns).mul_(weights)  # (N, N)
        inner.diagonal().sub_(2 * half)
        return inner @ o, inner.T @ a, None


def _one_way(similarity: Tensor, positive: Tensor, include_positive: bool) -> Tensor:
    if not include_positive:
        same = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(same, float("-inf"))
    return torch.logsumexp(similarity, dim=1) - positive  # (N,)


def _one_way_intra(rows: Tensor, positive: Tensor, temperature: float, include_positive: bool) -> Tensor:
    similarity = rows @ rows.T / temperature  # (N, N)
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similarity = similarity.masked_fill(same, float("-inf"))  # a user is not a negative of its own
    if include_positive:
        similarity = torch.cat([similarity, positive.unsqueeze(1)], dim=1)  # (N, N + 1)
    return torch.logsumexp(similarity, dim=1) - positive  # (N,)


@REGULARIZERS.register("infonce")
class InfoNCE(Regularizer):
    """Align every auxiliary behavior's user embeddings with the target's.

    Parameters
    ----------
    weight, schedule
        See `Regularizer`.
    temperature, direction, negatives, include_positive, reduction
        See `infonce`. The anchor side is the target behavior.
    reduce_behaviors : {"sum", "mean"}
        Over the auxiliary behaviors: the published code sums, Eq. 4 averages.
    supported_only : bool
        Contrast only users who have an edge in the auxiliary behavior. Without one the auxiliary embedding is the
        layer-0 row, which says nothing about the behavior.
    """

    name = "infonce"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.07,
        direction: str = "both",
        negatives: str = "cross",
        include_positive: bool = True,
        reduction: str = "mean",
        reduce_behaviors: str = "sum",
        supported_only: bool = False,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        if reduce_behaviors not in REDUCTIONS:
            raise UnknownNameError("reduction over behaviors", reduce_behaviors, REDUCTIONS)
        self.temperature, self.direction, self.negatives = temperature, direction, negatives
        self.include_positive, self.reduction = include_positive, reduction
        self.reduce_behaviors, self.supported_only = reduce_behaviors, supported_only
        probe = torch.eye(2)
        self._term(probe, probe)  # a wrong option speaks up here, not in the first step

    def _term(self, anchor: Tensor, other: Tensor) -> Tensor:
        return infonce(
            anchor,
            other,
            temperature=self.temperature,
            direction=self.direction,
            negatives=self.negatives,
            include_positive=self.include_positive,
            reduction=self.reduction,
        )

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the sum (or mean) over auxiliary behaviors."""
        users = outputs.need("users", self.name)
        auxiliary = [behavior for behavior in users if behavior != outputs.target]
        if not auxiliary:
            raise UsageError("infonce needs an auxiliary behavior beside the target", "leave the regularizer out")
        terms = []
        for behavior in auxiliary:
            anchor, other = users[outputs.target], users[behavior]
            mask = outputs.user_mask.get(behavior) if self.supported_only else None
            if mask is not None:
                anchor, other = anchor[mask], other[mask]
            terms.append(self._term(anchor, other))
        total = torch.stack(terms).sum()
        return total if self.reduce_behaviors == "sum" else total / len(terms)
