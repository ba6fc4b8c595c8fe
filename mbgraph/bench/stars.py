"""Is the subject of a study better than the best of the others, over users? Paired tests, corrected after Holm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mbgraph.bench.results import CellResult, Results
from mbgraph.evaluation.per_user import PerUser, read_per_user
from mbgraph.evaluation.significance import compare, holm
from mbgraph.run.directory import PER_USER
from mbgraph.typing import FloatArray

__all__ = ["PairedTest", "paired_tests", "significance"]

LEVEL = 0.05


@dataclass(frozen=True)
class PairedTest:
    """The subject against the best other row.

    Attributes
    ----------
    row, rival, metric : str
    difference : float
        Mean over users, the subject's minus the rival's.
    p, p_holm : float
        Two-sided p-value of the paired t-test, as it is and after Holm over the tests of the dataset.
    """

    row: str
    rival: str
    metric: str
    difference: float
    p: float
    p_holm: float = 1.0


def significance(results: Results, dataset: str) -> set[tuple[str, str]]:
    """Return (row, metric) of the subject's cells that differ from the best other row at 5 %."""
    return {(each.row, each.metric) for each in paired_tests(results, dataset) if each.p_holm < LEVEL}


def paired_tests(results: Results, dataset: str) -> list[PairedTest]:
    """Compare the subject's cells with the best other row at the same setting, anchors left out.

    A user's value is the mean over the seeds of a row. Holm's correction is over all tests of the dataset.
    """
    cells = [each for each in results.of(dataset) if each.cell.role != "anchor"]
    made: list[PairedTest] = []
    for own in cells:
        if own.cell.row != results.study.subject:
            continue
        rivals = [each for each in cells if each.cell.row != own.cell.row and each.cell.setting == own.cell.setting]
        for metric in results.study.metrics:
            scored = [(each.measured(metric).mean, n) for n, each in enumerate(rivals)]
            best = max(((mean, n) for mean, n in scored if mean is not None), default=None)
            if best is None or own.measured(metric).mean is None:
                continue
            rival = rivals[best[1]]
            found = _compared(results, rival, own, metric)
            if found is not None:
                made.append(PairedTest(own.cell.label, rival.cell.label, metric, *found))
    corrected = holm([each.p for each in made])
    return [replace(each, p_holm=p) for each, p in zip(made, corrected, strict=True)]


def _compared(results: Results, rival: CellResult, own: CellResult, metric: str) -> tuple[float, float] | None:
    first, second = (_by_user(results, each, metric) for each in (rival, own))
    shared = [user for user in first if user in second]
    if len(shared) < 2:
        return None
    found = compare(np.array([first[user] for user in shared]), np.array([second[user] for user in shared]))["value"]
    return found.difference, found.t_p


def _by_user(results: Results, each: CellResult, metric: str) -> dict[object, float]:
    """Return the mean over runs of every user's value."""
    parts: list[PerUser] = []
    for run in each.runs:
        if run.status == "done" and run.address is not None:
            file = results.store.run(run.address) / PER_USER["test"]
            if file.is_file():
                parts.append(read_per_user(file))
    if not parts or any(metric not in part.metrics for part in parts):
        return {}
    sums: dict[object, float] = {}
    for part in parts:
        values: FloatArray = part.metrics[metric]
        for user, value in zip(part.user_id.tolist(), values.tolist(), strict=True):
            sums[user] = sums.get(user, 0.0) + value / len(parts)
    return sums
