"""Dense layers that are initialised from a generator of the caller's, so that torch's global one is never read."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["linear", "xavier"]


def linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer with Xavier uniform weights and zero biases: (.., inputs) -> (.., outputs)."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def xavier(generator: torch.Generator, *shape: int) -> nn.Parameter:
    """Return a parameter of a shape with Xavier uniform numbers."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(*shape), generator=generator))
