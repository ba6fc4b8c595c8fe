"""From a study to its cells and their jobs: one job is one configuration on one recipe of data with one seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mbgraph.bench.reading import grid_points
from mbgraph.bench.sources import Recipe, facts_of
from mbgraph.bench.study import Pieces, Row, Study
from mbgraph.config import FitConfig
from mbgraph.data.aliases import canonical_behavior
from mbgraph.schema import shown

__all__ = ["Cell", "Job", "expand", "in_rounds", "quick"]

CLEAN = "no noise"


@dataclass(frozen=True)
class Cell:
    """One cell of the table, which holds the figures of all its seeds.

    Attributes
    ----------
    dataset, row : str
    setting : str
        The noise level or the grid's point, empty where there is neither.
    role : str
        ``model`` or ``anchor``.
    """

    dataset: str
    row: str
    setting: str = ""
    role: str = "model"

    @property
    def label(self) -> str:
        """What a table and a claim call the cell's line."""
        return f"{self.row}, {self.setting}" if self.setting and self.setting != CLEAN else self.row

    def __str__(self) -> str:
        return f"{self.dataset}: {self.label}"


@dataclass(frozen=True)
class Job:
    """One run of a cell.

    Attributes
    ----------
    cell : Cell
    config : FitConfig
        Its ``dataset`` is still the plain name; the recipe says what becomes of it.
    recipe : Recipe
    noise_seed : int or None
        Seed of the perturbation, None without noise.
    """

    cell: Cell
    config: FitConfig
    recipe: Recipe
    noise_seed: int | None = None

    @property
    def seed(self) -> int:
        """Seed of initialisation and sampling."""
        return self.config.seed

    def __str__(self) -> str:
        noisy = "" if self.noise_seed is None else f", noise seed {self.noise_seed}"
        return f"{self.cell}, seed {self.seed}{noisy}"


def expand(study: Study, datasets: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> list[Job]:
    """Return every job of a study, cell by cell.

    Parameters
    ----------
    study : Study
    datasets : sequence of str, optional
        Those of the study by default.
    seeds : sequence of int, optional
        Instead of the study's. A model without weights runs with the first one only.
    """
    jobs = []
    for dataset in study.datasets if datasets is None else datasets:
        chosen = tuple(study.seeds_on(dataset) if seeds is None else seeds)
        for row in study.rows:
            if row.datasets and dataset not in row.datasets:
                continue
            for named, recipe in _rows(row, dataset):
                for cell, changes, noisy in _settings(study, named, recipe, dataset):
                    config = study.config(named, dataset, chosen[0], changes)
                    for seed in chosen if config.model_class.has_weights() else chosen[:1]:
                        jobs += [
                            Job(cell, config.replace(seed=seed), each, each.seed if each is not recipe else None)
                            for each in noisy
                        ]
    return jobs


def _rows(row: Row, dataset: str) -> Iterator[tuple[Row, Recipe]]:
    """Yield the row, or one for each behavior that it drops, with its data; none that would leave no auxiliary one."""
    auxiliary = [canonical_behavior(name) for name in facts_of(dataset).auxiliary]
    for gone in auxiliary if row.drop_each else [None]:
        dropped = {*row.drop, *([gone] if gone else [])} & set(auxiliary)
        if (row.drop and not dropped) or (dropped and dropped == set(auxiliary)):
            continue
        named = row.replace(name=row.name.replace("{behavior}", gone), drop_each=None) if gone else row
        yield named, Recipe(dataset, tuple(sorted(dropped)))


def _settings(
    study: Study, row: Row, recipe: Recipe, dataset: str
) -> Iterator[tuple[Cell, Pieces | None, list[Recipe]]]:
    """Yield each cell of a row on a dataset with the changes of its configuration and its recipes."""
    cell = Cell(dataset, row.name, "", row.role)
    noise = study.noise
    if noise is not None:
        yield replace(cell, setting=CLEAN), None, [recipe]
        for verb, shares in (("add", noise.add), ("remove", noise.remove)):
            for share in shares:
                amounts = {"add": 0.0, "remove": 0.0, verb: float(share)}
                level = replace(recipe, add=amounts["add"], remove=amounts["remove"], behaviors=noise.behaviors)
                yield (
                    replace(cell, setting=f"{verb} {share:.0%}"),
                    None,
                    [replace(level, seed=seed) for seed in noise.seeds],
                )
        return
    if not study.grid or row.role == "anchor":
        yield cell, None, [recipe]
        return
    seen = set()
    for grid in study.grid:
        for point, changes in grid_points(grid):
            setting = ", ".join(f"{option.removeprefix('regularizers.')}={shown(v)}" for option, v in point.items())
            if setting not in seen:
                seen.add(setting)
                yield replace(cell, setting=setting), changes, [recipe]


def in_rounds(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs so that every cell has its first run before any has a second.

    Within a round the order stays; jobs that are the same run for several cells stand at the first of them.
    """
    numbers: dict[Cell, int] = {}
    keyed = []
    for place, job in enumerate(jobs):
        keyed.append((numbers.get(job.cell, 0), place, job))
        numbers[job.cell] = numbers.get(job.cell, 0) + 1
    return [job for _, _, job in sorted(keyed, key=lambda entry: entry[:2])]


def quick(study: Study) -> Study:
    """Return a study of the same shape that takes seconds.

    One seed, one epoch, the ends of every list of settings, and the variant ``light`` of models that have one.
    """
    from mbgraph.models import MODELS

    def ends(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values if len(values) < 3 else (values[0], values[-1])

    if study.kind == "statistics":
        return study
    changes: dict[str, object] = {
        "seeds": study.seeds[:1],
        "overrides": {name: each.replace(seeds=None) for name, each in study.overrides.items()},
        "base": study.base.replace(training={**study.base.training, "epochs": 1, "diagnose_every": 0}),
        "rows": tuple(
            row.replace(
                training={name: value for name, value in row.training.items() if name != "epochs"},
                variant="light" if row.model and "light" in MODELS.get(row.model).variants() else row.variant,
            )
            for row in study.rows
        ),
        "grid": tuple(grid.replace(axes={name: ends(v) for name, v in grid.axes.items()}) for grid in study.grid),
    }
    if study.noise is not None:
        changes["noise"] = study.noise.replace(
            seeds=study.noise.seeds[:1], add=study.noise.add[-1:], remove=study.noise.remove[-1:]
        )
    return study.replace(**changes)
