"""`mbgraph data ls`: which datasets there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, table

if TYPE_CHECKING:
    from mbgraph.data.card import Card


@click.command(
    name="ls",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data ls
  mbgraph data ls --json
""",
)
@json_option
def command(as_json: bool) -> None:
    """List the datasets that can be named (the embedded demo, $MBGRAPH_DATA, ~/.cache/mbgraph) and those with a card.

    Status: "on disk" can be used right away, "download" after mbgraph data download NAME, "by hand" after what mbgraph
    data show NAME explains.
    """
    from mbgraph.data.cards import cards
    from mbgraph.data.catalog import data_folders, list_datasets

    found = [{**entry, "status": "on disk" if entry["path"] else "embedded"} for entry in list_datasets()]
    present = {entry["name"] for entry in found}
    found += [_card_entry(card) for card in cards().values() if card.name not in present]
    if as_json:
        emit_json(found)
        return
    rows = [[entry["name"], entry["status"], entry.get("users"), entry.get("items"), _pairs(entry)] for entry in found]
    table("Datasets", ["name", "status", "users", "items", "pairs"], rows)
    console.print("looked in: " + ", ".join(str(folder) for folder in data_folders()))


def _pairs(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"cannot be read: {entry['error']}"
    pairs = ", ".join(f"{part} {count:,}" for part, count in entry.get("counts", {}).items())
    return pairs or ("embedded, synthetic" if entry["status"] == "embedded" else "not published")


def _card_entry(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "path": None,
        "users": card.users,
        "items": card.items,
        "behaviors": card.behaviors,
        "target": card.target,
        "splits": [part for part in card.counts if part not in card.behaviors],
        "counts": card.counts,
        "status": "download" if card.is_downloadable else "by hand",
    }
