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

__all__ = ["Task", "even_chunks", "run_chunks", "run_tasks", "tasks_of"]

Task = tuple[Callable[..., Any], int, int, Sequence[Any]]
"""Work on rows ``start`` to ``stop``: called as ``work(start, stop, *arguments)``."""


def run_tasks(tasks: Sequence[Task], threads: int) -> None:
    """Run every task; a thread takes the next one when it is done with one.

    Work must release the interpreter lock to gain anything, and must not care who else is at work: every task writes
    memory of its own.
    """
    ticket = itertools.count()  # taking the next number is one step under the interpreter lock

    def take() -> None:
        while (number := next(ticket)) < len(tasks):
            work, start, stop, arguments = tasks[number]
            work(start, stop, *arguments)

    helpers = min(threads, len(tasks)) - 1
    others = [_pool(threads - 1).submit(take) for _ in range(helpers)]
    try:
        take()
    finally:
        for other in others:
            other.result()


def tasks_of(work: Callable[..., Any], bounds: Sequence[int], arguments: Sequence[Any]) -> list[Task]:
    """Return one task per chunk, ``bounds[n]`` to ``bounds[n + 1]``; empty chunks have none."""
    return [(work, start, stop, arguments) for start, stop in itertools.pairwise(bounds) if stop > start]


def even_chunks(count: int, chunks: int) -> list[int]:
    """Return boundaries that cut ``count`` rows evenly."""
    chunks = min(chunks, max(count, 1))
    return [count * number // chunks for number in range(chunks + 1)]


def run_chunks(work: Callable[..., Any], bounds: Sequence[int], arguments: Sequence[Any], threads: int) -> None:
    """Call ``work(start, stop, *arguments)`` for every chunk, in one call if there is one thread."""
    run_tasks(tasks_of(work, bounds if threads > 1 else [bounds[0], bounds[-1]], arguments), threads)


@lru_cache(maxsize=2)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mbgraph")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of the threads
