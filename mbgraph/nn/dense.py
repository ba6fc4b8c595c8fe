"""Dense layers and parameters, initialised from a generator of the caller's: torch's global one is never read."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["linear", "normal", "normed_layer", "xavier"]


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True, uniform: bool = True
) -> nn.Linear:
    """Return a linear layer: (.., inputs) -> (.., outputs); weights are Xavier uniform or normal, biases zero."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    (nn.init.xavier_uniform_ if uniform else nn.init.xavier_normal_)(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def xavier(generator: torch.Generator, *shape: int) -> nn.Parameter:
    """Return a parameter of a shape with Xavier uniform numbers."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(*shape), generator=generator))


def normal(generator: torch.Generator, *shape: int, std: float = 0.02) -> nn.Parameter:
    """Return a parameter of a shape with normal numbers of a standard deviation."""
    return nn.Parameter(torch.randn(*shape, generator=generator) * std)


def normed_layer(width: int, generator: torch.Generator) -> nn.Sequential:
    """Return a linear layer, ReLU and a layer norm: (.., width) -> (.., width)."""
    return nn.Sequential(linear(width, width, generator), nn.ReLU(), nn.LayerNorm(width))
