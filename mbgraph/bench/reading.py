"""Reading a study and refusing a bad one: every objection names file, line and remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mbgraph.bench.positions import line_of
from mbgraph.bench.sources import known_dataset
from mbgraph.bench.study import Claim, Grid, Noise, Override, Pieces, Published, Row, Study, shipped_studies
from mbgraph.data.cards import find_card
from mbgraph.errors import MbgraphError, UnknownNameError, UsageError, nearest
from mbgraph.evaluation.metrics import METRICS
from mbgraph.schema import Section, read_toml

__all__ = ["grid_changes", "grid_points", "matches", "read_study"]

Path_ = tuple[str | int, ...]
_SINGLE: Mapping[str, type[Section]] = {"base": Pieces, "noise": Noise}
_LISTS: Mapping[str, type[Section]] = {"rows": Row, "grid": Grid, "published": Published, "claims": Claim}
_TABLES = ("options", "training", "evaluation")
_FACTS = re.compile(r"users|items|interactions|dt|(count|bar):\S+")


def read_study(name_or_path: str | os.PathLike[str]) -> Study:
    """See `Study.load`."""
    path = _find(os.fspath(name_or_path))
    return _Reader(path, read_toml(path)).study()


def _find(text: str) -> Path:
    known = shipped_studies()
    if text in known:
        return known[text]
    if text.endswith(".toml") or os.sep in text:
        return Path(text)
    close = nearest(text, known)
    names = f"did you mean {close!r}?" if close else f"choose from {', '.join(known)}, or give the path of a TOML file"
    raise UsageError(f"unknown study {text!r}", names)


class _Reader:
    """One file, and the objections to it."""

    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self.path, self.raw = path, raw
        self.text = path.read_text(encoding="utf-8")

    def refuse(self, where: Path_, message: str, remedy: str | None) -> NoReturn:
        raise UsageError(f"{self.path}:{line_of(self.text, where)}: {message}", remedy)

    def made(self, kind: type[Section], values: Any, where: Path_) -> Any:
        if not isinstance(values, Mapping):
            self.refuse(where, f"{kind.called} must be a table, not {values!r}", "write it as a table of keys")
        try:
            return kind(**{str(key): value for key, value in values.items()})
        except MbgraphError as error:
            self.refuse((*where, _key_of(error)), error.message, error.remedy)

    def study(self) -> Study:
        values: dict[str, Any] = {"name": self.path.stem, **self.raw}
        for key, kind in _SINGLE.items():
            if key in values:
                values[key] = self.made(kind, values[key], (key,))
        for key, kind in _LISTS.items():
            entries = values.get(key, [])
            if not isinstance(entries, list):
                self.refuse((key,), f"{key} must be a list of tables", f"write them as [[{key}]]")
            if key == "rows":
                entries = [
                    self.with_datasets(Pieces, entry, "on", (key, number)) for number, entry in enumerate(entries)
                ]
            values[key] = tuple(self.made(kind, entry, (key, number)) for number, entry in enumerate(entries))
        values = self.with_datasets(Override, values, "overrides", ())
        study: Study = self.made(Study, values, ())
        self.check_datasets(study)
        if study.kind == "statistics":
            self.check_statistics(study)
        else:
            self.check_rows(study)
        self.check_published(study)
        self.check_claims(study)
        return study

    def with_datasets(self, kind: type[Section], table: Any, key: str, where: Path_) -> Any:
        """Return a table whose entry ``key``, tables by dataset, is read."""
        if not isinstance(table, Mapping) or key not in table:
            return table
        if not isinstance(table[key], Mapping):
            name = ".".join(str(part) for part in (*where[:1], key, "DATASET"))
            self.refuse((*where, key), f"{key} must be tables", f"write them as [{name}]")
        return {**table, key: {n: self.made(kind, entry, (*where, key, n)) for n, entry in table[key].items()}}

    def check_datasets(self, study: Study) -> None:
        places: list[tuple[Path_, str]] = [(("datasets",), name) for name in study.datasets]
        places += [(("overrides", name), name) for name in study.overrides]
        places += [(("rows", n, "datasets"), name) for n, row in enumerate(study.rows) for name in row.datasets]
        places += [(("rows", n, "on", name), name) for n, row in enumerate(study.rows) for name in row.on]
        places += [(("claims", n, "datasets"), name) for n, claim in enumerate(study.claims) for name in claim.datasets]
        for where, name in places:
            try:
                known_dataset(name)
            except MbgraphError as error:
                self.refuse(where, error.message, error.remedy)

    def check_statistics(self, study: Study) -> None:
        for key in ("rows", "seeds", "noise", "grid", "overrides", "claims"):
            if key in self.raw:
                self.refuse((key,), f"a study of statistics has no {key}", "leave them out, or set kind to accuracy")
        for metric in study.metrics:
            if not _FACTS.fullmatch(metric):
                self.refuse(
                    ("metrics",),
                    f"unknown figure {metric!r}",
                    "choose from users, items, interactions, dt, count:BEHAVIOR, bar:BEHAVIOR",
                )

    def check_rows(self, study: Study) -> None:
        for metric in study.metrics:
            name, _, cutoff = metric.partition("@")
            if name not in METRICS or not re.fullmatch(r"[1-9]\d{0,5}", cutoff):
                close = nearest(metric, [f"{kind}@{k}" for kind in METRICS for k in (10, 20)])
                self.refuse(("metrics",), f"unknown metric {metric!r}", f"did you mean {close!r}?" if close else None)
        if not study.rows:
            self.refuse((), "the study has no rows", "add [[rows]] with a name")
        names = [row.name for row in study.rows]
        for number, row in enumerate(study.rows):
            where: Path_ = ("rows", number, "name")
            if row.name in names[:number]:
                self.refuse(where, f"two rows are called {row.name!r}", "rename one")
            if (row.drop_each is not None) != ("{behavior}" in row.name):
                self.refuse(
                    where,
                    f"row {row.name!r} has only one of drop_each and {{behavior}} in its name",
                    'write name = "w/o {behavior}" and drop_each = "auxiliary"',
                )
        if study.subject and study.subject not in names:
            self.refuse(("subject",), f"no row is called {study.subject!r}", f"choose from: {', '.join(names)}")
        self.check_seeds(study)
        for dataset in study.datasets:
            for number, row in enumerate(study.rows):
                try:
                    study.config(row, dataset, 0)
                except MbgraphError as error:
                    own: Path_ = ("rows", number)
                    if dataset in row.on and self.blamed((*own, "on", dataset), error)[0] in _TABLES:
                        own = (*own, "on", dataset)
                    self.refuse((*own, *self.blamed(own, error)), f"row {row.name!r}: {error.message}", error.remedy)
        for number, grid in enumerate(study.grid):
            try:
                for row in study.rows:
                    if row.role == "model":
                        for _, changes in grid_points(grid):
                            study.config(row, study.datasets[0], 0, changes)
            except MbgraphError as error:
                self.refuse(("grid", number, "axes"), error.message, error.remedy)

    def blamed(self, where: Path_, error: MbgraphError) -> Path_:
        """Return the key of a row's configuration that an error is about."""
        table: Any = self.raw
        for part in where:
            table = table[part]
        key = _key_of(error)
        for name in _TABLES:
            if isinstance(table.get(name), Mapping) and (key in table[name] or _value_of(error) in table[name]):
                return (name, _value_of(error) if _value_of(error) in table[name] else key)
        if isinstance(error, UnknownNameError):
            return next(((name,) for name, value in table.items() if value == error.name), ("regularizers",))
        return (key,)

    def check_seeds(self, study: Study) -> None:
        remedy = "write for example seeds = [2026]"
        for dataset in study.datasets:
            if not study.seeds_on(dataset):
                where: Path_ = ("overrides", dataset, "seeds") if dataset in study.overrides else ("seeds",)
                self.refuse(where, f"no cell on {dataset!r} has a seed", remedy)
        for where, seeds in [
            (("seeds",), study.seeds),
            *((("overrides", name, "seeds"), each.seeds or ()) for name, each in study.overrides.items()),
            *([(("noise", "seeds"), study.noise.seeds)] if study.noise else []),
        ]:
            if len(set(seeds)) != len(seeds):
                self.refuse(where, f"a seed stands twice in {list(seeds)}", "leave one out")
        if study.noise is not None:
            if not (study.noise.add or study.noise.remove):
                self.refuse(("noise",), "the noise has no amount", "write for example add = [0.1, 0.3]")
            if not study.noise.seeds:
                self.refuse(("noise",), "no noisy cell has a seed of its perturbation", remedy)
            if max(study.noise.remove, default=0.0) >= 1:
                self.refuse(("noise", "remove"), "removing everything leaves nothing", "give shares below 1")
            if study.grid:
                self.refuse(("grid",), "a study has noise or a grid, not both", "make two studies of it")

    def check_published(self, study: Study) -> None:
        for number, entry in enumerate(study.published):
            where: Path_ = ("published", number)
            if entry.dataset not in study.datasets:
                self.refuse((*where, "dataset"), f"{entry.dataset!r} is no dataset of the study", "add it to datasets")
            card = find_card(entry.dataset)
            if card is None or not card.paper:
                self.refuse(
                    (*where, "dataset"),
                    f"nothing was published for {entry.dataset!r}, whose card has no [paper] table",
                    "published figures stand beside the data they were measured on, and no other",
                )
            if study.kind == "accuracy":
                self.check_row(study, entry.row, (*where, "row"))
            for metric in entry.figures:
                if metric not in study.metrics:
                    self.refuse((*where, "figures"), f"{metric!r} is no metric of the study", "add it to metrics")

    def check_claims(self, study: Study) -> None:
        for number, claim in enumerate(study.claims):
            where: Path_ = ("claims", number)
            if claim.metric not in study.metrics:
                self.refuse((*where, "metric"), f"{claim.metric!r} is no metric of the study", "add it to metrics")
            if claim.measure == "drop" and study.noise is None:
                self.refuse((*where, "measure"), "a drop needs [noise]", 'add it, or set measure = "value"')
            for name in (name for pair in claim.pairs for name in pair):
                self.check_row(study, name, (*where, "pairs"))

    def check_row(self, study: Study, name: str, where: Path_) -> None:
        if not any(matches(row, each) for row in study.rows for each in (name, name.partition(", ")[0])):
            names = [row.name for row in study.rows]
            close = nearest(name, names)
            self.refuse(
                where,
                f"no row is called {name!r}",
                f"did you mean {close!r}?" if close else f"choose from: {', '.join(names)}",
            )


