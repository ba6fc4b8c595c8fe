"""A study: which configurations run on which data with which seeds, and what was published about them.

A study is a TOML file. Those of the paper lie in ``benchmarks/`` and are named by `shipped_studies`; anybody's own is a
path. docs/benchmarks.md explains the keys, which are the fields below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mbgraph.config import FitConfig, Validation
from mbgraph.files import shipped
from mbgraph.schema import InWords, Section

__all__ = ["Claim", "Grid", "Noise", "Override", "Pieces", "Published", "Row", "Study", "shipped_studies"]

Text = Annotated[str, Field(min_length=1), InWords("text")]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), InWords("a seed, a whole number of at least 0")]
Share = Annotated[int | float, Field(gt=0, le=1_000_000), InWords("a share above 0, such as 0.3")]
Values = Annotated[Mapping[str, int | float], Field(min_length=1), InWords("a table of figures by metric")]


def _table(name: str) -> Any:
    return InWords("a table of options", f"write it as {name} = {{ option = value }}")


class Pieces(Section):
    """Parts of the configuration of a run; what is left out comes from above, at last from the model."""

    called = "the base"

    model: Text | None = None
    """Model, see ``mbgraph models``."""
    variant: Text | None = None
    """Preset of the model's options."""
    protocol: Text | None = None
    """Split, see `FitConfig`."""
    validation: Validation | None = None
    """What selects the epoch, see `FitConfig`."""
    options: Annotated[Mapping[str, Any], _table("options")] = Field(default_factory=dict)
    """Options of the model."""
    training: Annotated[Mapping[str, Any], _table("training")] = Field(default_factory=dict)
    """Training options."""
    evaluation: Annotated[Mapping[str, Any], _table("evaluation")] = Field(default_factory=dict)
    """Evaluation options; cut-offs come from the study's metrics."""
    regularizers: Annotated[
        tuple[Mapping[str, Any], ...],
        InWords("a list of tables", 'write regularizers = [{ name = "rex", weight = 0.5 }]'),
    ] = ()
    """Changes of the model's regularizers."""


class Row(Pieces):
    """One row of the table: changes of the base."""

    called = "a row"

    name: Text
    """What the table calls it. With ``drop_each`` it holds ``{behavior}``."""
    role: Literal["model", "anchor"] = "model"
    """Anchors say what little effort reaches. They stand below the others and take no part in best and second."""
    drop: tuple[Text, ...] = ()
    """Behaviors to leave out of the data."""
    drop_each: Literal["auxiliary"] | None = None
    """One row per auxiliary behavior of the dataset, each without it."""
    datasets: tuple[Text, ...] = ()
    """Only on these; empty: on all."""
    on: Mapping[str, Pieces] = Field(default_factory=dict)
    """Further changes by dataset."""


class Override(Pieces):
    """What is different on one dataset."""

    called = "an override"

    seeds: tuple[Seed, ...] | None = None
    """Seeds on this dataset."""


class Noise(Section):
    """Edges added to or removed from every auxiliary behavior, see `mbgraph.data.perturb.perturb`."""

    called = "the noise"

    add: tuple[Share, ...] = ()
    """Shares of new pairs, of each behavior's own edges; never held-out pairs."""
    remove: tuple[Share, ...] = ()
    """Shares of edges that go."""
    seeds: tuple[Seed, ...] = ()
    """Seeds of the perturbation. All rows see the same graphs."""
    behaviors: tuple[Text, ...] = ()
    """Auxiliary behaviors to perturb; empty: all."""


class Grid(Section):
    """Values of options that every row is run with."""

    called = "a grid"

    axes: Annotated[
        Mapping[str, Annotated[tuple[Any, ...], Field(min_length=1)]],
        Field(min_length=1),
        InWords("a table of lists", 'write axes = { "regularizers.rex.weight" = [0.1, 1.0] }'),
    ]
    """Values by option: ``options.NAME``, ``training.NAME`` or ``regularizers.NAME.OPTION``."""
    mode: Literal["each", "product"] = "each"
    """One option at a time, the others as in the row; or every combination."""


class Published(Section):
    """Figures that were published."""

    called = "a published entry"

    dataset: Text
    """The dataset that they were published for, and no other."""
    row: str = ""
    """Name of the row; empty in a study of data."""
    place: Text
    """Where they stand: ``Table 3``."""
    figures: Values
    """Figures by metric."""


