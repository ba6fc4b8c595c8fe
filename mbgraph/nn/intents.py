"""Contrasts of intents with the positions that they join, and of intents of one kind with those of another (MISSL)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbgraph.derivatives import COLDEST, derive_plainly
from mbgraph.nn.hypergraph import Intents

__all__ = ["intent_contrasts", "log_sum_of_others"]


def intent_contrasts(
    positions: Tensor, intents: Intents, types: Tensor, temperature: float = 1.0, modulo: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return the contrast of positions with intents, and that of intents of behaviors with shared ones.

    Both are taken in both directions. A position picks the intent that it reads most, of either kind, among the intents
    of its group and the sequence's positions that share neither of its intents; an intent picks the positions that it
    joins among the sequence's positions and the other intents of its kind. Of two kinds, an intent picks those of the
    other with which it shares a position, among them and the others of its own. Cosines are divided by the temperature.

    Parameters
    ----------
    positions : Tensor (B, T, D)
    intents : Intents
    types : int64 tensor (B, T)
        -1 where there is no position.
    temperature : float
    modulo : int, optional
        A position's own intent is called by its number modulo this; by default by its place in the group. The published
        code takes the number of behaviors.

    Returns
    -------
    (Tensor (), Tensor ())
        Sums of cross-entropies: two means over positions and two over intents, and two means over intents. An intent
        that picks n counts n times, one that picks none counts 0.
    """
    present = types >= 0  # (B, T)
    rows, own, shared = _unit(positions), _unit(intents.own), _unit(intents.shared)
    count = shared.shape[1]
    among = rows @ rows.transpose(1, 2) / temperature  # (B, T, T)
    together = (intents.own_of.unsqueeze(2) == intents.own_of.unsqueeze(1)) | (
        intents.shared_of.unsqueeze(2) == intents.shared_of.unsqueeze(1)
    )
    among = torch.logsumexp(among.masked_fill(together | ~present.unsqueeze(1), _never(rows)), 2)  # (B, T)
    across, within = rows.new_zeros(()), rows.new_zeros(())
    others = []
    for kind, number, label in (
        (own, intents.own_of, intents.own_of % (modulo or count)),
        (shared, intents.shared_of, intents.shared_of),
    ):
        others.append(log_sum_of_others(kind, temperature))  # (B, N or K N)
        scores = rows @ kind.transpose(1, 2) / temperature  # (B, T, N or K N)
        group = scores
        if kind is own:
            of_type = types.clamp_min(0)[..., None, None].expand(-1, -1, -1, count)
            group = scores.unflatten(2, (-1, count)).gather(2, of_type).squeeze(2)  # (B, T, N)
        lost = torch.logaddexp(torch.logsumexp(group, 2), among) - group.gather(2, label.unsqueeze(2)).squeeze(2)
        across = across + (lost * present).sum() / present.sum().clamp_min(1)
        joined = torch.logsumexp(scores.masked_fill(~present.unsqueeze(2), _never(rows)), 1)  # (B, N or K N)
        total = torch.logaddexp(joined, others[-1]).gather(1, number)  # (B, T)
        lost = total - scores.gather(2, number.unsqueeze(2)).squeeze(2)
        across = across + (lost * present).sum() / joined.numel()
    scores = own @ shared.transpose(1, 2) / temperature  # (B, K N, N)
    wanted = _met(intents, present, scores)
    picked = torch.dot(scores.flatten(), wanted.flatten())
    for side, other in zip((2, 1), others, strict=True):
        total = torch.logaddexp(torch.logsumexp(scores, side), other)  # (B, K N or N)
        within = within + ((total * wanted.sum(side)).sum() - picked) / total.numel()
    return across, within


def log_sum_of_others(rows: Tensor, temperature: float) -> Tensor:
    r"""Return the logarithm of what every row's similarities to the others of its group sum up to.

    .. math:: \log \sum_{m \ne n} e^{x_n \cdot x_m / \tau}

    Parameters
    ----------
    rows : Tensor (B, N, D)
        Of length 1, or 0.
    temperature : float

    Returns
    -------
    Tensor (B, N)
        Minus infinity where there is no other.
    """
    if temperature <= COLDEST:
        return _plain_log_sum(temperature, rows)[0]
    made: Tensor = _LogSumOfOthers.apply(rows, temperature)
    return made


def _plain_log_sum(temperature: float, rows: Tensor) -> tuple[Tensor]:
    itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
    similarity = (rows @ rows.transpose(1, 2) / temperature).masked_fill(itself, float("-inf"))  # (B, N, N)
    return (torch.logsumexp(similarity, 2),)


class _LogSumOfOthers(torch.autograd.Function):
    """One exponential of each similarity serves the value and the gradient.

    Cosines are at most 1, so that ``1 / temperature`` stands for the maximum of each row; the matrix is then symmetric,
    and one product with it has both halves of the gradient.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, temperature: float) -> Tensor:
        bound = 1 / temperature
        weights = torch.bmm(rows * bound, rows.transpose(1, 2)).sub_(bound).exp_()  # (B, N, N)
        weights.diagonal(dim1=1, dim2=2).zero_()
        total = weights.sum(2)  # (B, N)
        ctx.save_for_backward(rows, weights, total)
        ctx.temperature = temperature
        return total.log() + bound

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            return *derive_plainly(partial(_plain_log_sum, ctx.temperature), (rows,), gradients), None
        share = gradients[0] / ctx.temperature / total  # (B, N)
        share = share.masked_fill(total == 0, 0.0).unsqueeze(2)
        one, two = torch.bmm(weights, torch.cat([rows, rows * share], 2)).chunk(2, 2)  # 2 x (B, N, D)
        return torch.addcmul(two, one, share), None


def _met(intents: Intents, present: Tensor, scores: Tensor) -> Tensor:
    """Return 1 where an own and a shared intent are those of one position: (B, T), (B, K N, N) -> (B, K N, N)."""
    place = (intents.own_of * scores.shape[2] + intents.shared_of).masked_fill(~present, scores[0].numel())  # (B, T)
    met = scores.new_zeros(len(scores), scores[0].numel() + 1)  # one more, for positions that are none
    return met.scatter_(1, place, 1.0)[:, :-1].reshape(scores.shape)


def _never(rows: Tensor) -> float:
    return torch.finfo(rows.dtype).min / 2


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)
