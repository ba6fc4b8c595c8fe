"""Triples with more in every batch: what a step draws, or what is looked up on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mbgraph.data.interactions import CSR
from mbgraph.models.batches import TripleBatches
from mbgraph.models.triples import TripleBatch
from mbgraph.random import stream

__all__ = ["BCIPMBatch", "ExtendedBatches", "UIPLBatch", "standard_normal", "with_noise", "with_purchases"]

Extend = Callable[[TripleBatch, np.random.Generator], TripleBatch]


class ExtendedBatches:
    """The batches of an epoch of triples, each with what a function adds to it.

    A step that finds its random numbers and ragged lists in the batch is the same operations whatever they are, and
    compiles as a whole.

    Parameters
    ----------
    triples : TripleBatches
    extend : callable
        ``extend(batch, rng)`` returns the batch that the model's step reads, see `TripleBatch.extended`. The generator
        is the epoch's own, apart from the one that draws the triples.
    """

    def __init__(self, triples: TripleBatches, extend: Extend):
        self.triples, self.extend = triples, extend

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.triples)

    def epoch(self, number: int) -> Iterator[TripleBatch]:
        """Yield the batches of epoch ``number`` (from 1)."""
        rng = stream(self.triples.seed, "extension", number)
        for batch in self.triples.epoch(number):
            yield self.extend(batch, rng)


@dataclass(frozen=True, kw_only=True)
class BCIPMBatch(TripleBatch):
    """Edges of any behavior and target triples, with all purchases of the rows' users.

    Attributes
    ----------
    owners, bought : int64 tensor (M,)
        Row of the batch, and an item that its user bought.
    """

    owners: Tensor
    bought: Tensor


def with_purchases(purchases: CSR) -> Extend:
    """Return a function that adds all purchases of a batch's users to it."""

    def extend(batch: TripleBatch, rng: np.random.Generator) -> BCIPMBatch:
        owners, bought = (torch.from_numpy(column) for column in purchases.gather(batch.users.numpy()))
        return batch.extended(BCIPMBatch, owners=owners, bought=bought)

    return extend


@dataclass(frozen=True, kw_only=True)
class UIPLBatch(TripleBatch):
    """Triples of the target and of any behavior, and what a step draws beside them.

    Attributes
    ----------
    noise : float32 tensor (B, E, Z)
        Standard normal, for every row and environment.
    other : int64 tensor (1,)
        The environment, from 1, whose invariant part is the positive of the contrast.
    """

    noise: Tensor
    other: Tensor


def with_noise(environments: int, width: int) -> Extend:
    """Return a function that adds noise of a width for every environment, and a random environment but the first."""

    def extend(batch: TripleBatch, rng: np.random.Generator) -> UIPLBatch:
        noise = standard_normal(rng, (len(batch), environments, width))
        other = rng.integers(1, environments, 1)
        return batch.extended(UIPLBatch, noise=noise, other=torch.from_numpy(other))

    return extend


def standard_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal numbers of a shape: float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