class Claim(Section):
    """A sentence that the figures can hold or not."""

    called = "a claim"

    text: Text
    """The sentence."""
    place: Text
    """Where it stands."""
    metric: Text
    """Metric that decides."""
    measure: Literal["value", "drop"] = "value"
    """``value``: the metric itself; ``drop``: how much of it noise takes, (clean - noisy) / clean."""
    pairs: Annotated[
        tuple[tuple[Text, Text], ...], Field(min_length=1), InWords("a list of pairs", 'write [["better", "worse"]]')
    ]
    """Rows ``[better, worse]``, by the name or, of a grid, by ``name, setting``. All of them must hold."""
    datasets: tuple[Text, ...] = ()
    """Only on these; empty: on all."""


class Study(Section):
    """A study.

    Examples
    --------
    >>> study = Study.load("table4")
    >>> study.seeds, [row.name for row in study.rows][:2]
    ((2026, 1, 2), ['w/o ORM', 'IRMv1'])
    """

    called = "the study"

    name: Text
    """What files and commands call it; the file's name by default."""
    title: Text
    """Heading of the table."""
    question: Text
    """What it asks."""
    kind: Literal["accuracy", "statistics"] = "accuracy"
    """``statistics`` describes the datasets and trains nothing."""
    datasets: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Names or paths."""
    seeds: tuple[Seed, ...] = ()
    """Seeds of initialisation and sampling."""
    metrics: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Columns: ``HR@10``; of statistics ``users``, ``interactions``, ``count:view``, ``bar:view``, ``dt``."""
    costs: bool = False
    """Whether tables show what a run took: epochs, seconds per epoch, peak memory."""
    subject: str = ""
    """Row that is tested against the best of the others."""
    base: Pieces = Field(default_factory=Pieces)
    """What all rows share. Training and evaluation go to every row; variant, options and regularizers to rows of the
    base's model."""
    overrides: Mapping[str, Override] = Field(default_factory=dict)
    """Changes of the base by dataset."""
    rows: tuple[Row, ...] = ()
    """Rows in order."""
    noise: Noise | None = None
    """Noise levels that every row is run at, beside none."""
    grid: tuple[Grid, ...] = ()
    """Grids; every row is run at their points."""
    published: tuple[Published, ...] = ()
    """Published figures."""
    claims: tuple[Claim, ...] = ()
    """What the figures are asked."""

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Study:
        """Read and check a study: one of the paper's by name, or a file.

        Raises
        ------
        UnknownNameError
            If there is no such study.
        UsageError
            If something in it is wrong; one line with file, line and remedy.
        """
        from mbgraph.bench.reading import read_study

        return read_study(name_or_path)

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """Cut-offs that its metrics need, 10 and 20 among them."""
        return tuple(sorted({10, 20, *(int(metric.partition("@")[2]) for metric in self.metrics)}))

    def seeds_on(self, dataset: str) -> tuple[int, ...]:
        """Return the seeds on a dataset."""
        own = self.overrides.get(dataset)
        return self.seeds if own is None or own.seeds is None else own.seeds

    def config(self, row: Row, dataset: str, seed: int, changes: Pieces | None = None) -> FitConfig:
        """Return the configuration of a run, its dataset still the plain name.

        Parameters
        ----------
        row : Row
        dataset : str
        seed : int
        changes : Pieces, optional
            A grid's point.
        """
        from mbgraph.models import MODELS

        shared = [self.base, *([self.overrides[dataset]] if dataset in self.overrides else [])]
        base_model = next((piece.model for piece in reversed(shared) if piece.model), FitConfig().model)
        special = row.on.get(dataset)
        model = (special and special.model) or row.model or base_model
        trainable = MODELS.get(model).trainable
        values: dict[str, Any] = {"dataset": dataset, "model": model, "seed": seed}
        tables: dict[str, dict[str, Any]] = {"options": {}, "training": {}, "evaluation": {"k": self.cutoffs}}
        regularizers: list[Mapping[str, Any]] = []
        for piece in [*shared, row, *([special] if special else []), *([changes] if changes else [])]:
            of_row = piece is row or piece is special
            own = of_row or piece is changes or (piece.model or base_model) == model
            for name in ("protocol", "validation", *(("variant",) if own else ())):
                if getattr(piece, name) is not None:
                    values[name] = getattr(piece, name)
            for name in ("training", "evaluation", *(("options",) if own else ())):
                if name != "training" or trainable or of_row:
                    tables[name] |= getattr(piece, name)
            if own and (trainable or of_row):
                regularizers += piece.regularizers
        return FitConfig(**{**values, **tables, "regularizers": tuple(regularizers)})


def shipped_studies() -> dict[str, Path]:
    """Return the file of every study of the paper by name, sorted; reads none of them."""
    return {path.stem: path for path in sorted(shipped("benchmarks").glob("*.toml"))}
