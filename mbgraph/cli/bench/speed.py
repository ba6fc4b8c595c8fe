"""`mbgraph bench speed`: times beside the plain loop and the machine's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, table


@click.command(
    name="speed",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph bench speed --quick                   a few minutes, the embedded data
  mbgraph bench speed taobao15k beibei --threads 2 -o benchmarks/results
  mbgraph bench speed --part growth --threads 2
""",
)
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--quick", is_flag=True, help="Fewer repetitions, smaller graphs, no complete fit.")
@click.option(
    "--part",
    type=click.Choice(["all", "datasets", "growth"]),
    default="all",
    show_default=True,
    help="Datasets beside the plain loop, growth over generated graphs, or both.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's]")
@click.option("-o", "--out", "folder", type=click.Path(path_type=Path), help="Folder for speed*.csv.")
@json_option
def command(
    datasets: tuple[str, ...], quick: bool, part: str, threads: int | None, folder: Path | None, as_json: bool
) -> None:
    """Measure training, evaluation, loading, memory and growth against the plain loop.

    The plain loop does the same job the usual way; both run in turns, so ratios compare times of the same minutes.
    Without DATASET the embedded data `demo` is used.
    """
    import torch

    from mbgraph.bench import speed
    from mbgraph.bench.report import write_rows
    from mbgraph.run import cpu_name

    if threads:
        torch.set_num_threads(threads)
    settings = speed.Settings.quick() if quick else speed.Settings()

    def notify(text: str) -> None:
        console.print(text, markup=False)

    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    parts: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    for name in (datasets or ("demo",)) if part != "growth" else ():
        parts += [measured.row(machine) for measured in speed.measure(name, settings, notify)]
        notify(f"{name}: where a step's time goes")
        shares += [{**row, **machine} for row in speed.step_shares(name)]
    growth: list[dict[str, Any]] = []
    if part != "datasets":
        graphs = [(edges, 0) for edges in settings.edges] + ([settings.crowd] if settings.crowd else [])
        for edges, users in graphs:
            notify(f"generated graph of {edges:,} edges" + (f" and {users:,} users" if users else ""))
            growth += [{**row, **machine} for row in speed.scaling((edges,), users)]
    if folder is not None:
        for name, rows in (("speed", parts), ("speed_step", shares), ("speed_growth", growth)):
            if rows:
                write_rows(folder / f"{name}.csv", rows)
                console.print(f"wrote {folder / f'{name}.csv'}", markup=False)
    if as_json:
        emit_json({"parts": parts, "step": shares, "growth": growth})
        return
    _show(parts, shares, growth, machine)


def _show(
    parts: list[dict[str, Any]], shares: list[dict[str, Any]], growth: list[dict[str, Any]], machine: dict[str, Any]
) -> None:
    def number(value: Any) -> str:
        return f"{value:,.3g}" if isinstance(value, float) else str(value)

    columns = ["dataset", "part", "unit", "ours", "plain", "ratio", "goal", "floor", "times floor"]
    title = f"Medians on {machine['threads']} threads of {machine['cpu']}"
    if parts:
        table(title, columns, [[number(row[column]) for column in columns] for row in parts])
        table(
            "Where a step's time goes",
            ["dataset", "rows", "part", "ms", "share"],
            [[row["dataset"], row["rows"], row["part"], f"{row['ms']:.1f}", f"{row['share']:.0%}"] for row in shares],
        )
    if growth:
        names = [name for name in growth[0] if name not in machine]
        table("Generated graphs", names, [[f"{row[name]:,}" for name in names] for row in growth])
