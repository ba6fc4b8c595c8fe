"""Tensors that belong to the nodes or the edges of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError

__all__ = ["Features"]


class Features(MutableMapping[str, Any]):
    """Features by name. With several types, a value is a mapping of type to tensor."""

    def __init__(self, counts: Mapping[Any, int]) -> None:
        self.counts = dict(counts)
        self.by_type: dict[Any, dict[str, Tensor]] = {kind: {} for kind in counts}

    def __getitem__(self, name: str) -> Any:
        found = {kind: features[name] for kind, features in self.by_type.items() if name in features}
        if not found:
            raise KeyError(name)
        return found if len(self.by_type) > 1 else next(iter(found.values()))

    def __setitem__(self, name: str, value: Any) -> None:
        if len(self.by_type) > 1 and not isinstance(value, Mapping):
            raise UsageError(f"there are several types, so feature {name!r} must be a mapping of type to tensor")
        given = value if len(self.by_type) > 1 else {next(iter(self.by_type)): value}
        for kind, rows in given.items():
            if kind not in self.by_type:
                raise UnknownNameError("type of a feature", str(kind), [str(known) for known in self.by_type])
            if len(rows) != self.counts[kind]:
                raise UsageError(f"feature {name!r} of {kind} needs {self.counts[kind]} rows, not {len(rows)}")
        for kind, rows in given.items():
            self.by_type[kind][name] = rows

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        for features in self.by_type.values():
            features.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for features in self.by_type.values() for name in features))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return repr({name: self[name] for name in self})

    def to(self, device: torch.device) -> Features:
        other = Features(self.counts)
        for kind, features in self.by_type.items():
            other.by_type[kind] = {name: rows.to(device) for name, rows in features.items()}
        return other
