"""What a regularizer sees, and what it is."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.registry import Registry

__all__ = [
    "REGULARIZERS",
    "LinearWarmup",
    "Regularizer",
    "Schedule",
    "StepOutputs",
    "build_regularizer",
    "regularizer_options",
]

Schedule = Callable[[int], float]
"""Epoch (from 1) to a factor on the weight."""


@dataclass(frozen=True)
class StepOutputs:
    """Everything of one training step that a regularizer may use. Any model, or a loop of one's own, can fill it.

    Attributes
    ----------
    target : str
        The target behavior.
    losses : mapping of str to Tensor ()
        The model's own terms, by name.
    risks : mapping of str to Tensor ()
        Mean ranking loss per behavior; behaviors without a row in the batch are absent.
    margins : mapping of str to Tensor (B_b,)
        Score of the positive minus score of the negative item, per behavior.
    users : mapping of str to Tensor (N, D)
        Per behavior, embeddings of the same N distinct users, row by row.
    triples : mapping of str to (Tensor (B_b, D), Tensor (B_b, D), Tensor (B_b, D))
        Per behavior, embeddings of user, positive and negative item of every row.
    ego : mapping of str to (Tensor, Tensor, Tensor)
        Like ``triples``, but rows of the embedding tables (layer 0).
    tables : tuple of Tensor
        All embedding tables, user table first.
    user_mask : mapping of str to Tensor (N,), bool
        Which of the N users have an edge in the behavior; all of them where the key is missing.
    """

    target: str
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    risks: Mapping[str, Tensor] = field(default_factory=dict)
    margins: Mapping[str, Tensor] = field(default_factory=dict)
    users: Mapping[str, Tensor] = field(default_factory=dict)
    triples: Mapping[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    ego: Mapping[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    tables: tuple[Tensor, ...] = ()
    user_mask: Mapping[str, Tensor] = field(default_factory=dict)

    def need(self, name: str, regularizer: str) -> Mapping:
        """Return the mapping called ``name``; an empty one raises `UsageError`."""
        value = getattr(self, name)
        if not value:
            raise UsageError(f"{regularizer} needs {name!r}, which this model does not give", "use another regularizer")
        return value


class Regularizer(ABC):
    """One weighted term beside the main loss. Holds no state and no parameters.

    Parameters
    ----------
    weight : float
        Factor of the term in the total loss.
    schedule : callable, optional
        Maps the epoch (from 1) to a further factor; for example ``lambda epoch: min(1.0, epoch / 10)``.
    """

    name: ClassVar[str]
    double_backward: bool = False
    """True if the term derives gradients again; the model then avoids passes that can be derived only once."""

    def __init__(self, weight: float = 1.0, schedule: Schedule | None = None) -> None:
        if not weight >= 0:
            raise UsageError(f"the weight of {self.name} must not be negative, got {weight}")
        self.weight, self.schedule = float(weight), schedule

    def factor(self, epoch: int) -> float:
        """Return weight times schedule for an epoch (from 1)."""
        return self.weight * (1.0 if self.schedule is None else float(self.schedule(epoch)))

    @abstractmethod
    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the unweighted term, a 0-dimensional tensor."""

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({options})"


REGULARIZERS: Registry[type[Regularizer]] = Registry("regularizer", "mbgraph.regularizers")


class LinearWarmup:
    """A `Schedule` that rises linearly from ``1 / epochs`` to 1 over the first ``epochs`` epochs."""

    def __init__(self, epochs: int) -> None:
        if epochs < 1:
            raise UsageError(f"warmup must be at least 1 epoch, got {epochs}")
        self.epochs = int(epochs)

    def __call__(self, epoch: int) -> float:
        """Return the factor for an epoch (from 1)."""
        return min(1.0, epoch / self.epochs)

    def __repr__(self) -> str:
        return f"LinearWarmup({self.epochs})"


def build_regularizer(name: str, options: Mapping[str, Any]) -> Regularizer:
    """Make a regularizer from plain values; ``warmup=n`` becomes a `LinearWarmup` schedule.

    Raises
    ------
    UnknownNameError
        For an unknown regularizer or option; the message names the nearest one.
    """
    kind = REGULARIZERS.get(name)
    known = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "schedule")]
    values = dict(options)
    for key in values:
        if key not in known and key != "warmup":
            raise UnknownNameError(f"option of regularizer {name!r}", key, [*known, "warmup"])
    warmup = values.pop("warmup", None)
    if warmup is not None:
        values["schedule"] = LinearWarmup(warmup)
    return kind(**values)


def regularizer_options(regularizer: Regularizer) -> dict[str, Any]:
    """Return plain values from which `build_regularizer` makes the same regularizer again."""
    known = inspect.signature(type(regularizer).__init__).parameters
    options = {key: value for key, value in vars(regularizer).items() if key in known and key != "schedule"}
    if isinstance(regularizer.schedule, LinearWarmup):
        options["warmup"] = regularizer.schedule.epochs
    return options
