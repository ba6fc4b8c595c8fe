"""Data: event logs and dataset files in, one heterograph with held-out pairs out.

Names are imported on first use, so that a command on datasets waits neither for pandas nor for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbgraph.data.catalog import find_dataset, list_datasets, load_dataset
    from mbgraph.data.check import behaviors_within_target
    from mbgraph.data.dataset import MultiBehaviorDataset
    from mbgraph.data.events import from_events
    from mbgraph.data.filters import Filter, filter_dataset
    from mbgraph.data.formats.events import read_events
    from mbgraph.data.formats.npz import read_npz, write_npz
    from mbgraph.data.interactions import CSR, Pairs, Vocabulary
    from mbgraph.data.splits import hold_out, merge_split, split_pairs

_EXPORTS = {
    "CSR": "interactions",
    "Filter": "filters",
    "MultiBehaviorDataset": "dataset",
    "Pairs": "interactions",
    "Vocabulary": "interactions",
    "behaviors_within_target": "check",
    "filter_dataset": "filters",
    "find_dataset": "catalog",
    "from_events": "events",
    "hold_out": "splits",
    "list_datasets": "catalog",
    "load_dataset": "catalog",
    "merge_split": "splits",
    "read_events": "formats.events",
    "read_npz": "formats.npz",
    "split_pairs": "splits",
    "write_npz": "formats.npz",
}

__all__ = [
    "CSR",
    "Filter",
    "MultiBehaviorDataset",
    "Pairs",
    "Vocabulary",
    "behaviors_within_target",
    "filter_dataset",
    "find_dataset",
    "from_events",
    "hold_out",
    "list_datasets",
    "load_dataset",
    "merge_split",
    "read_events",
    "read_npz",
    "split_pairs",
    "write_npz",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mbgraph.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mbgraph.data.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value
