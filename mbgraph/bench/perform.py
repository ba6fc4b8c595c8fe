"""One job: found finished, continued, or run; whatever goes wrong in it is written down as its own."""

from __future__ import annotations

import errno
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mbgraph import run as runs
from mbgraph.bench.jobs import Job
from mbgraph.bench.store import Store
from mbgraph.config import FitConfig
from mbgraph.errors import MbgraphError, RunError
from mbgraph.training.callbacks import Callback
from mbgraph.training.trainer import Trainer

__all__ = ["Deadline", "Fit", "Performed", "perform"]

Fit = Callable[..., dict[str, Any]]
"""``fit(config, directory, callbacks)``, like `mbgraph.run.fit`; also called to continue what is in the directory."""


@dataclass(frozen=True)
class Performed:
    """What became of a job.

    Attributes
    ----------
    status : str
        ``found`` (it was finished before), ``done``, ``failed``, ``stopped`` (by Ctrl-C or the end of the budget; it
        can be continued), ``busy`` (somebody else is at it).
    address : str or None
    error : str
        Why it failed.
    interrupted : bool
        Whether Ctrl-C stopped it.
    """

    status: str
    address: str | None = None
    error: str = ""
    interrupted: bool = False


class Deadline(Callback):
    """Ends a training after the epoch at hand once a moment has passed."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    @property
    def has_passed(self) -> bool:
        """Whether it is over."""
        return time.time() >= self.moment

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """End the training as Ctrl-C does, after the checkpoint was written."""
        if self.has_passed:
            raise KeyboardInterrupt


def fit_or_resume(config: FitConfig, directory: Any, callbacks: list[Callback]) -> dict[str, Any]:
    """Fit a run, or continue what its directory holds."""
    if (directory / "dataset.json").is_file() and (directory / "config.toml").is_file():
        # made elsewhere, it may name a path that does not exist here; the content is compared in any case
        if config.dataset != "demo":
            from mbgraph.data.catalog import find_dataset

            runs.write_source(directory, str(find_dataset(config.dataset)))
        return runs.resume(directory, callbacks, config.threads)
    if directory.exists():  # killed before it had written what it is
        shutil.rmtree(directory)
    return runs.fit(config, directory, callbacks)


def perform(
    job: Job, store: Store, *, moment: float = float("inf"), threads: int = 0, fit: Fit = fit_or_resume
) -> Performed:
    """Make sure that a job's run is in the store.

    Parameters
    ----------
    job : Job
    store : Store
    moment : float
        Seconds since 1970 after which no epoch begins.
    threads : int
        CPU threads; 0 leaves torch's choice.
    fit : callable
        What trains.

    Raises
    ------
    RunError
        If the disk is full or the store cannot be written: no other job would fare better.
    """
    deadline, address = Deadline(moment), None
    try:
        address = store.address(job)
        assert address is not None
        if store.status(address) == "done":
            return Performed("found", address)
        store.open()
        with store.lock(address) as mine:
            if not mine:
                return Performed("busy", address)
            if store.status(address) == "done":
                return Performed("found", address)
            store.describe(address, job)
            config = job.config.replace(dataset=store.dataset(job.recipe), threads=threads)
            outcome = fit(config, store.run(address), [deadline])
            store.clear(address)
            if outcome["interrupted"]:
                return Performed("stopped", address, interrupted=not deadline.has_passed)
            return Performed("done", address)
    except KeyboardInterrupt:
        return Performed("stopped", address, interrupted=True)
    except Exception as error:
        if _is_full(error) or store.is_full:
            raise RunError(
                f"the disk of {store.path} is full", "free some space and start again: what is finished is kept"
            ) from error
        if address is None and not isinstance(error, MbgraphError):
            raise
        said = str(error) if isinstance(error, MbgraphError) else f"{type(error).__name__}: {error}"
        line = " ".join(said.split())
        store.open()
        store.fail(store.refused(job) if address is None else address, job, line, traceback.format_exc())
        return Performed("failed", address, line)


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
