"""`mbgraph evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, console, emit_json, json_option, out, table
from mbgraph.cli.sections import SectionsCommand, options_of

EPILOG = """\b
Examples:
  mbgraph evaluate runs/demo-rmbrec-mbgraph-s2026
  mbgraph evaluate RUN --split test --mask all-behaviors --k 10,50
  mbgraph evaluate RUN --per-user ranks.npz --json
"""


def _sections() -> list[tuple[str, list[click.Option]]]:
    from mbgraph.evaluation.options import EvaluationOptions

    options = options_of(EvaluationOptions, leave_out=("metric",), defaults=False)
    return [("Evaluation (defaults are the run's)", options)]


@click.command(cls=SectionsCommand, epilog=EPILOG, sections=_sections)
@click.argument("run_directory", type=PATH, metavar="RUN")
@click.option(
    "--chunk-size", type=click.IntRange(1, 10_000_000), help="Users scored at a time; changes memory, never numbers."
)
@click.option("--split", type=click.Choice(["valid", "test"]), help="Only these pairs.  [default: both]")
@click.option("--per-user", type=PATH, metavar="FILE", help="Write per-user test results (npz).")
@json_option
def command(
    run_directory: Path,
    chunk_size: int | None,
    split: str | None,
    per_user: Path | None,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Evaluate a trained run on its validation and test pairs."""
    from mbgraph.errors import UsageError
    from mbgraph.evaluation.evaluate import evaluate_splits
    from mbgraph.evaluation.options import EvaluationOptions
    from mbgraph.run import Run

    given = {name: text for name, text in flags.items() if text is not None}
    asked = EvaluationOptions.from_text(given)  # wrong values are named before the run loads, which takes a while
    run = Run.load(run_directory)
    how = run.config.evaluation_options.replace(**{name: getattr(asked, name) for name in given})
    dataset = run.dataset()
    model = run.model(dataset)
    wanted = ("valid", "test") if split is None else (split,)
    splits = tuple(each for each in wanted if len(dataset.splits.get(each, ())))
    if not splits:
        raise UsageError(f"{dataset.name!r} has no {split or 'held-out'} pairs", "split the data when you import it")
    if per_user is not None and "test" not in splits:
        raise UsageError("--per-user writes test pairs, and there are none", "leave --per-user or --split out")
    results = evaluate_splits(
        model,
        dataset,
        splits=splits,
        k=how.k,
        mask=how.mask,
        ties=how.ties,
        chunk_size=chunk_size,
    )
    if per_user is not None:
        results["test"].save_per_user(per_user)
        console.print(f"wrote {per_user}")
    if as_json:
        emit_json(_summary(run, dataset, results))
        return
    for each, result in results.items():
        names = list(result.metrics)
        rows: list[list[Any]] = [
            [group, values["share"], *(values["metrics"].get(name) for name in names)]
            for group, values in result.to_dict()["groups"].items()
        ]
        table(
            f"{dataset.name} {each}, mask {result.mask}, ties {result.ties}",
            ["pairs", "share", *names],
            rows,
        )
        out.print(
            f"{result.users_evaluated:,} users evaluated, {result.users_left_out:,} without held-out items left out"
        )


def _summary(run: Any, dataset: Any, results: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(results.values()))
    return {
        "run": str(run.path),
        "dataset": dataset.name,
        "model": run.config.model,
        "mask": first.mask,
        "ties": first.ties,
        **{split: results[split].metrics if split in results else {} for split in ("valid", "test")},
        "users_evaluated": results["test"].users_evaluated if "test" in results else 0,
        "details": {split: result.to_dict() for split, result in results.items()},
    }
