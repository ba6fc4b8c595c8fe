"""Compiled loops on several threads, without a thread library of their own.

A second OpenMP pool beside torch's is poison on few cores: the threads of the one spin while the other works. These
threads sleep between calls.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

__all__ = ["run_chunks"]


def run_chunks(work: Callable[..., Any], bounds: Sequence[int], arguments: Sequence[Any], threads: int) -> None:
    """Call ``work(start, stop, *arguments)`` for every chunk, ``bounds[n]`` to ``bounds[n + 1]``.

    Threads take the next chunk when they are done with one. ``work`` must release the interpreter lock to gain anything
    and must not care who else is at work: every chunk writes memory of its own.

    Parameters
    ----------
    work : callable
    bounds : sequence of int (N + 1,)
    arguments : sequence
    threads : int
        One runs everything in a single call.
    """
    count = len(bounds) - 1
    if threads <= 1 or count <= 1:
        work(bounds[0], bounds[-1], *arguments)
        return
    ticket = itertools.count()  # taking the next number is one step under the interpreter lock

    def take() -> None:
        while (chunk := next(ticket)) < count:
            work(bounds[chunk], bounds[chunk + 1], *arguments)

    others = [_pool(threads - 1).submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for other in others:
            other.result()


@lru_cache(maxsize=2)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mbgraph")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of the threads
