"""The command of a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.bench import EVERY, is_file
from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, out, say_no_pictures, stop_early, table
from mbgraph.machine import MOST_THREADS

if TYPE_CHECKING:
    from mbgraph.bench.results import Results
    from mbgraph.bench.runner import Plan
    from mbgraph.bench.store import Store

__all__ = ["Names", "study_command"]


class Names(click.ParamType):
    """``a,b``: names, each once."""

    name = "a,b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names."""
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


class Seeds(Names):
    """``2026,1``: seeds."""

    name = "1,2"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return the seeds as numbers."""
        names = super().convert(value, param, ctx)
        if not names or not all(re.fullmatch("[0-9]{1,19}", str(name)) for name in names):
            self.fail(f"{value!r} are no seeds; write for example 2026,1,2", param, ctx)
        return tuple(int(name) for name in names)


class Span(click.ParamType):
    """``30m``, ``2h``, ``1h30m``, ``90s``: a time span in seconds."""

    name = "30m"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?", value.strip())
        seconds = (
            sum(int(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
        )
        if not seconds:
            self.fail(f"{value!r} is no time span; write for example 30m, 2h or 90s", param, ctx)
        return float(seconds)


def study_command(name: str) -> click.Command:
    """Return the command that runs a study.

    Parameters
    ----------
    name : str
        Name of a shipped study, ``all``, or path of a file.
    """
    title = "Run every study that is shipped, one after the other." if name == EVERY else _title(name)
    options = [
        click.Option(["--datasets"], type=Names(), help="Only these, each of which must be here."),
        click.Option(["--seeds"], type=Seeds(), help="Instead of the study's."),
        click.Option(["--budget"], type=Span(), help="Begin no epoch after this time; the next call goes on."),
        click.Option(
            ["--limit"],
            type=Span(),
            help="Cut each training off after this time and mark it; a call with a longer one goes on.",
        ),
        click.Option(["--jobs"], type=click.IntRange(1, 256), default=1, show_default=True, help="Processes."),
        click.Option(
            ["--threads"], type=click.IntRange(1, MOST_THREADS), help="CPU threads of all processes.  [default: all]"
        ),
        click.Option(["--quick"], is_flag=True, help="Smoke run: one seed, one epoch, few settings, on demo."),
        click.Option(["--list", "listed"], is_flag=True, help="Say what is finished and what is not; run nothing."),
        click.Option(["--dry-run"], is_flag=True, help="Say what is left and what it takes; run nothing."),
        click.Option(["--store"], type=PATH, help="Runs.  [default: $MBGRAPH_STORE or runs/bench]"),
        click.Option(["--out", "folder"], type=PATH, help="Folder for CSV, Markdown, LaTeX and pictures."),
    ]
    made = Command(
        name,
        params=list(options),
        callback=lambda **given: _run(name, **given),
        help=f"{title}\n\nDatasets that are not here are named; with none of them, synthetic ones stand in.",
        short_help=title,
        epilog=f"""\b
Examples:
  mbgraph bench {name}
  mbgraph bench {name} --dry-run
  mbgraph bench {name} --budget 30m --jobs 2 --out results
  mbgraph bench {name} --quick --json
""",
    )
    return json_option(made)


def _title(name: str) -> str:
    """Return a study's title; a file that cannot be read is refused when it is run, not when help is asked for."""
    from mbgraph.errors import MbgraphError
    from mbgraph.files import shipped
    from mbgraph.schema import read_toml

    try:
        return str(read_toml(name if is_file(name) else shipped("benchmarks") / f"{name}.toml").get("title", name))
    except MbgraphError:
        return name


