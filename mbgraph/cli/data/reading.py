"""How far a long file is read: a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import time as clock
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from mbgraph.cli.consoles import PlainConsole, TextColumn

__all__ = ["ReadingProgress"]

_EVERY = 10.0  # seconds between lines in a pipe


class ReadingProgress:
    """Shows how far a log is read: a bar with rate and remaining time on a terminal, plain lines in a pipe.

    Parameters
    ----------
    console : PlainConsole
    every : float
        Seconds between the lines of a pipe; a log that is read sooner gets none.
    """

    def __init__(self, console: PlainConsole, every: float = _EVERY) -> None:
        self.console, self.every = console, every
        self._bar: Progress | None = None
        self._ended = False

    def __enter__(self) -> ReadingProgress:
        self._start = self._said = clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def update(self, events: int, done: int, total: int) -> None:
        """Say that ``events`` events were read, which is ``done`` of ``total`` bytes or rows."""
        now = clock.monotonic()
        rate = events / max(now - self._start, 1e-9)
        note = f"{events:,} events, {rate:,.0f} a second"
        if self.console.is_terminal:
            self._bar = self._bar or self._open()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        elif now - self._said >= self.every:
            self._said = now
            self.console.print(f"reading: {100 * done / max(total, 1):.0f}%, {note}")
        if done >= total:
            self._close()  # sorting what was read has no measure of its own
            if now - self._start >= self.every and not self._ended:
                self._ended = True
                self.console.print(f"reading took {now - self._start:.0f} s; making the dataset")

    def _open(self) -> Progress:
        bar = Progress(
            TextColumn("reading"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        bar.add_task("read", total=None, note="")
        bar.start()
        return bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
