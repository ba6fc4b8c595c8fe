"""What the machine can do: the floors that times are held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["copy_bandwidth", "gemm_rate", "median_seconds"]


def median_seconds(work: Callable[[], Any], repeats: int = 5, warm: int = 1) -> float:
    """Return the median time of a call, after ``warm`` calls that do not count."""
    for _ in range(warm):
        work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def copy_bandwidth(megabytes: int = 512, repeats: int = 7) -> float:
    """Return bytes per second of a copy in main memory, read and written bytes both counted.

    The block is larger than the cache of any core, though a server's shared cache may hold it.
    """
    source = torch.zeros(megabytes * 2**20 // 4)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source), repeats)


def gemm_rate(size: int = 2048, repeats: int = 7) -> float:
    """Return float32 operations per second of a square matrix product."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / median_seconds(lambda: torch.mm(left, right, out=out), repeats)