def _run(
    name: str,
    datasets: tuple[str, ...] | None,
    seeds: tuple[int, ...] | None,
    budget: float | None,
    limit: float | None,
    jobs: int,
    threads: int | None,
    quick: bool,
    listed: bool,
    dry_run: bool,
    store: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    import time

    from mbgraph.bench.pictures import can_draw, write_pictures
    from mbgraph.bench.results import gather
    from mbgraph.bench.runner import execute, plan
    from mbgraph.bench.store import Store, default_store
    from mbgraph.bench.study import Study, shipped_studies
    from mbgraph.bench.tables import write_all
    from mbgraph.cli.bench.watching import Watch

    kept = Store(default_store() if store is None else store)
    studies = [Study.load(each) for each in (shipped_studies() if name == EVERY else [name])]
    plans = [plan(study, datasets, seeds, is_quick=quick) for study in studies]
    for note in dict.fromkeys(note for made in plans for note in made.notes):
        console.print(f"note: {note}")
    if listed or dry_run:
        told = [_listed(made, kept) if listed else _planned(made, kept, limit) for made in plans]
        if as_json:
            emit_json(told[0] if name != EVERY else {"studies": told})
        return
    end, collected = None if budget is None else time.time() + budget, []
    interrupted = False
    for made in plans:
        if not interrupted:
            with Watch(console, kept, made.jobs) as watch:
                left = None if end is None else max(end - time.time(), 0.0)
                interrupted = execute(
                    made.jobs, kept, budget=left, limit=limit, processes=jobs, threads=threads or 0, on_event=watch
                )
        results = gather(made.study, made.datasets, made.jobs, kept, notes=made.notes, interrupted=interrupted)
        collected.append(results)
        if not as_json:
            show(results)
        if folder is not None:
            drawn = write_pictures(results, folder) if can_draw() else []
            for path in [*write_all(results, folder), *drawn]:
                console.print(f"wrote {path}")
    if folder is not None and not can_draw():
        say_no_pictures()
    if as_json:
        emit_json(_plain(collected[0]) if name != EVERY else {"studies": [_plain(each) for each in collected]})
    if interrupted:
        stop_early(budget)


def show(results: Results) -> None:
    """Print the tables and verdicts of a study."""
    from rich.measure import Measurement

    from mbgraph.bench.grids import grids
    from mbgraph.bench.tables import rich_table
    from mbgraph.bench.verdicts import verdicts

    for grid in grids(results):
        made = rich_table(grid)
        # a terminal that is too narrow wraps lines, but no column loses a digit
        wide = Measurement.get(out, out.options.update(max_width=1000), made).maximum
        out.print(made, width=wide, crop=False, no_wrap=True, overflow="ignore")
        for note in grid.notes:
            console.print(f"failed: {note}")
    decided = verdicts(results)
    if decided:
        rows = [[each.claim.text, each.claim.place, each.dataset, each.verdict] for each in decided]
        table("Verdicts at this number of seeds", ["claim", "place", "dataset", "verdict"], rows)


def _plain(results: Results) -> dict[str, Any]:
    from mbgraph.bench.grids import caption
    from mbgraph.bench.stars import paired_tests
    from mbgraph.bench.verdicts import verdicts

    return {
        "study": results.study.name,
        "title": results.study.title,
        "datasets": list(results.datasets),
        "synthetic": list(results.synthetic),
        "notes": list(results.notes),
        "captions": {name: caption(results, name) for name in results.datasets},
        "runs": results.counts,
        "interrupted": results.interrupted,
        "cells": results.summary().to_dict("records"),
        "tests": [{"dataset": name, **vars(each)} for name in results.datasets for each in paired_tests(results, name)],
        "verdicts": [each.to_dict() for each in verdicts(results)],
    }


def _listed(made: Plan, store: Store) -> dict[str, Any]:
    rows = []
    for job in made.jobs:
        address = store.address(job, make=False)
        status = store.status(address)
        epochs = "" if address is None else str(store.epochs(address) or "")
        rows.append([str(job), status, epochs, (address or "")[:12]])
    if made.jobs:
        table(f"{made.study.title}: runs", ["run", "status", "epochs", "address"], rows)
    else:
        out.print(f"{made.study.title}: describes {', '.join(made.datasets)}, trains nothing")
    keys = ("run", "status", "epochs", "address")
    return {"study": made.study.name, "runs": [dict(zip(keys, row, strict=True)) for row in rows]}


def _planned(made: Plan, store: Store, limit: float | None) -> dict[str, Any]:
    from mbgraph.bench.estimates import Estimates
    from mbgraph.bench.perform import is_finished
    from mbgraph.cli.bench.watching import duration

    estimates = Estimates(store)
    missing: dict[tuple[str, str], list[Any]] = {}
    for job in made.jobs:
        if not is_finished(store, store.address(job, make=False), limit):
            missing.setdefault((job.cell.dataset, job.cell.label), []).append(job)
    rows: list[dict[str, Any]] = []
    for (dataset, label), jobs in missing.items():
        each = estimates.of(jobs[0])
        seconds, unknown = estimates.total(jobs)
        rows.append(
            {
                "dataset": dataset,
                "row": label,
                "runs": len(jobs),
                "epochs": each.epochs,
                "seconds": None if unknown else seconds,
                "memory_mb": each.memory_mb,
            }
        )
    left = [job for jobs in missing.values() for job in jobs]
    seconds, unknown = estimates.total(left)
    table(
        f"{made.study.title}: {len(left)} of {len(made.jobs)} runs are left",
        ["dataset", "row", "runs", "epochs each", "time", "peak MiB"],
        [
            [
                *(row[key] for key in ("dataset", "row", "runs", "epochs")),
                None if row["seconds"] is None else duration(row["seconds"]),
                None if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}",
            ]
            for row in rows
        ],
    )
    if left and unknown == len(left):
        out.print("no estimate: nothing like them was ever measured in this store")
    elif left:
        more = f"; nothing like {unknown} of them was ever measured in this store" if unknown else ""
        out.print(f"about {duration(seconds)} in one process{more}")
    return {"study": made.study.name, "left": len(left), "seconds": seconds, "unknown": unknown, "rows": rows}
