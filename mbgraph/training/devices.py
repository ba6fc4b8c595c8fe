"""Where to train, and what makes a device repeat itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from mbgraph.errors import UsageError

__all__ = ["repeatable", "resolve_device"]


def resolve_device(device: str) -> torch.device:
    """Return the device for ``"auto"`` (CUDA if there is one), ``"cpu"`` or ``"cuda"``."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}", "choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available", "use --device cpu")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # cuBLAS reads it when it is first used: with a workspace of fixed size a product is the same in every run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Let torch add up in a fixed order on a CUDA device while entered; elsewhere nothing changes.

    The derivative of picking rows adds to them with atomics otherwise, in whatever order they come. What has no such
    algorithm runs as it is, with torch's warning.
    """
    if device.type != "cuda":
        yield
        return
    known = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nobody reads it, and a table takes its time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(known[0], warn_only=known[1])
        memory.fill_uninitialized_memory = filled
