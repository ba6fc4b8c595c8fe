"""`mbgraph demo`."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, SEED, Command, console, emit_json, json_option, make_table, out
from mbgraph.cli.consoles import PlainConsole
from mbgraph.files import atomic_write
from mbgraph.machine import MOST_THREADS

EPILOG = """\b
Examples:
  mbgraph demo
  mbgraph demo --out demo-runs --json
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--out", "directory", type=PATH, help="Keep the runs here.  [default: discarded]")
@click.option(
    "--seed",
    type=SEED,
    default=2026,
    show_default=True,
    help="Seed of initialisation and sampling.",
)
@click.option(
    "--threads", type=click.IntRange(0, MOST_THREADS), default=0, help="CPU threads.  [default: torch's choice]"
)
@click.option("--svg", "picture", type=PATH, help="Also draw the tables into an SVG file.")
@json_option
def command(directory: Path | None, picture: Path | None, seed: int, threads: int, as_json: bool) -> None:
    """Train and compare models and anchors on the embedded synthetic data, then recommend."""
    from mbgraph.cli.progress import TrainingProgress
    from mbgraph.demo import run_demo
    from mbgraph.evaluation.metrics import headline_metrics

    with tempfile.TemporaryDirectory() as scratch:
        result = run_demo(
            directory or scratch,
            seed=seed,
            threads=threads,
            callbacks=lambda model: [TrainingProgress(console, every=20)],
        )
    if directory is None:
        del result["runs"]
    if as_json:
        emit_json(result)
        return
    metrics = headline_metrics(name for name in result["models"]["rmbrec"]["all"] if "@" in name)
    rows = [
        [name, group, values["share"], *(values[metric] for metric in metrics)]
        for name, groups in result["models"].items()
        for group, values in groups.items()
    ]
    title = f"demo (embedded, synthetic), test, seed {seed}"
    top = [[entry["user"], "  ".join(str(item) for item in entry["items"])] for entry in result["recommendations"]]
    tables = [
        make_table(title, ["model", "held-out pairs", "share", *metrics], rows),
        make_table("top 5 items of three users, by rmbrec", ["user", "items"], top),
    ]
    for grid in tables:
        out.print_table(grid)
    if picture is not None:
        _draw(tables, picture)
    out.print(
        "visited: the user already has an auxiliary edge to the held-out item; see docs/protocol.md",
    )


def _draw(tables: list[Any], path: Path) -> None:
    """Write what the terminal shows as a picture."""
    canvas = PlainConsole(record=True, width=86, file=io.StringIO())
    for grid in tables:
        canvas.print(grid)
    with atomic_write(path, "w") as file:
        # rich links its font from the web; a picture in a repository should not load anything
        file.write(re.sub(r"@font-face \{.*?\}\s*", "", canvas.export_svg(title="mbgraph demo"), flags=re.DOTALL))
