"""`mbgraph inspect`: what a dataset is like before any model sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.common import Command, dataset_argument, emit_json, json_option, load, out, table

if TYPE_CHECKING:
    from mbgraph.data.alignment import Leakage
    from mbgraph.data.dataset import MultiBehaviorDataset


@click.command("inspect", cls=Command)
@dataset_argument
@json_option
def command(dataset: str, as_json: bool) -> None:
    """Print counts, density, degrees, alignment (BAR, DT) and a leakage report.

    BAR is the share of all target pairs (train, valid and test) that also are train edges of an auxiliary
    behavior, DT the share that no auxiliary behavior has (the paper's Table 1).

    \b
    Examples:
      mbgraph inspect                      the demo data
      mbgraph inspect beibei --json
      mbgraph inspect path/to/folder
    """  # noqa: D301 (click reads the backspace)
    from dataclasses import asdict

    from mbgraph.data.alignment import alignment, describe, leakage

    ds = load(dataset)
    facts, aligned, leaks = describe(ds), alignment(ds), leakage(ds)
    if as_json:
        emit_json(
            {
                "dataset": ds.name,
                "synthetic": bool(ds.metadata.get("synthetic")),
                "target": ds.target,
                "behaviors": list(ds.behaviors),
                **facts,
                **asdict(aligned),
                "leakage": asdict(leaks),
            }
        )
        return
    _print_facts(ds, facts)
    table(
        f"Alignment with {ds.target!r}",
        ["", *(f"BAR {behavior}" for behavior in ds.auxiliary), "DT"],
        [
            ["all target pairs (paper)", *aligned.bar.values(), aligned.dt],
            ["train target pairs", *aligned.train_bar.values(), aligned.train_dt],
        ],
    )
    out.print("\nLeakage", style="italic")
    for line in _leaks(ds, leaks):
        out.print(f"- {line}", soft_wrap=True)


def _print_facts(ds: MultiBehaviorDataset, facts: dict[str, Any]) -> None:
    out.print(
        f"{ds.name}: {ds.num_users:,} users, {ds.num_items:,} items, {facts['interactions']:,} interactions, "
        f"target {ds.target!r} ({facts['target_pairs']:,} pairs with the held-out ones)",
        soft_wrap=True,
    )
    counts = [
        [name, pairs, f"{facts['density'][name]:.4%}" if name in facts["density"] else None]
        for name, pairs in facts["counts"].items()
    ]
    table("Pairs (behaviors: train)", ["", "pairs", "density"], counts)
    quantiles = ["min", "25%", "median", "75%", "95%", "max"]
    degrees = [
        [
            f"{behavior} per {kind}",
            *(f"{spread[name]:,.0f}" for name in quantiles),
            f"{spread['mean']:,.1f}",
            spread["isolated"],
        ]
        for behavior, kinds in facts["degrees"].items()
        for kind, spread in kinds.items()
    ]
    table("Degrees (train)", ["", *quantiles, "mean", "zero"], degrees)
    for inner, outer in facts["nested"]:
        out.print(f"every {inner} edge is also a {outer} edge")
    if any(facts["isolated"].values()):
        lonely = " and ".join(_n(count, kind) for kind, count in facts["isolated"].items() if count)
        out.print(f"no train edge at all: {lonely}")


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _leaks(ds: MultiBehaviorDataset, leaks: Leakage) -> Iterator[str]:
    if not ds.splits:
        yield "no held-out pairs: nothing can leak, and nothing can be measured"
    for names, shared in leaks.overlap.items():
        first, second = names.split("/")
        yield f"{first} and {second} share {_n(shared, 'pair')}" + ("" if shared else " (good)")
    if leaks.valid_equals_test:
        yield "valid and test are the same pairs: choosing a model by valid reads the test set"
    for split, found in leaks.visible.items():
        shares = leaks.visible_share[split]
        parts = ", ".join(f"{name} {count:,} ({shares[name]:.1%})" for name, count in found.items() if name != "any")
        yield (
            f"{split}: {found['any']:,} of {_n(len(ds.splits[split]), 'pair')} ({shares['any']:.1%}) visible "
            "in an auxiliary behavior" + (f": {parts}" if parts else "")
        )
    for split, count in leaks.unseen_items.items():
        if count:
            yield f"{split}: {_n(count, 'pair')} with an item that has no train {ds.target} edge"
    if leaks.users_without_train:
        yield f"{_n(leaks.users_without_train, 'user')} with held-out pairs but no train {ds.target} edge"
    if leaks.users_in_no_split:
        yield f"{_n(leaks.users_in_no_split, 'user')} without a {ds.target} pair in any split"
