"""`mbgraph data`."""

from __future__ import annotations

from pathlib import Path

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, table


@click.group(name="data")
def command() -> None:
    """Import event logs and list datasets."""


@command.command(
    name="import",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data import events.csv --target purchase -o shop
  mbgraph data import log.parquet --user user_id --item product_id --behavior event_type --time event_time \\
      --target purchase --split ratio:0.7,0.2,0.1 -o shop
""",
)
@click.argument("events", type=click.Path(path_type=Path))
@click.option("--user", default="user", show_default=True, help="Column of user ids.")
@click.option("--item", default="item", show_default=True, help="Column of item ids.")
@click.option("--behavior", default="behavior", show_default=True, help="Column of behaviors.")
@click.option("--time", help="Column of times; without it the split is random.")
@click.option("--target", required=True, help="The behavior to predict.")
@click.option("--behaviors", help="Behaviors to keep, comma separated.  [default: all]")
@click.option("--split", default="auto", show_default=True, help="loo, random, ratio:A,B,C, given or none.")
@click.option("--split-column", help="For --split given: the column that says train, valid or test.")
@click.option("--name", help="Name of the dataset.  [default: the folder's]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of a random split.")
@click.option("--force", is_flag=True, help="Replace an existing folder.")
@click.option("-o", "--out", "directory", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@json_option
def import_events(
    events: Path,
    user: str,
    item: str,
    behavior: str,
    time: str | None,
    target: str,
    behaviors: str | None,
    split: str,
    split_column: str | None,
    name: str | None,
    seed: int,
    force: bool,
    directory: Path,
    as_json: bool,
) -> None:
    """Turn an event log (CSV or Parquet) into a dataset folder."""
    from mbgraph.data.events import from_events
    from mbgraph.data.formats.events import read_events
    from mbgraph.data.formats.npz import write_npz

    columns = [column for column in (user, item, behavior, time, split_column) if column]
    console.print(f"reading {events}", markup=False)
    ds = from_events(
        read_events(events, columns),
        user=user,
        item=item,
        behavior=behavior,
        time=time,
        target=target,
        split=split,
        split_column=split_column,
        behaviors=behaviors.split(",") if behaviors else None,
        name=name or directory.name,
        rng=seed,
    )
    write_npz(ds, directory, overwrite=force)
    record = ds.metadata["import"]
    if as_json:
        emit_json({"out": str(directory), "users": ds.num_users, "items": ds.num_items, "counts": ds.counts, **record})
        return
    rows = [["users", ds.num_users], ["items", ds.num_items], *([key, value] for key, value in ds.counts.items())]
    table(f"{ds.name}: split {record['split']} by {record['by']}", ["part", "count"], [list(row) for row in rows])
    console.print(
        f"{record['events']:,} events read, {record['repeated_events_dropped']:,} repeated ones dropped, "
        f"{record['users_in_no_split']:,} users in no split; wrote {directory}",
        markup=False,
    )


@command.command(name="ls", cls=Command, epilog="\b\nExamples:\n  mbgraph data ls\n  mbgraph data ls --json\n")
@json_option
def list_all(as_json: bool) -> None:
    """List the datasets that can be named."""
    from mbgraph.data.catalog import data_folders, list_datasets

    found = list_datasets()
    if as_json:
        emit_json(found)
        return
    rows = [
        [
            entry["name"],
            entry.get("users"),
            entry.get("items"),
            ", ".join(f"{key} {value:,}" for key, value in (entry.get("counts") or {}).items())
            or "embedded, synthetic",
        ]
        for entry in found
    ]
    table("datasets", ["name", "users", "items", "pairs"], rows)
    console.print("looked in: " + ", ".join(str(folder) for folder in data_folders()), markup=False)
