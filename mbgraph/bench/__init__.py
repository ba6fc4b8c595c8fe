"""Studies: several configurations on several datasets with several seeds, side by side; and speed.

``Study.load("table3")`` reads one, `run` computes what is missing of it, and what comes back has `Results.to_frame`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Results", "Store", "Study", "plan", "run", "shipped_studies"]

_PLACES = {
    "Results": "results",
    "Store": "store",
    "Study": "study",
    "plan": "runner",
    "run": "runner",
    "shipped_studies": "study",
}

if TYPE_CHECKING:
    from mbgraph.bench.results import Results
    from mbgraph.bench.runner import plan, run
    from mbgraph.bench.store import Store
    from mbgraph.bench.study import Study, shipped_studies


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mbgraph.bench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbgraph.bench.{_PLACES[name]}"), name)
