"""A search space: which options may take which values, and how trials are drawn from it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mbgraph.bench.positions import line_of
from mbgraph.bench.reading import grid_changes
from mbgraph.config import FitConfig
from mbgraph.errors import MbgraphError, UsageError
from mbgraph.random import stream
from mbgraph.schema import InWords, Section, read_toml

__all__ = ["Range", "SearchSpace", "read_space"]

MOST = 10_000  # points of a grid

Number = Annotated[int | float, InWords("a number")]


class Range(Section):
    """Numbers between two bounds, both included."""

    called = "a range"

    low: Number
    """Smallest value."""
    high: Number
    """Largest value."""
    log: bool = False
    """Draw the logarithm uniformly: for step sizes and weights."""
    integer: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise UsageError(f"low of a range must be below high, got {self.low} and {self.high}", "swap them")
        if self.log and self.low <= 0:
            raise UsageError(f"a logarithmic range must begin above 0, got {self.low}", "raise low, or leave log out")
        if self.integer and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise UsageError("bounds of whole numbers must be whole", "correct low and high")
        return self

    def at(self, share: float) -> int | float:
        """Return the value at a share of the way, from 0 up to 1: every whole number is as likely."""
        low, high = float(self.low), float(self.high)
        if self.integer:
            high += 1
        value = (
            math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
            if self.log
            else low + share * (high - low)
        )
        # logarithms and back are rounded: 5 may come out below 5
        return (
            min(max(math.floor(value), int(self.low)), int(self.high)) if self.integer else min(max(value, low), high)
        )


Axis = Annotated[
    tuple[Any, ...] | Range, InWords("a list of values or a range", "write [1, 2, 3] or { low = 1e-4, high = 1e-2 }")
]


class SearchSpace(Section):
    """What is searched."""

    called = "the search space"

    sampler: Literal["random", "grid", "optuna"] = "random"
    """``random``: independent draws; ``grid``: every combination of lists; ``optuna``: its sampler, which learns from
    earlier trials, and its pruner, which ends trials that fall behind (the extra ``tune``)."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Trials; a grid has as many as it has points."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the draws. That of the trainings is in ``base``."""
    base: Mapping[str, Any] = Field(default_factory=dict)
    """Configuration that every trial starts from: the keys of a run's ``config.toml``."""
    axes: Annotated[Mapping[str, Axis], Field(min_length=1), InWords("a table", "write [axes]")]
    """Values by option: ``options.NAME``, ``training.NAME`` or ``regularizers.NAME.OPTION``."""

    @property
    def size(self) -> int:
        """Number of trials."""
        return math.prod(len(self._values(name)) for name in self.axes) if self.sampler == "grid" else self.trials

    def _values(self, name: str) -> tuple[Any, ...]:
        axis = self.axes[name]
        if isinstance(axis, Range):
            raise UsageError(f"{name} is a range, which has no grid", "list its values, or use another sampler")
        return axis

    def point(self, number: int) -> dict[str, Any]:
        """Return the values of a trial, from 0: the same for the same seed, whatever other trials there were."""
        if self.sampler == "grid":
            points = itertools.product(*(self._values(name) for name in self.axes))
            return dict(zip(self.axes, next(itertools.islice(points, number, None)), strict=True))
        made = {}
        for name, axis in self.axes.items():
            share = float(stream(self.seed, "tune", name, str(number)).random())
            made[name] = axis.at(share) if isinstance(axis, Range) else axis[int(share * len(axis))]
        return made

    def config(self, point: Mapping[str, Any]) -> FitConfig:
        """Return the configuration of a trial."""
        base, changes = FitConfig.from_dict(self.base), grid_changes(point)
        return base.replace(
            options={**base.options, **changes.options},
            training={**base.training, **changes.training},
            regularizers=(*base.regularizers, *changes.regularizers),
        )


def read_space(path: str | os.PathLike[str]) -> SearchSpace:
    """Read a search space from a TOML file.

    Raises
    ------
    DataError, UsageError
        If it cannot be read or something in it is wrong; the message names file and line.
    """
    path = Path(path)
    raw = read_toml(path)
    text = path.read_text(encoding="utf-8")
    where: tuple[str | int, ...] = ()
    try:
        axes = raw.get("axes")
        if isinstance(axes, Mapping):
            made = {}
            for name, axis in axes.items():
                where = ("axes", name)
                made[name] = Range(**axis) if isinstance(axis, Mapping) else axis
                if not isinstance(axis, Mapping | list) or axis == []:
                    raise UsageError(f"{name} must be a list of values or a range, not {axis!r}", "write [1, 2, 3]")
            raw["axes"] = made
        where = ()
        space = SearchSpace(**raw)
        where = ("base",)
        FitConfig.from_dict(space.base)
        where = ("axes",)
        if space.size > MOST and space.sampler == "grid":
            raise UsageError(f"the grid has {space.size:,} points", f"leave at most {MOST:,}, or use another sampler")
        for name in space.axes:
            where = ("axes", name)
            space.config({name: space.point(0)[name]})
    except MbgraphError as error:
        raise UsageError(f"{path}:{line_of(text, where)}: {error.message}", error.remedy) from error
    return space
