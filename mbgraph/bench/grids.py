"""Results as plain grids of text, which every writer of tables shares: what stands where, what is best and second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mbgraph.bench.jobs import CLEAN
from mbgraph.bench.results import CellResult, Results, RunResult
from mbgraph.bench.sources import facts_of
from mbgraph.bench.stars import significance
from mbgraph.files import read_json

__all__ = ["Box", "Grid", "accuracy_grid", "caption", "grids", "noise_grids", "statistics_grid"]

NOT_RUN = "-"
CUT = "†"
_COSTS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "epochs": ("epochs", "{:.0f}".format),
    "seconds_per_epoch": ("s per epoch", "{:.3g}".format),
    "peak_memory_mb": ("peak MiB", "{:,.0f}".format),
}


@dataclass(frozen=True)
class Box:
    """One place of a grid.

    Attributes
    ----------
    text : str
    best, second : bool
    """

    text: str
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes
    ----------
    title : str
    columns : tuple of str
    rows : list of tuple of Box
    rule : int or None
        Row before which a rule stands: the anchors begin there.
    caption : str
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Box, ...]]
    rule: int | None = None
    caption: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def grids(results: Results) -> list[Grid]:
    """Return the tables of a study: one per dataset, one per dataset and metric under noise, one in all of data."""
    study = results.study
    if study.kind == "statistics":
        return [statistics_grid(results)]
    if study.noise is not None:
        return [grid for dataset in results.datasets for grid in noise_grids(results, dataset)]
    return [accuracy_grid(results, dataset) for dataset in results.datasets]


def statistics_grid(results: Results) -> Grid:
    """Return datasets as rows and figures as columns, each with ``=`` or with the published figure in brackets."""
    rows = []
    for dataset in results.datasets:
        boxes = [Box(_named(dataset))]
        for metric in results.study.metrics:
            value, published = results.facts[dataset].get(metric), results.published(dataset, "", metric)
            text = NOT_RUN if value is None else _figure(metric, value)
            if value is not None and published is not None:
                same = _figure(metric, published) == text
                text += " =" if same else f" ({_figure(metric, published)})"
            boxes.append(Box(text))
        rows.append(tuple(boxes))
    columns = ("dataset", *(_heading(metric) for metric in results.study.metrics))
    return Grid(results.study.title, columns, rows, caption=caption(results))


def accuracy_grid(results: Results, dataset: str) -> Grid:
    """Return one line per cell: mean and spread of every metric, published value and difference where there is one."""
    study, cells = results.study, results.of(dataset)
    metrics = study.metrics
    with_published = [m for m in metrics if any(results.published(dataset, c.cell.label, m) is not None for c in cells)]
    places = {metric: _places(cells, metric) for metric in metrics}
    stars = significance(results, dataset)
    columns = ["", "runs"]
    for metric in metrics:
        columns.append(metric)
        if metric in with_published:
            columns += ["paper", "diff."]
    columns += [f"{metrics[0]} {group}" for group in ("visited", "unvisited")]
    columns += [shown for shown, _ in _COSTS.values()] if study.costs else []
    rows = []
    for number, each in enumerate(cells):
        boxes = [Box(each.cell.label), _finished([each])]
        for metric in metrics:
            box = Box(_cell(each, metric), *places[metric].get(number, (False, False)))
            if each.cell.row == study.subject and (each.cell.label, metric) in stars:
                box = replace(box, text=f"{box.text}*")
            boxes.append(box)
            if metric in with_published:
                boxes += _published(results, each, metric)
        for group in ("visited", "unvisited"):
            mean = each.measured(metrics[0], group).mean
            boxes.append(Box(NOT_RUN if mean is None else f"{mean:.4f}"))
        boxes += [_cost(each, what) for what in _COSTS] if study.costs else []
        rows.append(tuple(boxes))
    title = f"{study.title}: {_named(dataset)}"
    return Grid(title, tuple(columns), rows, _rule(cells), caption(results, dataset), _errors(cells))


def noise_grids(results: Results, dataset: str) -> list[Grid]:
    """Return a grid per metric, a line per row: without noise and at every level, in brackets the change from none."""
    study, cells = results.study, results.of(dataset)
    levels = list(dict.fromkeys(each.cell.setting for each in cells))
    clean = [each for each in cells if each.cell.setting == CLEAN]
    stars = significance(results, dataset)
    heads = [(Box(start.cell.row), _finished([e for e in cells if e.cell.row == start.cell.row])) for start in clean]
    said = f"{caption(results, dataset)} In brackets: the change from the same row without noise."

    def column(level: str, metric: str) -> list[Box]:
        at = {each.cell.row: each for each in cells if each.cell.setting == level}
        there = [at.get(start.cell.row) for start in clean]
        places, boxes = _places(there, metric), []
        for number, (start, each) in enumerate(zip(clean, there, strict=True)):
            is_starred = each is start and start.cell.row == study.subject and (start.cell.row, metric) in stars
            text = f"{_cell(each, metric)}{'*' if is_starred else ''}{_change(start, each, metric)}" if each else ""
            boxes.append(Box(text, *places.get(number, (False, False))))
        return boxes

    found: list[Grid] = []
    for metric in study.metrics:
        body = zip(*(column(level, metric) for level in levels), strict=True)
        rows = [(*head, *boxes) for head, boxes in zip(heads, body, strict=True)]
        title = f"{study.title}: {_named(dataset)}, {metric}"
        notes = [] if found else _errors(cells)  # once: a failed run fails in every metric
        found.append(Grid(title, ("", "runs", *levels), rows, _rule(clean), said, notes))
    return found


def _rule(cells: Sequence[CellResult]) -> int | None:
    """Return the number of the first anchor, None without one or where all are."""
    return next((number for number, each in enumerate(cells) if each.cell.role == "anchor"), None) or None


def _errors(cells: Sequence[CellResult]) -> list[str]:
    return [f"{run.job}: {run.error}" for each in cells for run in each.runs if run.error]


def _finished(cells: Sequence[CellResult]) -> Box:
    """Return how many runs of a row there are, of how many, marked where one was cut off."""
    runs = [run for each in cells for run in each.runs]
    done = sum(run.status == "done" for run in runs)
    return Box(f"{done}/{len(runs)}{CUT if any(each.num_cut for each in cells) else ''}")


def _cell(each: CellResult, metric: str) -> str:
    got = each.measured(metric)
    if got.mean is None:
        return "failed" if each.error else NOT_RUN
    spread = f" ± {got.sd:.4f}" if got.sd is not None else ""
    return f"{got.mean:.4f}{spread}" + (" (a run failed)" if each.error else "")


def _cost(each: CellResult, what: str) -> Box:
    value = each.cost(what) if each.is_trained or what == "peak_memory_mb" else None
    return Box(NOT_RUN if value is None else _COSTS[what][1](value))


def _published(results: Results, each: CellResult, metric: str) -> list[Box]:
    value, mean = results.published(each.cell.dataset, each.cell.label, metric), each.measured(metric).mean
    if value is None:
        return [Box(""), Box("")]
    return [Box(f"{value:.4f}"), Box(NOT_RUN if mean is None else f"{mean / value - 1:+.1%}")]


def _places(cells: Sequence[CellResult | None], metric: str) -> Mapping[int, tuple[bool, bool]]:
    """Return (best, second) by number of the cell, among rows that are no anchors."""
    means: dict[int, float] = {}
    for number, each in enumerate(cells):
        mean = None if each is None or each.cell.role == "anchor" else each.measured(metric).mean
        if mean is not None:
            means[number] = mean
    ranked = sorted(set(means.values()), reverse=True)
    return {n: (mean == ranked[0], mean in ranked[1:2]) for n, mean in means.items()} if len(means) > 1 else {}


def _change(clean: CellResult, each: CellResult, metric: str) -> str:
    """Return what noise makes of a row's mean, relative to none, in brackets; nothing without noise."""
    before, after = clean.measured(metric).mean, each.measured(metric).mean
    return "" if each.cell.setting == CLEAN or not before or after is None else f" ({after / before - 1:+.1%})"


