"""How large the batches of a large graph are: ``batch_size=auto``.

Every step propagates over the whole graph, whatever its batch, and an epoch has rows / batch steps. With batches of one
size an epoch therefore costs users x edges; with a bounded number of steps it costs the edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbgraph.models.options import TrainingOptions
from mbgraph.regularizers.base import Regularizer

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.models.base import Recommender

__all__ = ["MOST_STEPS", "BatchChoice", "choose_batch"]

MOST_STEPS = 32
"""Steps of an epoch, at most, where the rule decides. Graphs whose epoch has no more keep the model's own batch."""

_SCALES = {"none": lambda times: 1.0, "sqrt": math.sqrt, "linear": float}


@dataclass(frozen=True)
class BatchChoice:
    """What the rule came to.

    Attributes
    ----------
    training : TrainingOptions
        With the batch size and the step size that were chosen.
    regularizers : tuple of Regularizer
        Those given, in blocks of the own batch where their cost grows with the square of it.
    own : int
        The model's own batch size.
    times : int
        The batch over the own one.
    steps, own_steps : int
        Steps per epoch with the chosen batch, and with the own one.
    note : str
        All of that in a line.
    """

    training: TrainingOptions
    regularizers: tuple[Regularizer, ...]
    own: int
    times: int
    steps: int
    own_steps: int
    note: str


def choose_batch(
    model: Recommender, dataset: MultiBehaviorDataset, training: TrainingOptions, regularizers: Sequence[Regularizer]
) -> BatchChoice:
    """Return the batch of ``batch_size=auto`` and what goes with it.

    The batch is the least multiple of the model's own with which an epoch has at most `MOST_STEPS` steps. Terms that
    compare the rows of a batch with one another do so within blocks of the own batch, so that the objective is that of
    as many own batches on average, and time and memory stay linear. The step size is scaled by ``lr_scaling``.

    Parameters
    ----------
    model : Recommender
    dataset : MultiBehaviorDataset
    training : TrainingOptions
        With ``lr`` as it belongs to the model's own batch.
    regularizers : sequence of Regularizer
    """
    own = model.options.training().rows
    own_steps = len(model.batches(dataset, training.replace(batch_size=own), 0))
    times = max(1, -(-own_steps // MOST_STEPS))
    if times == 1:
        note = f"batch_size=auto took {own:,}, the model's own: an epoch has {_counted(own_steps)}"
        chosen = training.replace(batch_size=own)
        return BatchChoice(chosen, tuple(regularizers), own, 1, own_steps, own_steps, note)
    scale = _SCALES[training.lr_scaling](times)
    chosen = training.replace(batch_size=own * times, lr=float(f"{training.lr * scale:.6g}"))
    made = tuple(entry.in_blocks(own) for entry in regularizers)
    steps = -(-own_steps // times)
    blocks = [new.term for new, old in zip(made, regularizers, strict=True) if new != old]
    note = (
        f"batch_size=auto took {own * times:,}, {times} times the model's own: an epoch has {_counted(steps)} over the "
        f"whole graph instead of {own_steps:,}; lr {chosen.lr:g} (lr_scaling={training.lr_scaling})"
    )
    note += f"; {', '.join(blocks)} in blocks of {own:,}" if blocks else ""
    return BatchChoice(chosen, made, own, times, steps, own_steps, note)


def _counted(steps: int) -> str:
    return f"{steps:,} step" + ("s" if steps != 1 else "")
