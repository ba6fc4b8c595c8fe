"""`mbgraph fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, out, table
from mbgraph.errors import UsageError

EPILOG = """\b
Examples:
  mbgraph fit
  mbgraph fit taobao15k --variant official --seed 1
  mbgraph fit taobao15k --model conversion
  mbgraph fit --regularizer infonce:weight=0.8 --regularizer rex:weight=0
  mbgraph fit --regularizer irmv1:weight=0.5,warmup=10 --set num_layers=2
  mbgraph fit --resume runs/demo-rmbrec-mbgraph-s2026
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("dataset", required=False, metavar="[DATASET]")
@click.option("--model", help="Model to train; see mbgraph models.  [default: rmbrec]")
@click.option("--variant", help="Preset of the model: mbgraph, official or paper for rmbrec.")
@click.option("--epochs", type=int, help="Most epochs.")
@click.option("--patience", type=int, help="Epochs without a better validation metric before it stops.")
@click.option("--batch-size", type=int, help="Rows per step.")
@click.option("--lr", type=float, help="Step size of Adam.")
@click.option("--seed", type=int, help="Seed of initialisation and sampling.  [default: 2026]")
@click.option(
    "--protocol", help="Split of the target: paper (as published), loo, ratio:A,B,C or temporal:CUT.  [default: paper]"
)
@click.option("--validation", help="given, holdout, none, merge or auto.  [default: auto]")
@click.option("--regularizer", "regularizers", multiple=True, metavar="NAME[:weight=..,..]", help="Add or change one.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any option by name.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; flags override it.")
@click.option("--out", "directory", type=click.Path(path_type=Path), help="Run directory.  [default: runs/...]")
@click.option("--resume", "resumed", type=click.Path(path_type=Path), metavar="RUN", help="Continue a run.")
@click.option("--device", help="auto, cpu or cuda.  [default: auto]")
@click.option("--threads", type=int, help="CPU threads.")
@click.option("--dry-run", is_flag=True, help="Check everything and print the memory it would take; train nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@json_option
def command(
    dataset: str | None,
    regularizers: tuple[str, ...],
    settings: tuple[str, ...],
    config_file: Path | None,
    directory: Path | None,
    resumed: Path | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a model, select on validation, report on test.

    Without DATASET the embedded synthetic data `demo` is used.
    """
    from mbgraph import run as runs
    from mbgraph.cli.progress import TrainingProgress

    callbacks = [] if quiet else [TrainingProgress(console)]
    if resumed is not None:
        given = [name for name, value in flags.items() if value is not None and name != "threads"]
        if dataset or regularizers or settings or config_file or directory or dry_run or given:
            raise UsageError("--resume takes the run's own configuration", "give no other options beside --threads")
        outcome = runs.resume(resumed, callbacks, threads=flags["threads"] or 0)
    else:
        config = _config(dataset, regularizers, settings, config_file, flags)
        if dry_run:
            planned = runs.plan(config, (lambda resolved: None) if quiet else _announce)
            if as_json:
                emit_json(planned)
            else:
                show_plan(planned)
            return
        outcome = runs.fit(config, directory, callbacks, (lambda resolved: None) if quiet else _announce)
    details = outcome.pop("details", {})
    if as_json:
        emit_json(outcome)
    elif not outcome["interrupted"]:
        show(outcome, details)
    if outcome["interrupted"]:
        if outcome["epochs"]:
            console.print(
                f"interrupted after epoch {outcome['epochs']}; the run is usable and holds epoch "
                f"{outcome['best_epoch']}; "
                f"continue with: mbgraph fit --resume {outcome['run']}",
                markup=False,
            )
        else:
            console.print(f"interrupted in the first epoch; start over with: mbgraph fit --resume {outcome['run']}")
        click.get_current_context().exit(130)


def _config(
    dataset: str | None,
    regularizers: tuple[str, ...],
    settings: tuple[str, ...],
    config_file: Path | None,
    flags: dict[str, Any],
) -> Any:
    from mbgraph.config import FitConfig, parse_assignment, parse_regularizer, read_config
    from mbgraph.models import MODELS

    config = FitConfig() if config_file is None else read_config(config_file)
    top = {
        "dataset": dataset,
        **{key: flags[key] for key in ("model", "variant", "seed", "protocol", "validation", "device", "threads")},
    }
    config = config.replace(**{key: value for key, value in top.items() if value is not None})
    model_class = MODELS.get(config.model)
    chosen = {key: flags[key] for key in ("epochs", "patience", "batch_size", "lr") if flags[key] is not None}
    if chosen and not model_class.trainable:
        flag = next(iter(chosen)).replace("_", "-")
        raise UsageError(f"model {config.model!r} is not trained and does not read --{flag}", "leave it out")
    config = config.replace(training={**config.training, **chosen})
    for text in settings:
        config = config.set(*parse_assignment(text), model_class.option_names())
    return config.replace(regularizers=[*config.regularizers, *(parse_regularizer(text) for text in regularizers)])


def _announce(config: Any) -> None:
    """Print the resolved configuration, a line per section."""
    values = config.to_dict()
    made = " (embedded, synthetic)" if config.dataset == "demo" else ""
    console.print(f"data: {values.pop('dataset')}{made}", markup=False)
    sections = {name: values.pop(name) for name in ("options", "training", "evaluation")}
    regularizers = values.pop("regularizers")
    console.print("run: " + _pairs(values), markup=False)
    for name, section in sections.items():
        if section:
            console.print(f"{name}: {_pairs(section)}", markup=False)
    for entry in regularizers:
        console.print(f"regularizer: {_pairs(entry)}", markup=False)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def show_plan(planned: dict[str, Any]) -> None:
    """Print what a fit would take."""
    rows = [*planned["memory"].items(), ("together", planned["memory_mb"])]
    table("Memory at the peak, estimated", ["part", "MiB"], [[part, f"{size:,.0f}"] for part, size in rows])
    out.print(
        f"{planned['parameters']:,} parameters, {planned['steps_per_epoch']:,} steps per epoch, "
        f"{planned['evaluation_block']} users scored at a time",
        markup=False,
    )
    if planned["memory_mb"] > planned["available_mb"]:
        console.print(
            f"warning: {planned['available_mb']:,.0f} MiB are available; lower embedding_dim or use "
            "--set row_dtype=bfloat16",
            markup=False,
        )


def show(outcome: dict[str, Any], details: dict[str, Any]) -> None:
    """Print the tables of a finished run."""
    rows = []
    for split, result in details.items():
        for group, values in result["groups"].items():
            shown = [values["metrics"].get(name) for name in ("HR@10", "NDCG@10", "HR@20", "NDCG@20")]
            rows.append([f"{split} {group}", values["share"], *shown])
    table(
        f"{outcome['dataset']}: {outcome['model']}" + (f" ({outcome['variant']})" if outcome["variant"] else ""),
        ["held-out pairs", "share", "HR@10", "NDCG@10", "HR@20", "NDCG@20"],
        rows,
    )
    out.print(
        f"epochs {outcome['epochs']} (best {outcome['best_epoch']}), {outcome['seconds_per_epoch']:.2f} s per epoch, "
        f"{outcome['users_evaluated']:,} test users, peak memory {outcome['peak_memory_mb']:.0f} MB",
        markup=False,
    )
    out.print(f"run: {outcome['run']}", markup=False)
