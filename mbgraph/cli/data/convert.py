"""`mbgraph data convert`: a dataset in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, table
from mbgraph.data.formats import FORMATS, WRITERS
from mbgraph.errors import UsageError

_READ = [name for name in FORMATS if name != "events"]  # event logs need columns and a split: mbgraph data import


@click.command(
    name="convert",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data convert Taobao --to npz taobao
  mbgraph data convert demo --to recbole demo-recbole
  mbgraph data convert taobao.inter --to pairs --target buy --force taobao-pairs
""",
)
@click.argument("source", metavar="IN")
@click.argument("directory", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "to", type=click.Choice(WRITERS), required=True, help="Format to write.")
@click.option("--format", "format", type=click.Choice(_READ), help="Format of IN.  [default: found by content]")
@click.option("--target", help="The behavior to predict.  [default: the one called buy, purchase or the like]")
@click.option("--name", help="Name of the dataset.  [default: as in IN]")
@click.option("--force", is_flag=True, help="Replace a folder that mbgraph wrote in the same format.")
@json_option
def command(
    source: str,
    directory: Path,
    to: str,
    format: str | None,
    target: str | None,
    name: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Read the dataset IN, a name or a path in any known format, and write it to the folder OUT.

    Nothing is lost: npz, pairs and recbole keep ids, order, times, splits and metadata, and can be read back.
    """
    from mbgraph.data import formats
    from mbgraph.data.catalog import find_dataset, load_dataset

    formats.check_place(directory, to, overwrite=force)
    if source == "demo":
        path, ds = None, load_dataset(source)
    else:
        path = Path(source).expanduser() if format is not None else find_dataset(source)
        if path.resolve() == directory.resolve():
            raise UsageError(f"{directory} is the dataset itself", "choose another folder")
        console.print(f"reading {path}", markup=False)
        ds = formats.read(path, format, target=target)
    if name is not None:
        ds = ds.replace(name=name)
    formats.write(ds, directory, to, overwrite=force)
    source_facts = ds.metadata.get("format", {}) if path is not None else {}
    if as_json:
        emit_json(
            {
                "out": str(directory),
                "format": to,
                "dataset": ds.name,
                "users": ds.num_users,
                "items": ds.num_items,
                "behaviors": list(ds.behaviors),
                "target": ds.target,
                "counts": ds.counts,
                "content_hash": ds.content_hash(),
                "source": source_facts,
            }
        )
        return
    counts = [[f"{part} (target, train)" if part == ds.target else part, n] for part, n in ds.counts.items()]
    table(ds.name, ["", "count"], [["users", ds.num_users], ["items", ds.num_items], *counts])
    for line in _notes(source_facts):
        console.print(line, markup=False)
    console.print(f"wrote {directory} ({to})", markup=False)


def _notes(facts: dict[str, Any]) -> list[str]:
    """Say what the source holds that the dataset does not."""
    lines = [f"{count:,} duplicate {part} pairs left out" for part, count in facts.get("duplicates", {}).items()]
    lines += [f"left out {file}: {reason}" for file, reason in facts.get("left_out", {}).items()]
    return lines + [f"{part}: {note}" for part, note in facts.get("notes", {}).items()]
