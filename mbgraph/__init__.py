"""mbgraph: multi-behavior recommendation on graphs.

Names are imported on first use, so ``import mbgraph`` costs nothing and loads neither torch nor dgl.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "HeteroGraph": "mbgraph._heterograph",
    "MultiBehaviorDataset": "mbgraph.data.dataset",
    "heterograph": "mbgraph._dgl",
    "load_dataset": "mbgraph.data.catalog",
    "from_events": "mbgraph.data.events",
    "alignment": "mbgraph.data.alignment",
    "perturb": "mbgraph.data.perturb",
    "hold_out": "mbgraph.data.splits",
    "merge_split": "mbgraph.data.splits",
    "evaluate": "mbgraph.evaluation.evaluate",
    "Trainer": "mbgraph.training.trainer",
    "Run": "mbgraph.run",
    "recommend": "mbgraph.recommend",
    "export_embeddings": "mbgraph.export",
}
_MODULES = ("data", "nn", "regularizers", "models", "evaluation", "training", "errors", "testing")

__all__ = ["__version__", *_EXPORTS, *_MODULES]

if TYPE_CHECKING:
    from mbgraph import data, errors, evaluation, models, nn, regularizers, testing, training
    from mbgraph._dgl import heterograph
    from mbgraph._heterograph import HeteroGraph
    from mbgraph.data.alignment import alignment
    from mbgraph.data.catalog import load_dataset
    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.data.events import from_events
    from mbgraph.data.perturb import perturb
    from mbgraph.data.splits import hold_out, merge_split
    from mbgraph.evaluation.evaluate import evaluate
    from mbgraph.export import export_embeddings
    from mbgraph.recommend import recommend
    from mbgraph.run import Run
    from mbgraph.training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"mbgraph.{name}")
    else:
        raise AttributeError(f"module 'mbgraph' has no attribute {name!r}")
    globals()[name] = value
    return value


class _Package(ModuleType):
    """`mbgraph.recommend` is a function and a module: in whatever order, the name means the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _EXPORTS and isinstance(value, ModuleType):  # the import system files a loaded submodule
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
