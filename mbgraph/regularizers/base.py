"""What a regularizer sees, and what it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from mbgraph.errors import UsageError
from mbgraph.registry import Registry

__all__ = ["REGULARIZERS", "Regularizer", "Schedule", "StepOutputs"]

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
