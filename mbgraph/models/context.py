"""Where in training a step stands, and the random draws that belong to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

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
