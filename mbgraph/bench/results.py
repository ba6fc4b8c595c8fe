"""What a study came to: figures per run and per cell, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mbgraph.bench.facts import measured
from mbgraph.bench.jobs import Cell, Job
from mbgraph.bench.sources import facts_of
from mbgraph.bench.store import Store
from mbgraph.bench.study import Study
from mbgraph.evaluation.evaluate import GROUPS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CellResult", "Measured", "Results", "RunResult", "gather"]


@dataclass(frozen=True)
class RunResult:
    """One job and what it came to.

    Attributes
    ----------
    job : Job
    status : str
        ``done``, ``failed``, ``partial`` or ``missing``.
    address : str or None
    error : str
        Why it failed.
    outcome : mapping
        ``test.json`` of a finished run, otherwise empty.
    epochs : int
        Epochs so far.
    cut : float or None
        Seconds after which the training of a finished run was cut off; None where it ended by itself.
    """

    job: Job
    status: str
    address: str | None
    error: str = ""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 0
    cut: float | None = None

    def value(self, metric: str, group: str = "all") -> float | None:
        """Return a figure on the test pairs, None where there is none."""
        if self.status != "done":
            return None
        found = self.outcome["details"].get("test", {}).get("groups", {}).get(group, {}).get("metrics", {}).get(metric)
        return None if found is None else float(found)


@dataclass(frozen=True)
class Measured:
    """A figure over the runs of a cell.

    Attributes
    ----------
    mean : float or None
        None where no run is finished.
    sd : float or None
        Sample standard deviation over runs; None with fewer than two.
    n : int
        Finished runs.
    """

    mean: float | None = None
    sd: float | None = None
    n: int = 0

    @classmethod
    def over(cls, values: Sequence[float]) -> Measured:
        """Return mean and spread of some values."""
        if not values:
            return cls()
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, len(values))


@dataclass(frozen=True)
class CellResult:
    """All runs of a cell."""

    cell: Cell
    runs: tuple[RunResult, ...]

    def measured(self, metric: str, group: str = "all") -> Measured:
        """Return a figure over the finished runs."""
        return Measured.over([value for run in self.runs if (value := run.value(metric, group)) is not None])

    def cost(self, what: str) -> float | None:
        """Return the median of ``epochs``, ``seconds_per_epoch`` or ``peak_memory_mb`` over the finished runs."""
        found = [float(run.outcome[what]) for run in self.runs if run.status == "done"]
        return statistics.median(found) if found else None

    def by_seed(self, metric: str) -> dict[tuple[int, int | None], float]:
        """Return a figure by seed and seed of the noise."""
        found = {(run.job.seed, run.job.noise_seed): run.value(metric) for run in self.runs}
        return {key: value for key, value in found.items() if value is not None}

    @property
    def error(self) -> str:
        """Why a run failed, empty where none did."""
        return next((run.error for run in self.runs if run.status == "failed"), "")

    @property
    def num_cut(self) -> int:
        """How many runs were cut off before their training was over."""
        return sum(run.cut is not None for run in self.runs)

    @property
    def is_trained(self) -> bool:
        """Whether luck of a seed plays a part in it."""
        return self.runs[0].job.config.model_class.has_weights()


@dataclass(frozen=True)
class Results:
    """What a study came to.

    Attributes
    ----------
    study : Study
    datasets : tuple of str
    cells : tuple of CellResult
        Empty in a study of data.
    facts : mapping of str to mapping of str to float
        Figures by dataset in a study of data.
    store : Store
    notes : tuple of str
        What a reader must know.
    interrupted : bool
        Whether Ctrl-C or the budget ended it before all was done.
    """

    study: Study
    datasets: tuple[str, ...]
    cells: tuple[CellResult, ...]
    facts: Mapping[str, Mapping[str, float]]
    store: Store
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    @cached_property
    def synthetic(self) -> tuple[str, ...]:
        """Datasets that are generated."""
        return tuple(name for name in self.datasets if facts_of(name).synthetic)

    def of(self, dataset: str) -> list[CellResult]:
        """Return the cells of a dataset, models first, anchors last."""
        found = [each for each in self.cells if each.cell.dataset == dataset]
        return sorted(found, key=lambda each: each.cell.role == "anchor")

    def published(self, dataset: str, row: str, metric: str) -> float | None:
        """Return what was published for a cell; only beside the very data that it was published for."""
        if not facts_of(dataset).as_published:
            return None
        for entry in self.study.published:
            if (entry.dataset, entry.row) == (dataset, row) and metric in entry.figures:
                return float(entry.figures[metric])
        return None

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by status."""
        found: dict[str, int] = {}
        for each in self.cells:
            for run in each.runs:
                found[run.status] = found.get(run.status, 0) + 1
        return found

    def to_frame(self) -> pd.DataFrame:
        """Return one row per run, group and metric, with what the run is and its ``value``.

        A run that is not finished has one row without a value, and its error where it failed.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {
                "study": self.study.name,
                "dataset": dataset,
                "synthetic": dataset in self.synthetic,
                "metric": metric,
                "value": value,
                "status": "done",
            }
            for dataset, found in self.facts.items()
            for metric, value in found.items()
        ]
        for each in self.cells:
            rows += [row for run in each.runs for row in self._rows(each.cell, run)]
        return pd.DataFrame(rows)

    def _rows(self, cell: Cell, run: RunResult) -> list[dict[str, Any]]:
        shared = {
            "study": self.study.name,
            "dataset": cell.dataset,
            "synthetic": cell.dataset in self.synthetic,
            "row": cell.row,
            "setting": cell.setting,
            "role": cell.role,
            "model": run.job.config.model,
            "variant": getattr(run.job.config.model_options, "variant", None) or "",
            "seed": run.job.seed,
            "noise_seed": run.job.noise_seed,
            "status": run.status,
            "error": run.error,
            "run": run.address or "",
            "cut_s": run.cut,
        }
        if run.status != "done":
            return [{**shared, "group": "all", "metric": "", "value": None}]
        shared |= {key: run.outcome[key] for key in ("epochs", "best_epoch", "seconds_per_epoch", "peak_memory_mb")}
        return [
            {**shared, "group": group, "metric": metric, "value": run.value(metric, group)}
            for group in GROUPS
            for metric in self.study.metrics
        ]

    def summary(self) -> pd.DataFrame:
        """Return one row per cell and metric: mean, sd, number of runs, published value, relative difference."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for dataset, found in self.facts.items():
            for metric, value in found.items():
                row = {"dataset": dataset, "synthetic": dataset in self.synthetic, "metric": metric, "mean": value}
                rows.append(_beside(row, self.published(dataset, "", metric)))
        for each in self.cells:
            cell = each.cell
            for metric in self.study.metrics:
                got = each.measured(metric)
                row = {
                    "dataset": cell.dataset,
                    "synthetic": cell.dataset in self.synthetic,
                    "row": cell.row,
                    "setting": cell.setting,
                    "role": cell.role,
                    "metric": metric,
                    "mean": got.mean,
                    "sd": got.sd,
                    "n": got.n,
                    "visited": each.measured(metric, "visited").mean,
                    "unvisited": each.measured(metric, "unvisited").mean,
                    "error": each.error,
                    "cut": each.num_cut,
                }
                rows.append(_beside(row, self.published(cell.dataset, cell.label, metric)))
        return pd.DataFrame(rows)


