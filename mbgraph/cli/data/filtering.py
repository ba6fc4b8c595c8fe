"""The options that leave users, items and moments out, shared by import and convert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.common import F

if TYPE_CHECKING:
    from mbgraph.data.filters import Filter

__all__ = ["filter_notes", "filter_of", "filter_options"]


def filter_options(function: F) -> F:
    """Add ``--min-user``, ``--min-item``, ``--of``, ``--core`` and ``--window``."""
    at_least = click.IntRange(0, 2**31 - 1)
    for option in (
        click.option("--window", metavar="A..B", help="Only events from A to B, dates or numbers, both included."),
        click.option("--core", is_flag=True, help="Count again until every user and item has as many (k-core)."),
        click.option(
            "--of",
            type=click.Choice(["target", "all"]),
            default="target",
            show_default=True,
            help="Pairs that --min-user and --min-item count: the target's, or all behaviors'.",
        ),
        click.option("--min-item", type=at_least, default=0, help="Leave out items with fewer pairs."),
        click.option("--min-user", type=at_least, default=0, help="Leave out users with fewer pairs."),
    ):
        function = option(function)
    return function


def filter_of(options: Mapping[str, Any]) -> Filter:
    """Return the filter that the options ask for."""
    from mbgraph.data.filters import Filter

    return Filter(**{name: options[name] for name in ("min_user", "min_item", "of", "core", "window")})


def filter_notes(acts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what filters left out."""
    from mbgraph.data.filters import Filter

    lines = []
    for act in acts:
        rule = Filter(**{name: act[name] for name in ("min_user", "min_item", "of", "core", "window") if name in act})
        left = [
            f"{act[f'{kind}_left_out']:,} {kind}" for kind in ("events", "users", "items") if f"{kind}_left_out" in act
        ]
        pairs = sum(act.get("pairs_left_out", {}).values())
        rounds = f" in {act['rounds']} rounds" if "rounds" in act else ""
        lines.append(f"filter ({rule.told()}): left out {', '.join(left)}, {pairs:,} pairs{rounds}")
    return lines
