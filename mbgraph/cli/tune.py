"""`mbgraph tune`: options searched by validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.bench.study import Span
from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, out, stop_early, table

SHOWN = 10


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  mbgraph tune space.toml --out search
  mbgraph tune space.toml --out search --trials 50     more of them, later
  mbgraph tune space.toml --sampler optuna --budget 1h
  mbgraph fit --config search/best.toml

\b
A search space:
  trials = 20
  [base]
  dataset = "demo"
  model = "rmbrec"
  [axes]
  "options.num_layers" = [1, 2, 3]
  "training.lr" = { low = 1e-4, high = 1e-2, log = true }
  "regularizers.infonce.weight" = { low = 0.1, high = 2.0 }
""",
)
@click.argument("space", type=PATH, metavar="SPACE.toml")
@click.option("--out", "folder", type=PATH, help="Trials and best.toml.  [default: runs/tune-NAME]")
@click.option("--sampler", type=click.Choice(["random", "grid", "optuna"]), help="Instead of the file's.")
@click.option("--trials", type=click.IntRange(1, 1_000_000), help="Instead of the file's.")
@click.option("--budget", type=Span(), help="Begin no epoch after this time; the next call goes on.")
@json_option
def command(
    space: Path, folder: Path | None, sampler: str | None, trials: int | None, budget: float | None, as_json: bool
) -> None:
    """Search for options by the validation metric; the test pairs are never read.

    The same command goes on where an earlier one ended.
    """
    from mbgraph.bench.space import read_space
    from mbgraph.bench.tuning import Trial, tune

    chosen: dict[str, Any] = {"sampler": sampler, "trials": trials}
    searched = read_space(space).replace(**{name: value for name, value in chosen.items() if value is not None})
    place = Path("runs") / f"tune-{space.stem}" if folder is None else folder

    def told(trial: Trial) -> None:
        figure = "-" if trial.value is None else f"{trial.value:.4f}"
        line = f"trial {trial.number}: {figure}, {trial.status} after {trial.epochs} epochs"
        console.print(f"{line}, {trial.seconds:.1f} s: {_words(trial.values)} {trial.error}".rstrip())

    found, interrupted = tune(searched, place, budget=budget, on_trial=told)
    if as_json:
        emit_json({"out": place, "interrupted": interrupted, "trials": [dict(vars(trial)) for trial in found]})
    else:
        columns = ["trial", *searched.axes, "validation", "epochs", "status"]
        rows = [
            [
                str(trial.number),
                *(_word(trial.values[name]) for name in searched.axes),
                trial.value,
                trial.epochs,
                trial.status,
            ]
            for trial in found[:SHOWN]
        ]
        table(f"Best of {len(found)} trials", columns, rows)
        if found and found[0].value is not None:
            out.print(f"best: mbgraph fit --config {place / 'best.toml'}", soft_wrap=True)
    if interrupted:
        stop_early(budget)


def _words(values: Any) -> str:
    return ", ".join(f"{name}={_word(value)}" for name, value in values.items())


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
