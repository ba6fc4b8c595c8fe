"""From candidates to what the weights see: measured, shifted, standardised, list by list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mbgraph.models.twostage.candidates import LISTS, Candidates
from mbgraph.models.twostage.evidence import Evidence, chosen_evidence
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.typing import FloatArray

__all__ = ["INTERCEPT", "Layout", "Measured", "Scale", "Weighing"]

INTERCEPT = "untouched item"
"""The column of ones on the retrieved list: how likely an untouched item is at all."""

_CLIP = 6.0


@dataclass(frozen=True)
class Layout:
    """Which columns stand on which list.

    Attributes
    ----------
    kinds : list of type of Evidence
    setting : Setting
    """

    kinds: list[type[Evidence]]
    setting: Setting

    @classmethod
    def of(cls, setting: Setting) -> Layout:
        """Return the layout of the evidence that a setting's options choose."""
        return cls(chosen_evidence(setting.options.evidence, setting), setting)

    def on(self, name: str) -> list[type[Evidence]]:
        """Return the evidence that speaks of a list."""
        return [kind for kind in self.kinds if name in kind.lists]

    def columns(self, name: str) -> list[tuple[str, str]]:
        """Return evidence and column of every weight of a list, the intercept of the retrieved list last."""
        made = [(kind.name, column) for kind in self.on(name) for column in kind.columns(self.setting)]
        return [*made, ("retrieved", INTERCEPT)] if name == "retrieved" else made


@dataclass(frozen=True)
class Scale:
    """What the fit keeps of its rows: added before logarithms, taken off, divided by; float64 (F_l,) per list."""

    offset: dict[str, FloatArray]
    mean: dict[str, FloatArray]
    spread: dict[str, FloatArray]


Measured = dict[str, FloatArray]
"""What was measured of the pairs of each list, float32 (P_l, F_l), without the intercept."""


class Weighing:
    """Measures the candidates of one graph."""

    def __init__(self, facts: Facts, layout: Layout) -> None:
        self.facts, self.layout = facts, layout
        self._evidence = [kind(facts) for kind in layout.kinds]

    def measured(self, pairs: Candidates) -> Measured:
        """Return what was measured, by list: (P,) -> (P_l, F_l) each."""
        found: dict[str, list[FloatArray]] = {name: [] for name in LISTS}
        for evidence in self._evidence:
            own = np.zeros(len(pairs), bool)
            for name in evidence.lists:
                own |= pairs.on(name)
            values = evidence.measure(pairs[own])
            for name in evidence.lists:
                found[name].append(values[pairs.on(name)[own]].astype(np.float32))
        return {
            name: np.concatenate(parts, 1) if parts else np.zeros((int(pairs.on(name).sum()), 0), np.float32)
            for name, parts in found.items()
        }

    def scale(self, measured: Measured) -> Scale:
        """Return what standardises these rows."""
        offset: dict[str, FloatArray] = {}
        mean: dict[str, FloatArray] = {}
        spread: dict[str, FloatArray] = {}
        offsets: dict[str, FloatArray] = {}
        for name in LISTS:  # the seen list comes first: amounts are shifted alike on both lists
            first, made = 0, []
            for kind in self.layout.on(name):
                width = len(kind.columns(self.layout.setting))
                part = measured[name][:, first : first + width]
                if kind.name not in offsets:
                    both = np.concatenate([part, self._other(measured, kind)])
                    seen = np.arange(len(both)) < (len(part) if name == "seen" else 0)
                    offsets[kind.name] = kind.offsets(both, seen)
                made.append(offsets[kind.name])
                first += width
            offset[name] = np.concatenate(made).astype(np.float64) if made else np.zeros(0)
            rows = self.shifted(measured[name], offset[name], name)
            mean[name] = rows.mean(0, dtype=np.float64) if len(rows) else np.zeros(rows.shape[1])
            deviation = rows.std(0, dtype=np.float64) if len(rows) else np.ones(rows.shape[1])
            # a column that is everywhere the same says nothing; what is left of it is rounding
            spread[name] = np.where(deviation > 1e-6 * (1 + np.abs(mean[name])), deviation, np.inf)
        return Scale(offset, mean, spread)

    def _other(self, measured: Measured, kind: type[Evidence]) -> FloatArray:
        """Return a kind's columns of the retrieved list, where it speaks of both."""
        width = len(kind.columns(self.layout.setting))
        if kind.lists == ("seen",):
            return np.zeros((0, width), np.float32)
        first = 0
        for other in self.layout.on("retrieved"):
            if other is kind:
                break
            first += len(other.columns(self.layout.setting))
        return measured["retrieved"][:, first : first + width]

    def shifted(self, measured: FloatArray, offset: FloatArray, name: str) -> FloatArray:
        """Return the rows of a list with logarithms taken: (P_l, F_l), (F_l,) -> float32 (P_l, F_l)."""
        first, made = 0, [np.zeros((len(measured), 0), np.float32)]
        for kind in self.layout.on(name):
            part = slice(first, first + len(kind.columns(self.layout.setting)))
            made.append(kind.values(measured[:, part], offset[part]).astype(np.float32))
            first = part.stop
        return np.concatenate(made, 1)

    def rows(self, measured: Measured, scale: Scale) -> dict[str, FloatArray]:
        """Return what the weights see, by list, the intercept included: float32 (P_l, F_l)."""
        made = {}
        for name in LISTS:
            rows = self.shifted(measured[name], scale.offset[name], name)
            rows = np.clip((rows - scale.mean[name]) / scale.spread[name], -_CLIP, _CLIP).astype(np.float32)
            ones = np.ones((len(rows), 1 if name == "retrieved" else 0), np.float32)
            made[name] = np.concatenate([rows, ones], 1)
        return made
