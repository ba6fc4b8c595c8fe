"""What a regularizer is: a frozen section of options that turns a step's outputs into one term."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from mbgraph.errors import UsageError
from mbgraph.registry import Registry
from mbgraph.regularizers.outputs import StepOutputs
from mbgraph.schema import Section, parse_assignments

__all__ = ["REGULARIZERS", "Regularizer", "Schedule", "changed", "make_regularizer", "parse_regularizer"]

Schedule = Callable[[int], float]
"""Epoch (from 1) to a factor on the weight."""


class Regularizer(Section):
    """One weighted term beside the main loss. Holds no state and no parameters.

    A subclass sets `name`, writes its options as annotated fields with a docstring each, and implements ``__call__``.
    """

    name: ClassVar[str]

    weight: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Factor of the term in the total loss; 0 leaves it out."""
    warmup: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Epochs over which the weight rises linearly to its full size."""
    label: Annotated[str, Field(pattern=r"^[\w.-]*$", max_length=60)] = ""
    """What the term is called where one kind is attached twice; the kind's name by default."""
    schedule: Schedule | None = Field(default=None, exclude=True)
    """A further factor by epoch (from 1), for example ``lambda epoch: min(1.0, epoch / 10)``; only from Python."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            cls.called = f"regularizer {cls.name!r}"

    @property
    def term(self) -> str:
        """The name of the term in logs."""
        return self.label or self.name

    def factor(self, epoch: int) -> float:
        """Return the weight in an epoch (from 1)."""
        rising = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        return self.weight * rising * (1.0 if self.schedule is None else float(self.schedule(epoch)))

    def in_blocks(self, rows: int) -> Regularizer:
        """Return the term as batches of many times ``rows`` rows should have it; the same by default.

        A term whose cost grows with the square of the batch is one of blocks of so many rows then.
        """
        return self

    @abstractmethod
    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the unweighted term, a 0-dimensional tensor."""


REGULARIZERS: Registry[type[Regularizer]] = Registry("regularizer", "mbgraph.regularizers")


def make_regularizer(entry: Mapping[str, Any]) -> Regularizer:
    """Make a regularizer from plain values: ``{"name": "rex", "weight": 0.5}``.

    Raises
    ------
    UnknownNameError, UsageError
        For an unknown regularizer or option, or a wrong value.
    """
    options = dict(entry)
    return REGULARIZERS.get(str(options.pop("name", ""))).from_text(options)


def changed(regularizers: Sequence[Regularizer], entries: Iterable[Mapping[str, Any]]) -> tuple[Regularizer, ...]:
    """Return regularizers with changes applied: an entry changes the term it names, or adds one.

    Parameters
    ----------
    regularizers : sequence of Regularizer
        A model's own.
    entries : iterable of mapping
        Each has the ``name`` of a kind and options; a ``label`` names one of several terms of a kind.
    """
    made = {entry.term: entry for entry in regularizers}
    for entry in entries:
        options = dict(entry)
        kind = REGULARIZERS.get(str(options.pop("name", "")))
        term = str(options.get("label") or kind.name)
        own = [known for known in made.values() if isinstance(known, kind)]
        if term in made:
            options = {name: kind.value_of(name, value) for name, value in options.items()}
            made[term] = made[term].replace(**options)
        elif own and "label" not in options and term == kind.name:
            raise UsageError(
                f"this model has several terms of {kind.name!r}: {', '.join(known.term for known in own)}",
                f"name one: {kind.name}:label={own[0].term},..",
            )
        else:
            made[term] = kind.from_text(options)
    return tuple(made.values())


def parse_regularizer(text: str) -> dict[str, Any]:
    """Split ``name:key=value,key=value``; values stay text until the regularizer's own types read them."""
    name, _, rest = text.partition(":")
    options = parse_assignments(part for part in rest.split(",") if part.strip())
    return {"name": name.strip(), **options}
