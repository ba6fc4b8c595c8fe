"""The report of a run or of a study as one page."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbgraph.bench import webpage as web
from mbgraph.bench.curves import activity_groups, training_panels
from mbgraph.bench.grids import grids
from mbgraph.bench.pictures import bars, can_draw, draw_panels, study_figures
from mbgraph.bench.results import Results
from mbgraph.bench.verdicts import verdicts
from mbgraph.data.alignment import alignment, describe, leakage
from mbgraph.data.cards import find_card
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.evaluation.metrics import headline_metrics
from mbgraph.evaluation.per_user import PerUser, read_per_user
from mbgraph.run import Run
from mbgraph.run.directory import PER_USER
from mbgraph.schema import shown

__all__ = ["run_page", "study_page"]

NO_PICTURES = 'Pictures are left out: matplotlib is not installed (pip install "mbgraph[plot]").'


def study_page(results: Results) -> str:
    """Return the report of a study: question, tables, verdicts, pictures, how to repeat it."""
    study = results.study
    decided = verdicts(results)
    synthetic = ", ".join(results.synthetic)
    drawn = [web.picture(draw(), name.replace("-", " ")) for name, draw in _figures(results).items()]
    seeds = ", ".join(map(str, study.seeds))
    return web.page(
        study.title,
        [
            web.paragraph(study.question),
            web.paragraph(f"Synthetic data, no result about any shop: {synthetic}." if synthetic else "", "warn"),
            web.bullets(results.notes),
            *(web.section(grid.title, web.grid_html(grid)) for grid in grids(results)),
            web.section(
                "Verdicts",
                web.table(
                    ["claim", "place", "dataset", "verdict", "evidence"],
                    [[v.claim.text, v.claim.place, v.dataset, v.verdict, "; ".join(v.evidence)] for v in decided],
                    text=True,
                ),
            ),
            web.section("Pictures", *drawn, "" if can_draw() else web.paragraph(NO_PICTURES, "note")),
            web.section("Repeating it", web.code(f"mbgraph bench {study.name}"), web.paragraph(f"Seeds: {seeds}.")),
        ],
    )


def _figures(results: Results) -> dict[str, Any]:
    return study_figures(results) if can_draw() else {}


def run_page(path: str | Path) -> str:
    """Return the report of a finished run.

    Configuration, the data and where held-out pairs shine through, results, users, training, how to repeat it.

    Raises
    ------
    RunError
        If the run is not finished, or its data are gone.
    """
    run = Run.load(path)
    outcome, environment = run.outcome(), run.environment()
    dataset = run.dataset()
    variant = f" ({outcome['variant']})" if outcome["variant"] else ""
    synthetic = dataset.metadata.get("synthetic")
    return web.page(
        f"{outcome['model']}{variant} on {outcome['dataset']}, seed {outcome['seed']}",
        [
            web.paragraph("Synthetic data, no result about any shop." if synthetic else "", "warn"),
            web.bullets(outcome["notices"]),
            web.section("Results", _results(outcome)),
            web.section("Users", *_users(run, dataset)),
            web.section("Training", *_training(run, outcome)),
            web.section("Data", *_data(dataset)),
            web.section("Configuration", _configuration(run)),
            web.section("Repeating it", *_repeating(environment)),
        ],
    )


def _results(outcome: Mapping[str, Any]) -> str:
    details = outcome["details"]
    metrics = headline_metrics(next(iter(details.values()))["groups"]["all"]["metrics"]) if details else []
    rows = []
    notes = []
    for split, found in details.items():
        for group, values in found["groups"].items():
            figures = [values["metrics"].get(name) for name in metrics]
            share = f"{values['share']:.1%}"
            rows.append([f"{split}, {group}", share, *("-" if v is None else f"{v:.4f}" for v in figures)])
        how = f"all items ranked, mask {found['mask']}, {found['ties']} ties"
        notes.append(f"{split}: {found['users_evaluated']:,} users, {how}.")
    return web.table(["held-out pairs", "share", *metrics], rows) + web.paragraph(" ".join(notes), "note")


def _users(run: Run, dataset: MultiBehaviorDataset) -> list[str]:
    file = run.path / PER_USER["test"]
    if not file.is_file():
        return []
    found: PerUser = read_per_user(file)
    name = next(iter(headline_metrics(found.metrics)), None)
    if name is None:
        return []
    ndcg = name.replace("HR@", "NDCG@")
    groups = activity_groups(dataset, found.user_id, found.metrics[name])
    labels = [
        f"{each['least']}-{each['most']}" if each["least"] < each["most"] else f"{each['most']}" for each in groups
    ]
    parts = [
        web.table(
            ["train purchases of a user", "users", name],
            [[label, f"{each['users']:,}", f"{each['mean']:.4f}"] for label, each in zip(labels, groups, strict=True)],
        )
    ]
    values = found.metrics.get(ndcg)
    if values is not None:
        steps = list(itertools.pairwise((0.0, 0.25, 0.5, 0.75, 1.0)))
        counts = [int((values == 0).sum()), *(int(((values > low) & (values <= high)).sum()) for low, high in steps)]
        names = ["0", *(f"{low:g}-{high:g}" for low, high in steps)]
        rows = [[n, f"{c:,}", f"{c / len(values):.1%}"] for n, c in zip(names, counts, strict=True)]
        parts.append(web.table([f"{ndcg} of a user", "users", "share"], rows))
    if can_draw():
        means = [each["mean"] for each in groups]
        drawn = bars(f"{name} by activity", labels, means, "train purchases of a user", name)
        parts.append(web.picture(drawn, f"{name} by the number of train purchases of a user"))
    return parts


def _training(run: Run, outcome: Mapping[str, Any]) -> list[str]:
    log = run.path / "metrics.jsonl"
    if not log.is_file():
        return [web.paragraph("This model is not trained.")]
    panels = training_panels(log)
    rows = [[line.name, f"{line.y[0]:.4g}", f"{line.y[-1]:.4g}"] for panel in panels[:1] for line in panel.lines]
    norms = next((panel for panel in panels if panel.title.startswith("gradient")), None)
    return [
        web.paragraph(
            f"{outcome['epochs']} epochs, the best one {outcome['best_epoch']}, {outcome['seconds_per_epoch']:.2f} s "
            f"each, peak memory {outcome['peak_memory_mb']:.0f} MiB."
        ),
        web.table(["weighted term", "first epoch", "last epoch"], rows),
        web.table(
            ["gradient norm", "first", "last"],
            [[line.name, f"{line.y[0]:.3g}", f"{line.y[-1]:.3g}"] for line in norms.lines] if norms else [],
        ),
        web.picture(draw_panels(panels), "terms, gradient norms and validation over the epochs")
        if can_draw()
        else web.paragraph(NO_PICTURES, "note"),
    ]


def _data(dataset: MultiBehaviorDataset) -> list[str]:
    facts, aligned, leaks = describe(dataset), alignment(dataset), leakage(dataset)
    rows = [[name, f"{count:,}"] for name, count in facts["counts"].items()]
    rows += [[f"BAR {name}", f"{rate:.4f}"] for name, rate in aligned.bar.items()] + [["DT", f"{aligned.dt:.4f}"]]
    rows += [
        [f"{split} pairs with an auxiliary train edge", f"{found['any']:.1%}"]
        for split, found in leaks.visible_share.items()
    ]
    rows += [[f"pairs in both {name}", f"{count:,}"] for name, count in leaks.overlap.items()]
    card = find_card(dataset.name)
    told = [] if card is None else [card.description, *(f"{part}: {text}" for part, text in card.splits.items())]
    return [
        web.paragraph(f"{dataset.name}: {dataset.num_users:,} users, {dataset.num_items:,} items."),
        web.bullets(told),
        web.table(["", ""], rows),
        web.paragraph(f"Content hash {dataset.content_hash()}", "note"),
    ]


def _configuration(run: Run) -> str:
    values = run.config.plain()
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name}.{key} = {shown(inner)}" for key, inner in value.items()]
        elif name == "regularizers":
            lines += [f"regularizer {shown(entry)}" for entry in value]
        else:
            lines.append(f"{name} = {shown(value)}")
    return web.code("\n".join(lines))


def _repeating(environment: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    commands = [environment["command"], *environment.get("extended", [])]
    return [
        web.code("\n".join(shlex.join(command) for command in commands)),
        web.paragraph(
            "Everything that decides the figures is the configuration above: mbgraph fit --config config.toml."
        ),
        web.paragraph(f"{environment['cpu']}, {environment['threads']} threads; {versions}.", "note"),
    ]
