"""`mbgraph fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, console, emit_json, json_option, out, table
from mbgraph.cli.sections import SectionsCommand, options_of
from mbgraph.errors import UsageError

EPILOG = """\b
Examples:
  mbgraph fit
  mbgraph fit taobao15k --variant official --seed 1
  mbgraph fit taobao15k --model conversion
  mbgraph fit --regularizer infonce:weight=0.8 --regularizer rex:weight=0
  mbgraph fit --regularizer irmv1:weight=0.5,warmup=10 --set num_layers=2
  mbgraph fit --k 5,10,50 --metric NDCG@10 --mask all-behaviors
  mbgraph fit --log tensorboard
  mbgraph fit --resume runs/demo-rmbrec-mbgraph-s2026
  mbgraph fit --resume runs/demo-rmbrec-mbgraph-s2026 --epochs 400 --patience 40
  mbgraph fit big --batch-size auto
  torchrun --nproc-per-node 2 -m mbgraph fit big --batch-size auto

mbgraph models NAME lists what --set knows of a model, and --regularizer of a regularizer.
"""


def _sections() -> list[tuple[str, list[click.Option]]]:
    from mbgraph.config import SECTIONS, FitConfig
    from mbgraph.evaluation.options import EvaluationOptions
    from mbgraph.models.options import TrainingOptions

    return [
        ("The run", options_of(FitConfig, leave_out=("dataset", *SECTIONS, "regularizers"))),
        ("Training (defaults are the model's: mbgraph models NAME)", options_of(TrainingOptions, defaults=False)),
        ("Evaluation", options_of(EvaluationOptions)),
    ]


class FitCommand(SectionsCommand):
    """The one command that ``torchrun`` may start."""

    in_processes = True


@click.command(cls=FitCommand, epilog=EPILOG, sections=_sections)
@click.argument("dataset", required=False, metavar="[DATASET]")
@click.option("--regularizer", "regularizers", multiple=True, metavar="NAME[:KEY=VALUE,..]", help="Add or change one.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set any option by name.")
@click.option("--config", "config_file", type=PATH, help="TOML file; flags override it.")
@click.option("--out", "directory", type=PATH, help="Run directory.  [default: runs/...]")
@click.option(
    "--resume",
    "resumed",
    type=PATH,
    metavar="RUN",
    help="Continue a run; with --epochs or --patience beyond its end.",
)
@click.option("--dry-run", is_flag=True, help="Take one step and one block of the evaluation; print what a fit takes.")
@click.option("--log", "logs", multiple=True, metavar="NAME", help="Log to tensorboard, mlflow or wandb as well.")
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
    logs: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Train a model, select on validation, report on test.

    Without DATASET the embedded synthetic data `demo` is used.
    """
    from mbgraph import processes
    from mbgraph import run as runs
    from mbgraph.cli.progress import TrainingProgress
    from mbgraph.training.loggers import make_logger

    number, together = processes.asked_for()
    if together > 1 and dry_run:
        raise UsageError("--dry-run measures one process", "leave torchrun out")
    is_silent = number > 0  # of several processes the first one speaks
    callbacks = (
        [] if is_silent else [*([] if quiet else [TrainingProgress(console)]), *map(make_logger, dict.fromkeys(logs))]
    )
    announce = (lambda resolved: None) if quiet or is_silent else _announce
    warn = (lambda line: None) if is_silent else _warn
    if resumed is not None:
        given = {name: value for name, value in flags.items() if value is not None}
        if dataset or regularizers or settings or config_file or directory or dry_run or not given.keys() <= _EXTENDS:
            raise UsageError(
                "--resume takes the run's own configuration", "beside it stand only --epochs, --patience and --threads"
            )
        with processes.joined():
            outcome = runs.resume(resumed, callbacks, warn=warn, **_limits(given))
    else:
        config = _config(dataset, regularizers, settings, config_file, flags)
        if dry_run:
            planned = runs.plan(config, announce, _warn)
            if as_json:
                emit_json(planned)
            else:
                show_plan(planned)
            return
        with processes.joined():
            outcome = runs.fit(config, directory, callbacks, announce, warn)
    if is_silent:
        click.get_current_context().exit(130 if outcome["interrupted"] else 0)
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
            )
        else:
            console.print(f"interrupted in the first epoch; start over with: mbgraph fit --resume {outcome['run']}")
        click.get_current_context().exit(130)


_MANY_STEPS = 100  # per epoch: what is worth a word
_EXTENDS = {"epochs", "patience", "threads"}