def matches(row: Row, name: str) -> bool:
    """Return whether a row, or one of those that its ``drop_each`` makes, is called ``name``."""
    pattern = re.escape(row.name).replace(re.escape("{behavior}"), r"\S+")
    return re.fullmatch(pattern, name) is not None


def grid_points(grid: Grid) -> Iterator[tuple[dict[str, Any], Pieces]]:
    """Yield the points of a grid: values by option, and the changes of the configuration."""
    import itertools

    if grid.mode == "each":
        points = [{option: value} for option, values in grid.axes.items() for value in values]
    else:
        points = [dict(zip(grid.axes, values, strict=True)) for values in itertools.product(*grid.axes.values())]
    for point in points:
        yield point, grid_changes(point)


def grid_changes(point: Mapping[str, Any]) -> Pieces:
    """Return the changes that values by dotted option mean; raises `UsageError` for an option that has no place."""
    tables: dict[str, dict[str, Any]] = {"options": {}, "training": {}}
    regularizers = []
    for option, value in point.items():
        match option.split("."):
            case ["options" | "training" as table, name]:
                tables[table][name] = value
            case ["regularizers", term, name]:
                regularizers.append({"name": term, name: value})
            case _:
                raise UsageError(
                    f"{option!r} is no option of a grid",
                    "write options.NAME, training.NAME or regularizers.NAME.OPTION",
                )
    return Pieces(options=tables["options"], training=tables["training"], regularizers=tuple(regularizers))


def _key_of(error: MbgraphError) -> str:
    """Return the key that a section's error is about: an unknown name, or the first word of its message."""
    if isinstance(error, UnknownNameError) and error.kind.startswith("option of"):
        return error.name
    quoted = re.search(r"needs '(\w+)'", error.message)
    return quoted[1] if quoted else re.split(r"[\s.]", error.message, maxsplit=1)[0]


def _value_of(error: MbgraphError) -> str:
    return error.name if isinstance(error, UnknownNameError) else ""
