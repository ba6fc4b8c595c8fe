"""`mbgraph data ls`: which datasets there are."""

from __future__ import annotations

from typing import Any

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, table


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
    """List the datasets that can be named: the embedded demo, $MBGRAPH_DATA and ~/.cache/mbgraph."""
    from mbgraph.data.catalog import data_folders, list_datasets

    found = list_datasets()
    if as_json:
        emit_json(found)
        return
    rows = [[entry["name"], entry.get("users"), entry.get("items"), _pairs(entry)] for entry in found]
    table("Datasets", ["name", "users", "items", "pairs"], rows)
    console.print("looked in: " + ", ".join(str(folder) for folder in data_folders()), markup=False)


def _pairs(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"cannot be read: {entry['error']}"
    return ", ".join(f"{part} {count:,}" for part, count in entry.get("counts", {}).items()) or "embedded, synthetic"