def _limits(given: dict[str, str]) -> dict[str, int]:
    """Return what a run can be resumed with, checked as any field is."""
    from mbgraph.config import FitConfig
    from mbgraph.models.options import TrainingOptions

    limits = {name: text for name, text in given.items() if name != "threads"}
    checked: dict[str, Any] = {**TrainingOptions.from_text(limits).given()}
    if "threads" in given:
        checked["threads"] = FitConfig.from_text({"threads": given["threads"]}).threads
    return checked


def _config(
    dataset: str | None,
    regularizers: tuple[str, ...],
    settings: tuple[str, ...],
    config_file: Path | None,
    flags: dict[str, str | None],
) -> Any:
    from mbgraph.config import FitConfig, configured, read_config
    from mbgraph.regularizers.base import parse_regularizer

    config = FitConfig() if config_file is None else read_config(config_file)
    entries = [parse_regularizer(text) for text in regularizers]
    return configured(config, {"dataset": dataset, **flags}, settings, entries)


def _warn(line: str) -> None:
    console.print(f"warning: {line}")


def _announce(config: Any) -> None:
    """Print the resolved configuration, a line per section."""
    values = config.plain()
    made = " (embedded, synthetic)" if config.dataset == "demo" else ""
    console.print(f"data: {values.pop('dataset')}{made}")
    sections = {name: values.pop(name) for name in ("options", "training", "evaluation")}
    regularizers = values.pop("regularizers")
    console.print("run: " + _pairs(values))
    for name, section in sections.items():
        if section:
            console.print(f"{name}: {_pairs(section)}")
    for entry in regularizers:
        console.print(f"regularizer: {_pairs(entry)}")


def _pairs(values: dict[str, Any]) -> str:
    from mbgraph.schema import shown

    return ", ".join(f"{key}={shown(value)}" for key, value in values.items() if value != "")


def show_plan(planned: dict[str, Any]) -> None:
    """Print what a fit would take."""
    rows = [*planned["memory"].items(), ("together", planned["memory_mb"])]
    table("Memory at the peak, measured by one step", ["part", "MiB"], [[part, f"{size:,.0f}"] for part, size in rows])
    out.print(
        f"{planned['parameters']:,} parameters, {planned['steps_per_epoch']:,} steps per epoch, "
        f"{planned['evaluation_block']} users scored at a time",
    )
    if planned["steps_per_epoch"] > _MANY_STEPS:
        console.print(
            f"an epoch passes over the whole graph {planned['steps_per_epoch']:,} times; --batch-size auto has fewer, "
            "larger steps",
        )
    if planned["device_mb"] is not None:
        out.print(f"on the card {planned['device_mb']:,.0f} MiB")
    if planned["memory_mb"] > planned["available_mb"]:
        console.print(
            f"warning: {planned['available_mb']:,.0f} MiB are available; lower embedding_dim or use "
            "--set row_dtype=bfloat16",
        )


def show(outcome: dict[str, Any], details: dict[str, Any]) -> None:
    """Print the tables of a finished run."""
    from mbgraph.evaluation.metrics import headline_metrics

    names = headline_metrics(outcome["test"] or outcome["valid"])
    rows = [
        [f"{split} {group}", values["share"], *(values["metrics"].get(name) for name in names)]
        for split, result in details.items()
        for group, values in result["groups"].items()
    ]
    table(
        f"{outcome['dataset']}: {outcome['model']}" + (f" ({outcome['variant']})" if outcome["variant"] else ""),
        ["held-out pairs", "share", *names],
        rows,
    )
    out.print(
        f"epochs {outcome['epochs']} (best {outcome['best_epoch']}), {outcome['seconds_per_epoch']:.2f} s per epoch, "
        f"{outcome['users_evaluated']:,} test users, peak memory {outcome['peak_memory_mb']:.0f} MB",
    )
    if outcome.get("learned"):
        show_learned(outcome["learned"])
    out.print(f"run: {outcome['run']}")


def show_learned(learned: dict[str, Any]) -> None:
    """Print the weights of a model that learns in one go, and what they were fitted on."""
    table(
        "Weights of standardised evidence, and their standard errors",
        ["list", "evidence", "name", "weight", "error"],
        [[each[key] for key in ("list", "evidence", "name", "weight", "error")] for each in learned["weights"]],
    )
    labels = learned["labels"]
    out.print(
        f"labels: {labels['pairs']:,} {labels['source']} pairs, {labels['visited_share']:.1%} of visited items; "
        f"{labels['seen']:,} on the seen list, {labels['retrieved']:,} retrieved, {labels['missed']:,} on neither",
    )
    for line in learned["notices"]:
        out.print(line)
    if learned["cross_fitted"]:
        words = ", ".join(f"{name} {value:.4f}" for name, value in learned["cross_fitted"].items())
        out.print(f"labels within the lists, each user's with weights of other users: {words}")
