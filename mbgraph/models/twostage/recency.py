"""Evidence of time: how long ago an item was touched, where the data has times."""

from __future__ import annotations

import numpy as np

from mbgraph.keys import runs
from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.typing import FloatArray

__all__ = ["Recency"]


@EVIDENCE.register("recency")
class Recency(Evidence):
    """Items touched after this one, and the time from its last touch to the user's last touch of anything."""

    name = "recency"
    lists = ("seen",)

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        keys, last = facts.touched, np.full(len(facts.touched), -np.inf)
        for name in facts.setting.auxiliary:
            relation = facts.relations[name]
            own = (relation.users * facts.num_items + relation.items).numpy()
            time = np.asarray(relation.time, np.float64)
            np.maximum.at(last, np.searchsorted(keys, own), time)
        users = keys // facts.num_items
        end = np.full(facts.num_users, -np.inf)
        np.maximum.at(end, users, last)
        age = end[users] - last  # (T,)
        positive = age[age > 0]
        self.age = age / (float(np.median(positive)) if len(positive) else 1.0)  # whatever the clock counts
        # of equal times each counts as not later than the other
        order = np.lexsort((age, users))
        fresh = np.r_[True, (users[order][1:] != users[order][:-1]) | (age[order][1:] != age[order][:-1])]
        place = runs(users[order])
        later = np.empty(len(keys))
        later[order] = place[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))] if len(order) else 0
        self.later = later

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        return ("items touched later", "time since the last touch") if setting.has_times else ()

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        place = np.searchsorted(self.facts.touched, pairs.users * np.int64(self.facts.num_items) + pairs.items)
        return np.log1p(np.stack([self.later[place], self.age[place]], 1))
