"""What speaks for a pair, as plug-ins: each measures a few numbers of every candidate."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from mbgraph.models.twostage.candidates import LISTS, Candidates
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.registry import Registry
from mbgraph.typing import FloatArray

__all__ = ["EVIDENCE", "Evidence", "chosen_evidence"]

EVIDENCE: Registry[type[Evidence]] = Registry("evidence", "mbgraph.evidence")

_QUANTILE = 0.1


class Evidence:
    """Base class of all evidence. A subclass registers with ``@EVIDENCE.register(name)``.

    Everything it knows comes from ``facts``, which hold no label: the same numbers are measured of a label and of any
    other candidate.

    Parameters
    ----------
    facts : Facts
    """

    name: ClassVar[str]
    lists: ClassVar[tuple[str, ...]] = LISTS
    """On which lists it has something to say."""
    logarithmic: ClassVar[bool] = False
    """Whether what is measured are amounts, of which the logarithm counts. What is added to them before, the tenth of
    the positive amounts of touched items, is kept with the weights."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @classmethod
    @abstractmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """Return the names of what it measures; none where it has nothing to say."""

    @abstractmethod
    def measure(self, pairs: Candidates) -> FloatArray:
        """Return a number per pair and column: (P,) -> (P, F)."""

    @classmethod
    def offsets(cls, measured: FloatArray, seen: np.ndarray) -> FloatArray:
        """Return what is added to each column before the logarithm: (P, F), bool (P,) -> (F,)."""
        found = np.zeros(measured.shape[1])
        if cls.logarithmic:
            for column, values in enumerate(measured.T):
                positive = values[seen & (values > 0)]
                positive = positive if len(positive) else values[values > 0]
                found[column] = np.quantile(positive, _QUANTILE) if len(positive) else 1.0
        return found

    @classmethod
    def values(cls, measured: FloatArray, offsets: FloatArray) -> FloatArray:
        """Return what the weights see of what was measured: (P, F), (F,) -> (P, F)."""
        return np.log(measured + offsets) if cls.logarithmic else measured


def chosen_evidence(names: tuple[str, ...], setting: Setting) -> list[type[Evidence]]:
    """Return the evidence of some names that has something to say, each once; unknown ones raise `UnknownNameError`."""
    return [kind for kind in map(EVIDENCE.get, dict.fromkeys(names)) if kind.columns(setting)]
