r"""Evidence of paths: how like a candidate is to what else its user touched.

For similarities S of items from all behaviors and from the target alone, and every behavior a, the sum and the largest
of :math:`S_{ij}` over the items :math:`j \ne i` that the user touched in a.
"""

from __future__ import annotations

import numpy as np

from mbgraph.errors import UnknownNameError
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
        known = ("all", "target", *setting.auxiliary)
        for source in setting.options.path_sources:
            if source not in known:
                raise UnknownNameError("source of paths", source, known)
        return tuple(
            f"like the user's {behavior}: {what} by {source}"
            for source in dict.fromkeys(setting.options.path_sources)
            for behavior in setting.behaviors
            for what in ("sum", "most")
        )

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        found = [
            column
            for source in dict.fromkeys(self.facts.options.path_sources)
            for behavior in self.facts.setting.behaviors
            for column in walk(self.facts.lists[behavior], self.facts.similar(source), pairs.users, pairs.items)
        ]
        return np.stack(found, 1)
