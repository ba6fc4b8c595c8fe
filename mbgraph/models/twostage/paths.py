r"""Evidence of paths: how like a candidate is to what else its user touched.

For similarities S of items from all behaviors and from the target alone, and every behavior a, the sum and the largest
of :math:`S_{ij}` over the items :math:`j \ne i` that the user touched in a.
"""

from __future__ import annotations

import numpy as np

from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Setting
from mbgraph.models.twostage.walks import walk
from mbgraph.typing import FloatArray

__all__ = ["Paths"]


@EVIDENCE.register("paths")
class Paths(Evidence):
    """Sums and maxima of the similarities to the user's other items."""

    name = "paths"
    logarithmic = True

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        return tuple(
            f"like the user's {behavior}: {what} by {source}"
            for source in ("all", "target")
            for behavior in setting.behaviors
            for what in ("sum", "most")
        )

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        found = [
            column
            for similar in self.facts.similarities.values()
            for behavior in self.facts.setting.behaviors
            for column in walk(self.facts.lists[behavior], similar, pairs.users, pairs.items)
        ]
        return np.stack(found, 1)
