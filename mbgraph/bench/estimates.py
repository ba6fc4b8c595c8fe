"""What is left of a study would take, from the epochs that the store has measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mbgraph.bench.jobs import Job
from mbgraph.bench.store import Store

__all__ = ["Estimate", "Estimates"]


@dataclass(frozen=True)
class Estimate:
    """What a run would take; None where nothing like it has been measured.

    Attributes
    ----------
    seconds : float or None
    epochs : int or None
    memory_mb : float or None
        Peak of the process.
    """

    seconds: float | None = None
    epochs: int | None = None
    memory_mb: float | None = None


class Estimates:
    """Medians of the finished runs of a store, by dataset, model and variant.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._known: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for job, outcome in store.finished():
            for key in (
                (job["dataset"], job["model"], job["variant"]),
                (job["dataset"], job["model"]),
            ):
                self._known.setdefault(key, []).append(outcome)

    def of(self, job: Job) -> Estimate:
        """Return what a job would take: as many epochs as its like took, each as long as theirs."""
        config, dataset = job.config, job.cell.dataset
        variant = getattr(config.model_options, "variant", None)
        for key in ((dataset, config.model, variant), (dataset, config.model)):
            like = self._known.get(key)
            if like:
                break
        else:
            return Estimate()
        memory = statistics.median(float(each["peak_memory_mb"]) for each in like)
        if not config.model_class.has_weights():
            return Estimate(0.0, 0, memory)
        epochs = min(config.training_options.epochs, round(statistics.median(each["epochs"] for each in like)))
        seconds = epochs * statistics.median(each["seconds_per_epoch"] for each in like)
        return Estimate(seconds, epochs, memory)

    def total(self, jobs: Sequence[Job]) -> tuple[float, int]:
        """Return the seconds of all jobs together, and how many of them nothing is known about."""
        each = [self.of(job).seconds for job in jobs]
        return sum(seconds for seconds in each if seconds is not None), sum(seconds is None for seconds in each)
