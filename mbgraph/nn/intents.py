"""Contrasts of intents with the positions that they join, and of intents of one kind with those of another (MISSL)."""

from __future__ import annotations

import torch
from torch import Tensor

from mbgraph.nn.hypergraph import Intents

__all__ = ["across_kinds", "within_kinds"]


def across_kinds(
    positions: Tensor, intents: Intents, types: Tensor, temperature: float = 1.0, modulo: int | None = None
) -> Tensor:
    r"""Return the contrast of positions with the intents that they read most, in both directions, for both kinds.

    A position picks its intent among the intents of its group and the sequence's positions that share neither of its
    intents; an intent picks the positions that it joins among the sequence's positions and the other intents of its
    kind. Cosines are divided by the temperature.

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
    Tensor ()
        The sum of four cross-entropies: two means over positions, two over intents. An intent that joins n positions
        counts n times, one without any counts 0.
    """
    present = types >= 0  # (B, T)
    rows, own, shared = _unit(positions), _unit(intents.own), _unit(intents.shared)
    count = shared.shape[1]
    among = rows @ rows.transpose(1, 2) / temperature  # (B, T, T)
    together = (intents.own_of.unsqueeze(2) == intents.own_of.unsqueeze(1)) | (
        intents.shared_of.unsqueeze(2) == intents.shared_of.unsqueeze(1)
    )
    among = among.masked_fill(together | ~present.unsqueeze(1), _never(rows))
    total = rows.new_zeros(())
    for kind, number, label in (
        (own, intents.own_of, intents.own_of % (modulo or count)),
        (shared, intents.shared_of, intents.shared_of),
    ):
        scores = rows @ kind.transpose(1, 2) / temperature  # (B, T, N or K N)
        group = scores
        if kind is own:
            of_type = types.clamp_min(0)[..., None, None].expand(-1, -1, -1, count)
            group = scores.unflatten(2, (-1, count)).gather(2, of_type).squeeze(2)  # (B, T, N)
        chosen = torch.log_softmax(torch.cat([group, among], 2), 2).gather(2, label.unsqueeze(2)).squeeze(2)
        total = total - (chosen * present).sum() / present.sum().clamp_min(1)
        members = torch.nn.functional.one_hot(number, kind.shape[1]) * present.unsqueeze(2)  # (B, T, N or K N)
        joined = scores.masked_fill(~present.unsqueeze(2), _never(rows)).transpose(1, 2)
        total = total + _picked(joined, members.transpose(1, 2), _others(kind, temperature))
    return total


def within_kinds(intents: Intents, types: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the contrast of intents of behaviors with shared intents, in both directions.

    An intent picks those of the other kind with which it shares a position, among them and the others of its own kind.

    Shapes: `Intents`, (B, T) -> (), the sum of two means over intents.
    """
    own, shared = _unit(intents.own), _unit(intents.shared)
    one_hot = torch.nn.functional.one_hot
    present = (types >= 0).unsqueeze(2)
    of_own, of_shared = one_hot(intents.own_of, own.shape[1]) * present, one_hot(intents.shared_of, shared.shape[1])
    both = (of_own.to(own).transpose(1, 2) @ of_shared.to(own)) > 0  # (B, K N, N)
    scores = own @ shared.transpose(1, 2) / temperature
    return _picked(scores, both, _others(own, temperature)) + _picked(
        scores.transpose(1, 2), both.transpose(1, 2), _others(shared, temperature)
    )


def _picked(scores: Tensor, wanted: Tensor, others: Tensor) -> Tensor:
    """Return the mean over rows of the cross-entropies of all that is wanted: (B, N, M), (B, N, M), (B, N, N) -> ()."""
    total = torch.logsumexp(torch.cat([scores, others], 2), 2)  # (B, N)
    wanted = wanted.to(scores)
    lost = torch.sum(total * wanted.sum(2)) - torch.sum(scores * wanted)
    return lost / (scores.shape[0] * scores.shape[1])


def _others(rows: Tensor, temperature: float) -> Tensor:
    """Return the cosines of rows with each other, not with themselves: (B, N, D) -> (B, N, N)."""
    itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
    return (rows @ rows.transpose(1, 2) / temperature).masked_fill(itself, _never(rows))


def _never(rows: Tensor) -> float:
    return torch.finfo(rows.dtype).min / 2


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)
