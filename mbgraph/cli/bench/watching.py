"""What one sees while a study runs: a live table with remaining time on a terminal, a line per run in a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mbgraph.bench.estimates import Estimates
from mbgraph.bench.jobs import Job
from mbgraph.bench.runner import Event
from mbgraph.bench.store import Store
from mbgraph.cli.consoles import PlainConsole

__all__ = ["Watch", "duration"]

_MARKS = {"done": "+", "found": "+", "failed": "x", "stopped": "~", "busy": "o", "started": ">"}
_LINES = 12  # finished runs that the table shows


def duration(seconds: float) -> str:
    """Return a time span as people say it: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Watch:
    """Shows the events of a study.

    Parameters
    ----------
    console : PlainConsole
    store : Store
    jobs : sequence of Job
    """

    def __init__(self, console: PlainConsole, store: Store, jobs: Sequence[Job]) -> None:
        self.console, self.store, self.total = console, store, len(jobs)
        self.estimates = Estimates(store)
        self.left = {str(job): job for job in jobs}
        self.at_work: dict[str, tuple[Job, float]] = {}
        self.lines: list[str] = []
        self.told: set[str] = set()  # of those that another suite is at, one line each
        self.began, self.measured, self.expected = time.time(), 0.0, 0.0
        self._live: Live | None = None

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        name = str(event.job)
        if event.what == "started":
            self.at_work[name] = (event.job, time.time())
            return
        _, since = self.at_work.pop(name, (event.job, time.time()))
        if event.what != "busy":
            self.left.pop(name, None)
        took = time.time() - since
        if event.what == "done":
            self.measured += took
            self.expected += self.estimates.of(event.job).seconds or took
        if event.what == "found" or (event.what == "busy" and name in self.told):
            return
        self.told |= {name} if event.what == "busy" else set()
        line = f"{_MARKS[event.what]} {name}: {_WORDS[event.what]}"
        line += f", {duration(took)}" if event.what == "done" else ""
        line += f": {event.error}" if event.error else ""
        self.lines.append(line)
        if self._live is None:
            self.console.print(f"{line} ({self.total - len(self.left)}/{self.total}{self._remaining()})")

    def _remaining(self) -> str:
        """Return the time that what is left takes, at the pace of what was measured, or nothing."""
        seconds, unknown = self.estimates.total(list(self.left.values()))
        pace = self.measured / self.expected if self.expected else 1.0
        if not self.left or (unknown and unknown == len(self.left)):
            return ""
        more = f" and {unknown} runs never measured" if unknown else ""
        return f", about {duration(seconds * pace / max(len(self.at_work), 1))} left{more}"

    def __rich__(self) -> Group:
        """Draw what is going on, the epochs of each run read from its own log."""
        table = Table(
            title=f"{self.total - len(self.left)} of {self.total} runs{self._remaining()}", title_justify="left"
        )
        for heading in ("run", "epoch", "time"):
            table.add_column(heading, justify="left" if heading == "run" else "right")
        for name, (job, since) in list(self.at_work.items()):
            table.add_row(Text(name), self._epoch(job), duration(time.time() - since))
        done = [Text(line, style="red" if line.startswith("x") else "dim") for line in self.lines[-_LINES:]]
        return Group(*done, table)

    def _epoch(self, job: Job) -> str:
        if not job.config.model_class.trainable:
            return "-"
        address = self.store.address(job, make=False)
        most = job.config.training_options.epochs
        return f"{0 if address is None else self.store.epochs(address)}/{most}"


_WORDS: dict[str, Any] = {
    "done": "done",
    "failed": "failed",
    "stopped": "stopped, goes on next time",
    "busy": "another suite is at it",
}
