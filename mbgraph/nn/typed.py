"""Layers whose weights depend on the type of a row, and attention over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mbgraph.nn.dense import normal

__all__ = ["CrossTransformer", "Drop", "TypedFeedForward", "TypedLinear", "attention", "causal", "identity", "top"]

Drop = Callable[[Tensor], Tensor]
"""What drops entries of rows in training: any shape -> the same."""


def identity(rows: Tensor) -> Tensor:
    """Return rows as they are: no dropout."""
    return rows


def _of_type(made: Tensor, types: Tensor) -> Tensor:
    """Return of what every type makes of a row what its own type makes: (.., G, D), (..) -> (.., D)."""
    return torch.take_along_dim(made, types.clamp_min(0)[..., None, None], -2).squeeze(-2)


class TypedLinear(nn.Module):
    """A matrix per type, without bias; normal with standard deviation 0.02.

    Parameters
    ----------
    types, inputs, outputs : int
    generator : torch.Generator
    """

    def __init__(self, types: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = normal(generator, types, inputs, outputs)

    def forward(self, rows: Tensor, types: Tensor | None = None) -> Tensor:
        """Return rows times the matrix of their type; -1 is no type, its rows mean nothing.

        Shapes: (B, T, D), (B, T) -> (B, T, E); without ``types`` (B, G, N, D) -> (B, G, N, E), type by type.
        """
        if types is None:
            return rows @ self.weight
        return _of_type(torch.einsum("btd,gde->btge", rows, self.weight), types)


class TypedFeedForward(nn.Module):
    """Two layers with ReLU per type.

    Parameters
    ----------
    types, width : int
    generator : torch.Generator
    hidden : int, optional
        Four times ``width`` by default.
    """

    def __init__(self, types: int, width: int, generator: torch.Generator, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or 4 * width
        self.first, self.second = (
            TypedLinear(types, inputs, outputs, generator) for inputs, outputs in ((width, hidden), (hidden, width))
        )
        self.first_bias, self.second_bias = (nn.Parameter(torch.zeros(types, size)) for size in (hidden, width))

    def forward(self, rows: Tensor, types: Tensor | None = None, drop: Drop = identity) -> Tensor:
        """Return what the layers of a row's type make of it; shapes as `TypedLinear`."""
        first, second = (
            bias.unsqueeze(1) if types is None else bias[types.clamp_min(0)]
            for bias in (self.first_bias, self.second_bias)
        )
        made: Tensor = self.second(drop(torch.relu(self.first(rows, types) + first)), types) + second
        return made


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    heads: int,
    drop: Drop = identity,
    keep: Callable[[Tensor], Tensor] = identity,
) -> tuple[Tensor, Tensor]:
    """Return what queries read of values by scaled dot products, and the weights.

    Parameters
    ----------
    query, key, value : Tensor (B, N, D), (B, M, D), (B, M, D)
    mask : bool tensor (B, N, M)
        False where a query must not look. A query that may look nowhere looks everywhere alike.
    heads : int
    drop : callable
        Drops weights.
    keep : callable
        Changes weights after that: (B, H, N, M) -> the same.

    Returns
    -------
    (Tensor (B, N, D), Tensor (B, H, N, M))
    """  # fmt: skip
    query, key, value = (
        rows.unflatten(2, (heads, -1)).transpose(1, 2) for rows in (query, key, value)
    )  # (B, H, ., D/H)
    similar = query @ key.transpose(2, 3) / query.shape[3] ** 0.5  # (B, H, N, M)
    weights = torch.softmax(similar.masked_fill(~mask.unsqueeze(1), torch.finfo(similar.dtype).min), 3)
    weights = keep(drop(weights))
    return (weights @ value).transpose(1, 2).flatten(2), weights


def causal(present: Tensor) -> Tensor:
    """Return where a position may look: at itself and earlier ones, where there are any: bool (B, T) -> (B, T, T)."""
    length = present.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=present.device).tril()
    return present.unsqueeze(1) & earlier


def top(weights: Tensor, count: Tensor | int) -> Tensor:
    """Return weights with all but the largest ``count`` of every row set to 0: (.., M), (..) or a number -> (.., M).

    Of equal weights at the border all are kept.
    """
    ordered, width = _ascending(weights.detach()), weights.shape[-1]
    if not isinstance(count, Tensor):
        kept = (
            weights >= ordered[..., max(width - count, 0), None]
            if count
            else torch.zeros_like(weights, dtype=torch.bool)
        )
    else:
        first = (width - count.unsqueeze(-1)).clamp_min(0).expand(*weights.shape[:-1], 1)
        kept = (weights >= ordered.gather(-1, first.clamp_max(width - 1))) & (first < width)
    return weights * kept  # a product and its derivative take no branches, as filling by a mask does


def _ascending(values: Tensor) -> Tensor:
    """Return the values of every row in order: (.., M) -> (.., M)."""
    if (
        values.device.type == "cpu"
        and values.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
    ):
        return torch.from_numpy(np.sort(values.numpy()))  # in vectors; torch sorts pairs with places
    return values.sort(-1).values


class CrossTransformer(nn.Module):
    """One layer over two streams of a sequence: each reads its own rows, by the other one's queries.

    Parameters
    ----------
    types, width, heads : int
        Weights differ by the type of a position.
    generator : torch.Generator
    """

    def __init__(self, types: int, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.values = (
            nn.ModuleList([TypedLinear(types, width, width, generator) for _ in range(2)]) for _ in range(3)
        )
        self.feed = nn.ModuleList([TypedFeedForward(types, width, generator) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(4)])

    def forward(
        self, one: Tensor, two: Tensor, types: Tensor, mask: Tensor, drop: Drop = identity
    ) -> tuple[Tensor, Tensor]:
        """Return both streams after the layer: 2 x (B, T, D), (B, T), bool (B, T, T) -> 2 x (B, T, D)."""
        streams = (one, two)
        queries = [layer(rows, types) for layer, rows in zip(self.queries, streams, strict=True)]
        made = []
        for number, (rows, query) in enumerate(zip(streams, reversed(queries), strict=True)):
            read, _ = attention(
                query, self.keys[number](rows, types), self.values[number](rows, types), mask, self.heads, drop
            )
            rows = self.norms[number](rows + drop(read))
            made.append(self.norms[2 + number](rows + drop(self.feed[number](rows, types, drop))))
        return made[0], made[1]
