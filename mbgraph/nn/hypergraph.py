r"""A transformer over a hypergraph of intents: every intent joins the positions of a sequence that belong to it.

Intents come in groups, one per behavior and one for all of them. A layer lets intents read positions, mix within their
group, and positions read intents; the weights that remain after a cut are the hypergraph.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mbgraph.nn.dense import normal
from mbgraph.nn.typed import Drop, TypedFeedForward, TypedLinear, attention, identity, top

__all__ = ["IntentEncoder", "Intents", "joined_positions"]

_SHORT = 6  # intents join all positions of behaviors that are met less often


def joined_positions(counts: Tensor, length: int) -> Tensor:
    r"""Return how many positions an intent joins, of a behavior that is met c times: any shape -> the same.

    .. math:: c \text{ for } c < 6, \qquad
        \min\Big(6 + \Big\lfloor 6\, \frac{\ln (c / 6)}{\ln (T / 6)} \Big\rfloor, 11\Big) \text{ otherwise}
    """
    whole = max(math.log(length / _SHORT), 1e-6) if length > _SHORT else 1.0
    share = torch.log(counts.clamp_min(_SHORT) / _SHORT) / whole
    grown = (_SHORT + torch.floor(_SHORT * share)).clamp_max(2 * _SHORT - 1).to(counts.dtype)
    return torch.where(counts < _SHORT, counts, grown)


class Intents(NamedTuple):
    """What `IntentEncoder` returns.

    Attributes
    ----------
    positions : Tensor (B, T, D)
    own, shared : Tensor (B, K N, D), (B, N, D)
        Intents of the behaviors, group by group, and of all of them.
    own_of, shared_of : int64 tensor (B, T)
        The intent of either kind that a position reads most; arbitrary where there is no position.
    """

    positions: Tensor
    own: Tensor
    shared: Tensor
    own_of: Tensor
    shared_of: Tensor


class IntentEncoder(nn.Module):
    """The hypergraph transformer of MISSL: one layer, applied several times, and a weighted sum of what it gave.

    Parameters
    ----------
    types, width, heads : int
        Behaviors K; width of rows; attention heads.
    intents : int
        Intents N of each group; there are K + 1 groups.
    num_layers : int
    kept : float
        Share of a group's intents that a position reads.
    length : int
        Longest sequence T.
    shifted : bool
        Feed intents forward by the weights of the group before theirs, the first group by none (published MISSL).
    generator : torch.Generator

    References
    ----------
    Wu et al., "Multi-Interest Self-Supervised Learning for Multi-Behavior Sequential Recommendation", ICDE 2024.
    """

    def __init__(
        self,
        types: int,
        width: int,
        heads: int,
        *,
        intents: int,
        num_layers: int,
        kept: float,
        length: int,
        generator: torch.Generator,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        self.types, self.heads, self.intents, self.num_layers = types, heads, intents, num_layers
        self.kept, self.length, self.shifted = int(intents * kept), length, shifted
        groups = types + 1
        self.prototypes = normal(generator, groups * intents, width)
        typed = partial(TypedLinear, inputs=width, outputs=width, generator=generator)
        self.ask, self.answer_key, self.answer_value = typed(groups), typed(groups), typed(groups)  # of intents
        self.key, self.value, self.query = typed(types), typed(types), typed(types)  # of positions, by behavior
        self.key_all, self.value_all = typed(1), typed(1)  # of positions, for the shared intents
        self.mixes = nn.ParameterList([normal(generator, groups, intents, intents) for _ in range(2)])
        self.feed_intents = TypedFeedForward(types if shifted else groups, width, generator)
        self.feed_positions = TypedFeedForward(types, width, generator)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(4)])
        self.layer_weights = nn.ParameterList([normal(generator, num_layers + 1, width) for _ in range(2)])

    def forward(self, positions: Tensor, types: Tensor, drop: Drop = identity) -> Intents:
        """Return positions and intents of sequences.

        Parameters
        ----------
        positions : Tensor (B, T, D)
        types : int64 tensor (B, T)
            Behavior of each position, -1 where there is none.
        drop : callable
            Dropout.
        """
        batch, width = len(positions), positions.shape[2]
        intents = drop(self.prototypes).expand(batch, -1, -1)  # (B, G N, D)
        layers = [(positions, intents)]
        groups = torch.arange(self.types, device=types.device)
        of_group = types.unsqueeze(1) == groups.unsqueeze(1)  # (B, K, T)
        met = torch.cat([of_group, (types >= 0).unsqueeze(1)], 1)  # (B, G, T)
        counts = joined_positions(met.sum(2), self.length).repeat_interleave(self.intents, 1)  # (B, G N)
        mask = met.repeat_interleave(self.intents, 1)  # (B, G N, T)
        own_of = shared_of = types
        for _ in range(self.num_layers):
            intents = self._intents(
                positions, intents.reshape(batch, -1, self.intents, width), types, mask, counts, drop
            )
            positions, own_of, shared_of = self._positions(positions, intents, types, mask.transpose(1, 2), drop)
            layers.append((positions, intents))
        mixed = []
        for rows, weights in zip(zip(*layers, strict=True), self.layer_weights, strict=True):
            stacked = torch.stack(rows, 1)  # (B, L + 1, ., D)
            share = torch.softmax(torch.einsum("bknd,kd->bkn", stacked, weights), 1)
            mixed.append(torch.einsum("bkn,bknd->bnd", share, stacked))
        own, shared = mixed[1].split([self.types * self.intents, self.intents], 1)
        return Intents(mixed[0], own, shared, own_of, shared_of)

    def _intents(
        self, positions: Tensor, intents: Tensor, types: Tensor, mask: Tensor, counts: Tensor, drop: Drop
    ) -> Tensor:
        """Return intents after they read the positions of their behavior and mixed: (B, G, N, D) -> (B, G N, D)."""
        asked = self.ask(intents).flatten(1, 2)  # (B, G N, D)
        sizes = [self.types * self.intents, self.intents]
        read = []
        everyone = torch.zeros_like(types)
        answers = (
            (self.key(positions, types), self.value(positions, types)),
            (self.key_all(positions, everyone), self.value_all(positions, everyone)),
        )
        parts = (part.split(sizes, 1) for part in (asked, mask, counts))
        for (query, allowed, count), (key, value) in zip(zip(*parts, strict=True), answers, strict=True):
            keep = partial(top, count=count.unsqueeze(1))
            read.append(attention(query, key, value, allowed, self.heads, drop, keep)[0])
        rows = self.norms[0](intents.flatten(1, 2) + drop(torch.cat(read, 1)))  # (B, G N, D)
        rows = self.norms[1](rows + drop(self._fed(rows.view_as(intents), drop).flatten(1, 2))).view_as(intents)
        for mix in self.mixes:
            rows = torch.relu(rows + drop(mix @ rows))
        return rows.flatten(1, 2)

    def _fed(self, intents: Tensor, drop: Drop) -> Tensor:
        if not self.shifted:
            made: Tensor = self.feed_intents(intents, None, drop)
            return made
        return torch.cat([torch.zeros_like(intents[:, :1]), self.feed_intents(intents[:, 1:], None, drop)], 1)

    def _positions(
        self, positions: Tensor, intents: Tensor, types: Tensor, mask: Tensor, drop: Drop
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions after they read intents, and which of both kinds each reads most."""
        grouped = intents.unflatten(1, (-1, self.intents))
        key, value = self.answer_key(grouped).flatten(1, 2), self.answer_value(grouped).flatten(1, 2)  # (B, G N, D)
        sizes = [self.types * self.intents, self.intents]
        whole: list[Tensor] = []

        def keep(weights: Tensor) -> Tensor:
            whole.append(weights)
            return torch.cat([top(part, self.kept) for part in weights.split(sizes, 3)], 3)

        read, _ = attention(self.query(positions, types), key, value, mask, self.heads, drop, keep)
        rows = self.norms[2](positions + drop(read))
        rows = self.norms[3](rows + drop(self.feed_positions(rows, types, drop)))
        own, shared = whole[0][:, 0].split(sizes, 2)  # of the first head: (B, T, K N), (B, T, N)
        return rows, own.argmax(2), shared.argmax(2)
