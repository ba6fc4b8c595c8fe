"""Where in training a step stands, and the random draws that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mbgraph.random import stream

__all__ = ["StepContext"]


@dataclass(frozen=True)
class StepContext:
    """Epoch, step and seed; everything a step may depend on beside its batch and the parameters.

    Attributes
    ----------
    epoch : int
        From 1.
    step : int
        Within the epoch, from 0.
    seed : int
        Of the whole run.
    """

    epoch: int = 1
    step: int = 0
    seed: int = 0

    def rng(self, name: str = "step") -> np.random.Generator:
        """Return a new numpy generator of the stream that belongs to (seed, epoch, step, name); see `generator`."""
        return stream(self.seed, "step", self.epoch, self.step, name)

    def generator(self, name: str = "step", device: str | torch.device = "cpu") -> torch.Generator:
        """Return a new torch generator of the stream that belongs to (seed, epoch, step, name).

        Asked again it starts again: a step that is repeated, by a diagnosis or a resumed run, draws the same numbers,
        and what one step draws changes nothing for the next. Draw on the CPU and move the numbers where another device
        must see the same ones.
        """
        seed = int(self.rng(name).integers(2**63))
        return torch.Generator(device).manual_seed(seed)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return uniform numbers in [0, 1) of the stream ``name``, on the CPU; ``torch.compile`` takes it as it is."""
        return _uniform(list(shape), self.seed, self.epoch, self.step, name)

    def dropout(self, rows: Tensor, rate: float, name: str) -> Tensor:
        """Return rows with a random share of their entries set to 0 and the others divided by what is kept."""
        if rate == 0:
            return rows
        # the factors are made in place, and the derivative is one product with them
        return rows * self.uniform(name, rows.shape).to(rows).ge_(rate).div_(1 - rate)

    def dropouts(self, rate: float) -> Callable[[Tensor], Tensor]:
        """Return a function that drops entries; its calls are numbered, so that each draws from a stream of its own."""
        return _Dropouts(self, rate)


class _Dropouts:
    def __init__(self, context: StepContext, rate: float) -> None:
        self.context, self.rate, self.calls = context, rate, 0

    def __call__(self, rows: Tensor) -> Tensor:
        self.calls += 1
        return self.context.dropout(rows, self.rate, f"dropout {self.calls}")


@torch.library.custom_op("mbgraph::uniform", mutates_args=())
def _uniform(shape: Sequence[int], seed: int, epoch: int, step: int, name: str) -> Tensor:
    return torch.rand(list(shape), generator=StepContext(epoch, step, seed).generator(name))


@_uniform.register_fake
def _(shape: Sequence[int], seed: int, epoch: int, step: int, name: str) -> Tensor:
    return torch.empty(list(shape))
