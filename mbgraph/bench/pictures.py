"""Pictures of studies and runs as SVG and PNG, with matplotlib (the extra ``plot``)."""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.bench.curves import Panel, heat_map, noise_panels, option_panels
from mbgraph.bench.results import Results
from mbgraph.errors import UsageError
from mbgraph.evaluation.evaluate import GROUPS
from mbgraph.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "draw_panels", "need_matplotlib", "save", "study_figures", "svg", "write_pictures"]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # told apart by everybody
_MARKS = "os^Dv<>"
_INSIDE = 4  # lines whose names a panel has room for


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def need_matplotlib() -> None:
    """Raise `UsageError` where matplotlib is not installed."""
    if not can_draw():
        raise UsageError("pictures need matplotlib", 'install it with: pip install "mbgraph[plot]"')


def new_figure(columns: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row; no window system is asked for."""
    need_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def draw_panels(panels: Sequence[Panel], note: str = "") -> Figure:
    """Return a figure of panels side by side, two in a row."""
    columns = min(len(panels), 2)
    figure, axes = new_figure(columns, math.ceil(len(panels) / columns))
    names = {tuple(line.name for line in panel.lines) for panel in panels}
    shared = len(names) == 1 and len(next(iter(names))) > _INSIDE
    for ax, panel in zip(axes, panels, strict=False):
        for number, line in enumerate(panel.lines):
            color, mark = _COLORS[number % len(_COLORS)], _MARKS[number % len(_MARKS)]
            many = len(line.x) > 40
            x, y = np.asarray(line.x, float), np.asarray(line.y, float)
            style = "-" if number < len(_COLORS) else "--"
            ax.plot(x, y, color=color, linestyle=style, marker="" if many else mark, markersize=4, label=line.name)
            if any(line.spread):
                spread = np.asarray(line.spread, float)
                ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.15, linewidth=0)
        ax.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        if panel.log:
            ax.set_yscale("log")
        ax.grid(alpha=0.3)
        if panel.lines and not shared:
            ax.legend(fontsize="small")
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    if shared:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    _above(figure, note)
    return figure


def _above(figure: Figure, note: str) -> None:
    if note:
        figure.suptitle(note, fontsize="small", color="#B00020")


def study_figures(results: Results) -> dict[str, Callable[[], Figure]]:
    """Return what can be drawn of a study by name, each drawn when it is called."""
    made: dict[str, Callable[[], Figure]] = {}
    study = results.study
    for dataset in results.datasets if results.cells else ():
        name = file_name(Path(dataset).name)
        note = "SYNTHETIC data" if dataset in results.synthetic else ""
        if study.noise is not None:
            for metric in study.metrics:
                panels = noise_panels(results, dataset, metric)
                if panels[0].lines:
                    made[f"{name}-noise-{metric}"] = partial(draw_panels, panels, note)
        elif study.grid:
            panels = option_panels(results, dataset, study.metrics)
            if panels:
                made[f"{name}-options"] = partial(draw_panels, panels, note)
            for row in dict.fromkeys(each.cell.row for each in results.of(dataset)):
                grid = heat_map(results, dataset, row, study.metrics[0])
                if grid is not None:
                    title = f"{dataset}: {row}, {study.metrics[0]}"
                    made[f"{name}-grid-{row}"] = partial(_heat, grid, title, note)
        elif any(each.measured(study.metrics[0]).n for each in results.of(dataset)):
            made[f"{name}-groups"] = partial(_groups, results, dataset, note)
    return made


def file_name(text: str) -> str:
    """Return a text as a piece of a file's name."""
    return "-".join(re.findall(r"[A-Za-z0-9_.]+", text)).strip("-.")


def _heat(grid: Any, title: str, note: str) -> Figure:
    (first, second), x, y, values = grid
    figure, (ax,) = new_figure(1)
    image = ax.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    ax.set(title=title, xlabel=first, ylabel=second)
    ax.set_xticks(range(len(x)), [f"{value:g}" for value in x])
    ax.set_yticks(range(len(y)), [f"{value:g}" for value in y])
    middle = np.nanmean(values) if np.isfinite(values).any() else 0.0
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(column, row, f"{value:.4f}", ha="center", va="center", fontsize="x-small",
                    color="black" if value > middle else "white")  # fmt: skip
    figure.colorbar(image, ax=ax)
    _above(figure, note)
    return figure


def _groups(results: Results, dataset: str, note: str) -> Figure:
    """Draw the first metric over all, visited and unvisited pairs, a bar per row."""
    metric, cells = results.study.metrics[0], results.of(dataset)
    figure, (ax,) = new_figure(1)
    figure.set_size_inches(7.5, 1.2 + 0.42 * len(cells))
    height = 0.8 / len(GROUPS)
    for number, group in enumerate(GROUPS):
        measured = [each.measured(metric, group) for each in cells]
        places = np.arange(len(cells)) + (number - 1) * height
        means = [got.mean if got.mean is not None else 0.0 for got in measured]
        ax.barh(places, means, height, xerr=[got.sd or 0.0 for got in measured], label=group, color=_COLORS[number])
    ax.set_yticks(range(len(cells)), [each.cell.label for each in cells])
    ax.invert_yaxis()
    ax.set(title=f"{dataset}: {metric} by kind of pair", xlabel=metric)
    ax.legend(fontsize="small")
    _above(figure, note)
    return figure


def bars(title: str, labels: Sequence[str], values: Sequence[float], x_label: str, y_label: str) -> Figure:
    """Return a figure of one bar per label."""
    figure, (ax,) = new_figure(1)
    ax.bar(range(len(labels)), values, color=_COLORS[0])
    ax.set_xticks(range(len(labels)), labels)
    ax.set(title=title, xlabel=x_label, ylabel=y_label)
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same bytes for the same figure."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "mbgraph", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``STEM.svg`` and ``STEM.png``; return both paths."""
    with atomic_write(f"{stem}.svg", "w") as file:
        file.write(svg(figure))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    with atomic_write(f"{stem}.png") as file:
        file.write(buffer.getvalue())
    return [Path(f"{stem}.svg"), Path(f"{stem}.png")]


def write_pictures(results: Results, folder: str | Path) -> list[Path]:
    """Write every picture of a study as ``NAME-PICTURE.svg`` and ``.png``.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    need_matplotlib()
    written: list[Path] = []
    for name, draw in study_figures(results).items():
        written += save(draw(), Path(folder) / f"{results.study.name}-{file_name(name)}")
    return written
