"""`mbgraph bench collect`: runs into one table."""

from __future__ import annotations

from pathlib import Path

import click

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, table


@click.command(
    name="collect",
    cls=Command,
    epilog="""\b
Example:
  mbgraph bench collect runs/* -o results.csv
""",
)
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("-o", "--out", "path", type=PATH, help="CSV file to write.")
@json_option
def command(runs: tuple[Path, ...], path: Path | None, as_json: bool) -> None:
    """Collect finished runs into one table, and a CSV file."""
    from mbgraph.bench.report import collect, write_rows
    from mbgraph.evaluation.metrics import headline_metrics

    rows = collect(runs)
    if path is not None:
        write_rows(path, rows)
        console.print(f"wrote {path}")
    if as_json:
        emit_json(rows)
        return
    used = (key.removeprefix("test ") for row in rows for key in row if key.startswith("test "))
    metrics = headline_metrics(used)
    names = [f"test {metric}" for metric in metrics]
    table(
        "runs",
        ["run", "seed", "best epoch", *metrics],
        [
            [f"{row['dataset']} {row['model']} {row['variant']}".rstrip(), str(row["seed"]), row["best_epoch"]]
            + [row.get(name) for name in names]
            for row in rows
        ],
    )