def _beside(row: dict[str, Any], published: float | None) -> dict[str, Any]:
    difference = None if published is None or row["mean"] is None else row["mean"] / published - 1
    return {**row, "published": published, "difference": difference}


def gather(
    study: Study,
    datasets: Sequence[str],
    jobs: Sequence[Job],
    store: Store,
    *,
    notes: Sequence[str] = (),
    interrupted: bool = False,
) -> Results:
    """Read what the store has of a study; computes nothing but facts about data."""
    runs: dict[Cell, list[RunResult]] = {}
    for job in jobs:
        address = store.address(job, make=False)
        status = store.status(address)
        error, outcome = "", {}
        if address is None and store.status(store.refused(job)) == "failed":
            status, error = "failed", store.error(store.refused(job))
        elif address is not None and status == "failed":
            error = store.error(address)
        elif address is not None and status == "done":
            outcome = store.outcome(address)
        epochs = 0 if address is None else store.epochs(address)
        cut = store.cut(address) if address is not None and status == "done" else None
        runs.setdefault(job.cell, []).append(RunResult(job, status, address, error, outcome, epochs, cut))
    facts = {name: measured(name, study.metrics) for name in datasets} if study.kind == "statistics" else {}
    cells = tuple(CellResult(cell, tuple(each)) for cell, each in runs.items())
    return Results(study, tuple(datasets), cells, facts, store, tuple(notes), interrupted)
