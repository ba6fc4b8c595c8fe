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

__all__ = ["Deadline", "Fit", "Limit", "Performed", "is_finished", "perform"]

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


class Limit(Callback):
    """Ends a training after the epoch at hand once its epochs took so long, over all calls that trained them."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.is_reached = seconds, False

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """End the training as Ctrl-C does, unless it is over anyway."""
        took = sum(sum(each["seconds"].values()) for each in trainer.records)
        if took >= self.seconds and not trainer.is_over:
            self.is_reached = True
            raise KeyboardInterrupt


def fit_or_resume(config: FitConfig, directory: Any, callbacks: list[Callback]) -> dict[str, Any]:
    """Fit a run, or continue what its directory holds, up to the epochs of ``config``."""
    if (directory / "dataset.json").is_file() and (directory / "config.toml").is_file():
        # made elsewhere, it may name a path that does not exist here; the content is compared in any case
        if config.dataset != "demo":
            from mbgraph.data.catalog import find_dataset

            runs.write_source(directory, str(find_dataset(config.dataset)))
        epochs = config.training_options.epochs
        other = runs.Run.load(directory).config.training_options.epochs != epochs
        return runs.resume(directory, callbacks, config.threads, epochs=epochs if other else None)
    if directory.exists():  # killed before it had written what it is
        shutil.rmtree(directory)
    return runs.fit(config, directory, callbacks)


def is_finished(store: Store, address: str | None, limit: float | None = None) -> bool:
    """Tell whether nothing of a run is left to do: it is done, and was not cut off before ``limit`` seconds."""
    if address is None or store.status(address) != "done":
        return False
    cut = store.cut(address)
    return cut is None or limit is None or limit <= cut


def perform(
    job: Job,
    store: Store,
    *,
    moment: float = float("inf"),
    limit: float | None = None,
    threads: int = 0,
    fit: Fit = fit_or_resume,
) -> Performed:
    """Make sure that a job's run is in the store.

    Parameters
    ----------
    job : Job
    store : Store
    moment : float
        Seconds since 1970 after which no epoch begins.
    limit : float, optional
        Seconds of training and validation after which the run is cut off: it is judged as it stands then, and marked.
        One that an earlier call cut off before goes on.
    threads : int
        CPU threads; 0 leaves torch's choice.
    fit : callable
        What trains.

    Raises
    ------
    RunError
        If the disk is full or the store cannot be written: no other job would fare better.
    """
    deadline, cut, address = Deadline(moment), Limit(float("inf") if limit is None else limit), None
    try:
        address = store.address(job)
        assert address is not None
        if is_finished(store, address, limit):
            return Performed("found", address)
        store.open()
        with store.lock(address) as mine:
            if not mine:
                return Performed("busy", address)
            if is_finished(store, address, limit):
                return Performed("found", address)
            store.describe(address, job)
            config = job.config.replace(dataset=store.dataset(job.recipe), threads=threads)
            outcome = fit(config, store.run(address), [deadline, cut])
            if cut.is_reached:
                epochs = outcome["epochs"]
                store.cut_off(address, cut.seconds, epochs)  # first: a mark without a run says nothing
                outcome = fit(config.replace(training={**config.training, "epochs": epochs}), store.run(address), [])
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