def caption(results: Results, dataset: str | None = None) -> str:
    """Return what a reader must know about the figures: data, split, protocol, number of runs, tests."""
    parts = []
    chosen = results.datasets if dataset is None else (dataset,)
    made = [name for name in chosen if facts_of(name).synthetic]
    if made:
        parts.append(f"SYNTHETIC data ({', '.join(made)}): generated by mbgraph, no result about any shop.")
    if dataset is not None:
        parts += _protocol(results, dataset)
    elif any(results.published(name, "", metric) is not None for name in chosen for metric in results.study.metrics):
        parts.append(f"=: as published in {_place(results, chosen)}; another published figure stands in brackets.")
    return " ".join(parts)


def _protocol(results: Results, dataset: str) -> list[str]:
    cells = results.of(dataset)
    runs = [run for each in cells for run in each.runs if run.status == "done"]
    most = max((len(each.runs) for each in cells), default=0)
    parts = [f"Mean ± standard deviation over up to {most} runs per row." if most > 1 else "One run per row."]
    if runs:
        options = runs[0].job.config.evaluation_options
        protocols = sorted({run.job.config.protocol for run in runs})
        chosen = sorted({run.job.config.evaluation_options.metric for run in runs})
        users = sorted({run.outcome["users_evaluated"] for run in runs})
        held = sorted({kind for run in runs if (kind := _validation(results, run)) in _HELD})
        ways = " and ".join(_HELD[kind] for kind in held)
        epoch = f"epoch by {ways} validation {', '.join(chosen)}" if held else "the last epoch"
        parts.append(
            f"Test pairs of the split {', '.join(protocols)}, {', '.join(f'{n:,}' for n in users)} users, all items "
            f"ranked, mask {options.mask}, {options.ties} ties, {epoch}."
        )
    if any(each.cell.role == "anchor" for each in cells):
        parts.append("Bold best and underlined second leave out the anchors below the line.")
    if results.study.subject and len(cells) > 1:
        parts.append(
            f"*: {results.study.subject} differs from the best other row (paired t-test over users, p < 0.05 after "
            "Holm)."
        )
    cut = [f"{each.cell.label} {_where_cut(run)}" for each in cells for run in each.runs if run.cut is not None]
    if cut:
        parts.append(f"{CUT}: a training was cut off: {'; '.join(cut)}.")
    if results.study.costs:
        parts.append("Costs are medians over the runs, times with what else the machine did.")
    if any(entry.dataset == dataset for entry in results.study.published) and facts_of(dataset).as_published:
        parts.append(f"Published: {_place(results, [dataset])}.")
    return parts


def _where_cut(run: RunResult) -> str:
    epochs = f"{run.outcome['epochs']} of {run.job.config.training_options.epochs} epochs"
    return f"(seed {run.job.seed}) after {(run.cut or 0) / 60:.3g} min, {epochs}"


def _validation(results: Results, run: RunResult) -> str:
    """Return what selected a run's epoch: given, holdout, or none."""
    file = results.store.run(str(run.address)) / "dataset.json"
    return str(read_json(file)["validation"]) if file.is_file() and run.outcome["epochs"] else "none"


_HELD = {"given": "the dataset's", "holdout": "a held-out train pair per user as"}


def _place(results: Results, datasets: Sequence[str]) -> str:
    return ", ".join(sorted({entry.place for entry in results.study.published if entry.dataset in datasets}))


def _named(dataset: str) -> str:
    return f"{dataset} (synthetic)" if facts_of(dataset).synthetic else dataset


def _heading(metric: str) -> str:
    kind, _, behavior = metric.partition(":")
    return {"bar": f"BAR {behavior}", "count": behavior, "dt": "DT"}.get(kind, metric)


def _figure(metric: str, value: float) -> str:
    return f"{value:.4f}" if metric == "dt" or metric.startswith("bar:") else f"{value:,.0f}"
