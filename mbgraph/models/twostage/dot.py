"""Evidence of trained models: the dot products of their embeddings."""

from __future__ import annotations

import numpy as np

from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Setting
from mbgraph.typing import FloatArray

__all__ = ["DotProducts"]

_PAIRS = 2**17  # whose rows are multiplied at a time


@EVIDENCE.register("dot")
class DotProducts(Evidence):
    """Scores of trained embedding models, one column per run."""

    name = "dot"

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        return tuple(f"dot product of {run}" for run in setting.options.runs)

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        found = np.empty((len(pairs), len(self.facts.setting.options.runs)))
        for column, run in enumerate(self.facts.setting.options.runs):
            users, items = self.facts.runs[run]
            for start in range(0, len(pairs), _PAIRS):
                part = slice(start, start + _PAIRS)
                found[part, column] = np.einsum("pd,pd->p", users[pairs.users[part]], items[pairs.items[part]])
        return found
