"""Evidence of single items and single users: how popular, how busy, how often back to what was seen."""

from __future__ import annotations

import numpy as np

from mbgraph.keys import contains
from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.typing import FloatArray

__all__ = ["Counts", "UserLevel"]

_SMOOTHING = 10.0
_SEEN = (0.05, 0.95)  # the share of purchases of seen items that is believed, whatever was counted


@EVIDENCE.register("counts")
class Counts(Evidence):
    r"""Popularity and degrees: :math:`\log(1 + n_b(i))` of every behavior, :math:`\log\frac{n_t(i)+1}{n_*(i)+10}`."""

    name = "counts"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        target = facts.setting.target
        columns = [np.log1p(facts.users_of(name)) for name in (target, *facts.setting.auxiliary)]
        columns.append(np.log((facts.users_of(target) + 1) / (facts.toucher_counts + _SMOOTHING)))
        self.table = np.stack(columns, 1)  # (I, F)

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        users = (f"users of the item: {name}" for name in (setting.target, *setting.auxiliary))
        return (*users, f"{setting.target} per toucher of the item")

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        return self.table[pairs.items]


@EVIDENCE.register("user")
class UserLevel(Evidence):
    """What a user is like, which decides whether the next purchase is an item of the seen list."""

    name = "user"
    lists = ("retrieved",)

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        target = facts.setting.target
        columns = [np.log1p(facts.seen.degrees()), np.log1p(facts.items_of(target))]
        for name in facts.setting.auxiliary:
            bought = facts.keys[name][contains(facts.keys[name], facts.bought)]
            both = np.bincount(bought // facts.num_items, minlength=facts.num_users)
            columns.append(np.log1p(facts.items_of(name) - both))
        seen = np.bincount(
            facts.bought[contains(facts.bought, facts.touched)] // facts.num_items, minlength=facts.num_users
        )
        share = float(np.clip(seen.sum() / max(1, len(facts.bought)), *_SEEN))
        unseen = facts.items_of(target) - seen
        columns.append(np.log((unseen + 2 * (1 - share)) / (seen + 2 * share)))
        self.table = np.stack(columns, 1)  # (U, F)

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        own = (f"the user's {name} without {setting.target}" for name in setting.auxiliary)
        return ("length of the seen list", f"the user's {setting.target}", *own, "odds of unseen purchases")

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        return self.table[pairs.users]
