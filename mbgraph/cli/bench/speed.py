"""`mbgraph bench speed`: times beside the plain loop and the machine's limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, table
from mbgraph.machine import MOST_THREADS

if TYPE_CHECKING:
    from mbgraph.bench.speed import Settings

PARTS = ("datasets", "growth", "costs")
TITLES = {
    "parts": "Beside the plain loop",
    "step": "Where a step's time goes",
    "growth": "Generated graphs that grow",
    "memory": "Memory of a fit",
    "costs": "One property at a time",
}
CARD_TITLES = {"card": "On a device, in each way that a step can be computed", "card_growth": "Random graphs that grow"}


@click.command(
    name="speed",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph bench speed --quick                   a few minutes, the embedded data
  mbgraph bench speed taobao15k beibei --threads 2 -o benchmarks/results
  mbgraph bench speed --part growth --threads 2
  mbgraph bench speed taobao15k --device cuda -o benchmarks/results/h200
""",
)
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--quick", is_flag=True, help="Fewer repetitions, smaller graphs, no complete fit.")
@click.option(
    "--part",
    type=click.Choice(["all", *PARTS]),
    default="all",
    show_default=True,
    help="Datasets beside the plain loop; generated graphs that grow; one property of them at a time; or all.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="cuda: steps, kernels, epochs, evaluation and memory on the card, and random graphs that grow there.",
)
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads.  [default: torch's]")
@click.option("-o", "--out", "folder", type=PATH, help="Folder for speed*.csv.")
@json_option
def command(
    datasets: tuple[str, ...],
    quick: bool,
    part: str,
    device: str,
    threads: int | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Measure training, evaluation, loading, memory and growth against the plain loop.

    The plain loop does the same job the usual way; both run in turns, so ratios compare times of the same minutes.
    Without DATASET the embedded data `demo` is used.
    """
    import torch

    from mbgraph.bench import costs, speed
    from mbgraph.bench.machine import copy_bandwidth, gemm_rate
    from mbgraph.bench.report import write_rows
    from mbgraph.machine import cpu_name

    if threads:
        torch.set_num_threads(threads)
    settings = speed.Settings.quick() if quick else speed.Settings()
    chosen = PARTS if part == "all" else (part,)

    def notify(text: str) -> None:
        console.print(text)

    def generated(shapes: list[costs.Shape]) -> Iterator[dict[str, Any]]:
        bandwidth, rate = copy_bandwidth(), gemm_rate()
        for shape in shapes:
            notify(f"generated graph: {shape}")
            yield from costs.run_apart([shape], bandwidth, rate)

    if device == "cuda":
        _on_card(datasets or ("demo",), chosen, settings, folder, as_json, quick)
        return
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
    if "datasets" in chosen:
        for name in datasets or ("demo",):
            made["parts"] += [measured.row() for measured in speed.measure(name, settings, notify)]
            notify(f"{name}: where a step's time goes")
            made["step"] += speed.step_shares(name)
    if "growth" in chosen:
        made["growth"] += generated(costs.growing(settings))
        made["memory"].append(costs.memory_per([row for row in made["growth"] if row["batch"] == costs.OWN_BATCH]))
    if "costs" in chosen:
        varied, shapes = zip(*costs.varying(settings), strict=True)
        made["costs"] += [{"varied": name, **row} for name, row in zip(varied, generated([*shapes]), strict=True)]
    if folder is not None:
        for name, rows in made.items():
            if rows:
                path = folder / ("speed.csv" if name == "parts" else f"speed_{name}.csv")
                write_rows(path, [{**row, **machine} for row in rows])
                console.print(f"wrote {path}")
    if as_json:
        emit_json({"machine": machine, **made})
        return
    console.print(f"medians on {machine['threads']} threads of {machine['cpu']}")
    for name, rows in made.items():
        if rows:
            _show(TITLES[name], rows)


def _on_card(
    datasets: tuple[str, ...],
    chosen: tuple[str, ...],
    settings: Settings,
    folder: Path | None,
    as_json: bool,
    quick: bool,
) -> None:
    """Measure what ``--device cuda`` says, and write or print it."""
    import torch

    from mbgraph.bench import card
    from mbgraph.bench.report import write_rows
    from mbgraph.errors import RunError
    from mbgraph.training.devices import resolve_device

    device = resolve_device("cuda")
    machine = {"device": card.device_name(device), "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in CARD_TITLES}

    def keep() -> None:  # after each row: a card may be at hand for minutes
        for name, rows in made.items():
            if rows and folder is not None:
                write_rows(folder / f"speed_{name}.csv", [{**row, **machine} for row in rows])

    if "datasets" in chosen:
        for name in datasets:
            for row in card.measure_card(name, "cuda", settings, console.print):
                made["card"].append(row)
                keep()
    if "growth" in chosen:
        for pairs, users, items in card.GROWING[: 1 if quick else None]:
            console.print(f"random graph of {pairs:,} pairs")
            try:
                made["card_growth"].append(card.measure_growth(pairs, users, items, "cuda"))
            except RunError as error:
                console.print(f"warning: {error}")
                break
            keep()
    if as_json:
        emit_json({"machine": machine, **made})
        return
    console.print(f"medians on {machine['device']}")
    for name, rows in made.items():
        if rows:
            _show(CARD_TITLES[name], rows)


def _show(title: str, rows: list[dict[str, Any]]) -> None:
    def cell(column: str, value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.0%}" if column in ("share", "largest error") else f"{value:,.3g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    columns = [column for column in rows[0] if column != "repeats"]
    table(title, columns, [[cell(column, row[column]) for column in columns] for row in rows])
