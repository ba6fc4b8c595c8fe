"""Batches between devices: all numbers of a batch in one copy, not one for each tensor of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["moved", "rebuilt", "tensors_of"]

T = TypeVar("T")


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors of a batch in a fixed order, in whatever dictionaries and tuples of its attributes they stand.

    A batch is an object whose attributes are tensors, None, and dictionaries and tuples of those.
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping | tuple):
        entries = value.values() if isinstance(value, Mapping) else value
        return [tensor for entry in entries for tensor in tensors_of(entry)]
    return [] if value is None else tensors_of(vars(value))


def rebuilt(batch: T, tensors: list[Tensor]) -> T:
    """Return a batch with other tensors in the places of its own, in the order of `tensors_of`."""
    made: T = _filled(batch, iter(tensors))
    return made


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, Mapping):
        return {name: _filled(entry, tensors) for name, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_filled(entry, tensors) for entry in value)
    if value is None:
        return None
    made = copy.copy(value)  # the constructor of a frozen batch would compute what depends on its numbers again
    for name, entry in vars(value).items():
        object.__setattr__(made, name, _filled(entry, tensors))
    return made


def moved(batch: T, device: str | torch.device) -> T:
    """Return a batch on another device.

    Its tensors become parts of one tensor per type, which is copied as a whole: a copy of a few numbers takes as long
    as one of a few thousand. From memory that is pinned the copy waits for nobody.
    """
    target, found = torch.device(device), tensors_of(batch)
    if target.type == "cpu" or any(tensor.device.type != "cpu" for tensor in found):
        return rebuilt(batch, [tensor.to(target) for tensor in found])
    made: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in found):
        own = [place for place, tensor in enumerate(found) if tensor.dtype == dtype]
        flat = torch.cat([found[place].reshape(-1) for place in own])
        flat = (flat.pin_memory() if target.type == "cuda" else flat).to(target, non_blocking=True)
        parts = flat.split([found[place].numel() for place in own])
        made |= {place: part.view(found[place].shape) for place, part in zip(own, parts, strict=True)}
    return rebuilt(batch, [made[place] for place in range(len(found))])
