"""What pictures are drawn from, as plain numbers: noise curves, lines and grids of options, training, users."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.bench.jobs import CLEAN
from mbgraph.bench.results import CellResult, Results
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.errors import DataError
from mbgraph.typing import FloatArray

__all__ = [
    "Line",
    "Panel",
    "activity_groups",
    "epoch_records",
    "heat_map",
    "noise_panels",
    "option_panels",
    "training_panels",
]

BINS = 5


@dataclass(frozen=True)
class Line:
    """A named line.

    Attributes
    ----------
    name : str
    x, y : sequence of float
    spread : sequence of float
        Standard deviation of each y, 0 where there is none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Lines over one axis.

    Attributes
    ----------
    title, x_label, y_label : str
    lines : list of Line
    log : bool
        Whether y spans orders of magnitude.
    """

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    log: bool = False


def noise_panels(results: Results, dataset: str, metric: str) -> list[Panel]:
    """Return the metric over the noise, and how much of it is lost, as Figures 3 and 5 draw them.

    Shares removed stand left of 0, shares added right of it.
    """
    rows: dict[str, list[CellResult]] = {}
    for each in results.of(dataset):
        if each.cell.setting:
            rows.setdefault(each.cell.row, []).append(each)
    absolute, drops = [], []
    for name, cells in rows.items():
        found = sorted((_share(each.cell.setting), each.measured(metric), each) for each in cells)
        points = [(share, got, each) for share, got, each in found if got.mean is not None]
        if not points:
            continue
        x, y = [share for share, *_ in points], [float(got.mean or 0) for _, got, _ in points]
        absolute.append(Line(name, x, y, [got.sd or 0.0 for _, got, _ in points]))
        clean = next((value for share, value in zip(x, y, strict=True) if share == 0), None)
        if clean:
            drops.append(Line(name, x, [(clean - value) / clean for value in y]))
    label = "share of auxiliary edges removed (-) or added (+)"
    return [
        Panel(f"{dataset}: {metric}", label, metric, absolute),
        Panel(f"{dataset}: relative drop of {metric}", label, "(clean - noisy) / clean", drops),
    ]


def _share(setting: str) -> float:
    if setting == CLEAN:
        return 0.0
    verb, _, share = setting.partition(" ")
    return (-1 if verb == "remove" else 1) * float(share.rstrip("%")) / 100


def option_panels(results: Results, dataset: str, metrics: Sequence[str]) -> list[Panel]:
    """Return one panel per option that is varied alone, a line per metric and row (Figure 4)."""
    found: dict[str, dict[str, list[tuple[float, Any]]]] = {}
    for each in results.of(dataset):
        point = _point(each.cell.setting)
        if len(point) != 1:
            continue
        ((option, value),) = point.items()
        for metric in metrics:
            got = each.measured(metric)
            if got.mean is not None:
                found.setdefault(option, {}).setdefault(f"{each.cell.row} {metric}", []).append((value, got))
    return [
        Panel(
            f"{dataset}: {option}",
            option,
            ", ".join(metrics),
            [
                Line(
                    name, [x for x, _ in points], [got.mean for _, got in points], [got.sd or 0.0 for _, got in points]
                )
                for name, points in ((name, sorted(points, key=lambda p: p[0])) for name, points in lines.items())
            ],
        )
        for option, lines in found.items()
    ]


def heat_map(
    results: Results, dataset: str, row: str, metric: str
) -> tuple[tuple[str, str], list[float], list[float], FloatArray] | None:
    """Return the two options that a row is varied over together, their values and the metric.

    Returns
    -------
    options : pair of str
    x, y : list of float
        Values of the first and of the second.
    values : float64 array (len(y), len(x))
        NaN where no run is finished; None in place of everything where there is no such grid.
    """
    points = [
        (point, each.measured(metric).mean)
        for each in results.of(dataset)
        if each.cell.row == row and len(point := _point(each.cell.setting)) == 2
    ]
    if not points:
        return None
    first, second = list(points[0][0])
    x, y = (sorted({point[name] for point, _ in points}) for name in (first, second))
    values = np.full((len(y), len(x)), np.nan)
    for point, mean in points:
        if mean is not None:
            values[y.index(point[second]), x.index(point[first])] = mean
    return (first, second), x, y, values


def _point(setting: str) -> dict[str, float]:
    """Return the values in a grid's setting, those that are numbers."""
    made = {}
    for part in setting.split(", "):
        option, equals, text = part.partition("=")
        try:
            if equals:
                made[option] = float(text)
        except ValueError:
            return {}
    return made


def epoch_records(log: str | Path) -> list[dict[str, Any]]:
    """Return what a run has noted of its epochs in ``metrics.jsonl``; raises `DataError` if that cannot be read."""
    try:
        return [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {log}: {error}", "fit the model again") from error


def training_panels(log: str | Path) -> list[Panel]:
    """Return the terms, their gradient norms and the validation metrics of a run over its epochs.

    Parameters
    ----------
    log : path
        ``metrics.jsonl`` of a run.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    records = epoch_records(log)
    titles = {"terms": "weighted terms", "gradient_norms": "gradient norm of each term", "valid": "validation"}
    panels = []
    for key, title in titles.items():
        names = dict.fromkeys(name for record in records for name in record.get(key, {}))
        if key == "valid":
            names = {name: None for name in names if name.partition("@")[0] in ("HR", "NDCG")}
        lines = [_over_epochs(records, key, name) for name in names]
        positive = all(value > 0 for line in lines for value in line.y)
        if lines:
            panels.append(Panel(title, "epoch", title, lines, log=positive and key != "valid"))
    return panels


def _over_epochs(records: Sequence[Mapping[str, Any]], key: str, name: str) -> Line:
    points = [(record["epoch"], record[key][name]) for record in records if name in record.get(key, {})]
    return Line(name, [float(epoch) for epoch, _ in points], [float(value) for _, value in points])


def activity_groups(
    dataset: MultiBehaviorDataset, user_ids: np.ndarray[Any, Any], values: FloatArray, bins: int = BINS
) -> list[dict[str, Any]]:
    """Return a metric by how much users bought in train: groups of about as many users, ties kept together.

    Parameters
    ----------
    dataset : MultiBehaviorDataset
    user_ids : array (n,)
        Original ids.
    values : float array (n,)
        A metric per user.
    bins : int
        Most groups.

    Returns
    -------
    list of dict
        ``least`` and ``most`` train target pairs of a user in the group, ``users``, ``mean``.
    """
    degree = dataset.csr(dataset.target).degrees()
    row_of = {str(name): row for row, name in enumerate(dataset.users.ids.tolist())}
    bought = np.array([degree[row_of[str(name)]] for name in user_ids.tolist()])
    edges = np.unique(np.quantile(bought, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    group = np.searchsorted(edges, bought, side="left")  # those at an edge belong to the group below it
    return [
        {
            "least": int(bought[group == number].min()),
            "most": int(bought[group == number].max()),
            "users": int((group == number).sum()),
            "mean": float(values[group == number].mean()),
        }
        for number in np.unique(group)
    ]
