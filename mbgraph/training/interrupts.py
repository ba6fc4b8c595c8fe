"""Ctrl-C that waits for the end of a step.

Python raises `KeyboardInterrupt` wherever it happens to be. In compiled code, in a destructor or between an update and
its bookkeeping it is lost, becomes another error, or leaves half a step behind.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from mbgraph import processes

__all__ = ["Interrupts"]


class Interrupts:
    """While entered, Ctrl-C is only noted and `check` raises it; a second one is raised where it comes.

    Somebody's own handler of SIGINT stays, and so does everything in threads other than the main one, which get no
    signals.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        self.is_asked = False
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if one was asked for, in any of the processes that train together."""
        if processes.any_of(self.is_asked):
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
