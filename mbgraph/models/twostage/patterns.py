r"""Evidence of the pair's own behaviors: how often such touches became purchases.

Let p be the exact set of auxiliary behaviors of a pair (viewed; viewed and carted; ..), :math:`g_p` the share of all
pairs of pattern p that were bought, :math:`\rho_b(i)` the rates of `mbgraph.models.conversion`. Per item,
:math:`\mathrm{rel}_i` compares its purchases with what the patterns of its pairs let expect, and
:math:`\rho_{p,i}` is the share of its pairs of pattern p, shrunk to :math:`\min(.9, g_p\,\mathrm{rel}_i)`.
"""

from __future__ import annotations

import numpy as np

from mbgraph.keys import contains
from mbgraph.models.conversion import conversion_rates
from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.typing import FloatArray, IntArray

__all__ = ["Patterns"]

_RATE, _PAIR, _LEAST, _MOST = 10.0, 20.0, 1e-4, 0.9


@EVIDENCE.register("patterns")
class Patterns(Evidence):
    """Conversion by behavior, by pattern of behaviors, by item, and by both."""

    name = "patterns"
    lists = ("seen",)

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        keys, num_items = facts.touched, facts.num_items
        bought = contains(keys, facts.bought)
        items, patterns = keys % num_items, self._patterns(keys)
        count = np.bincount(patterns, minlength=self._kinds)
        self.pattern_rate = np.maximum(np.bincount(patterns, bought, self._kinds) / np.maximum(count, 1), _LEAST)
        overall = float(self.pattern_rate[count > 0].mean()) if len(keys) else _LEAST
        expected = np.bincount(items, self.pattern_rate[patterns], num_items)
        observed = np.bincount(items, bought, num_items)
        self.item_level = (observed + _RATE * overall) / (expected + _RATE * overall)  # (I,)
        self._cells, where = np.unique(items * self._kinds + patterns, return_inverse=True)
        self._cell_pairs, self._cell_bought = np.bincount(where), np.bincount(where, bought)
        self.behavior_rates = {}
        for name in facts.setting.auxiliary:
            users, columns = np.divmod(facts.keys[name], num_items)
            self.behavior_rates[name] = conversion_rates(users, columns, facts.bought, num_items, _RATE)

    @property
    def _kinds(self) -> int:
        return 1 << len(self.facts.setting.auxiliary)

    def _patterns(self, keys: IntArray) -> IntArray:
        """Return the set of behaviors of pairs as bits: (N,) -> (N,)."""
        found = np.zeros(len(keys), np.int64)
        for bit, name in enumerate(self.facts.setting.auxiliary):
            found |= contains(keys, self.facts.keys[name]).astype(np.int64) << bit
        return found

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        stands = (f"in {name}" for name in setting.auxiliary)
        return (*stands, "conversion", "pattern rate", "item rate", "pattern rate of the item")

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        keys = pairs.users * np.int64(self.facts.num_items) + pairs.items
        patterns = self._patterns(keys)
        stands = [(patterns >> bit & 1).astype(np.float64) for bit in range(len(self.facts.setting.auxiliary))]
        rates = [rate[pairs.items] for rate in self.behavior_rates.values()]
        conversion = sum(own * rate for own, rate in zip(stands, rates, strict=True))
        prior = np.minimum(_MOST, self.pattern_rate[patterns] * self.item_level[pairs.items])
        place = np.searchsorted(self._cells, pairs.items * self._kinds + patterns)  # each pair is in a cell
        share = (self._cell_bought[place] + _PAIR * prior) / (self._cell_pairs[place] + _PAIR)
        columns = (
            np.log(np.maximum(conversion, 1e-12)),
            np.log(self.pattern_rate[patterns]),
            np.log(self.item_level[pairs.items]),
            np.log(share),
        )
        return np.stack([*stands, *columns], 1)
