"""`mbgraph data convert`: a dataset in another format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, table
from mbgraph.cli.data.filtering import filter_notes, filter_of, filter_options
from mbgraph.data.formats import FORMATS, WRITERS
from mbgraph.errors import UsageError

_READ = [name for name in FORMATS if name != "events"]  # event logs need columns and a split: mbgraph data import


@click.command(
    name="convert",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data convert Taobao taobao
  mbgraph data convert demo --to recbole -o demo-recbole
  mbgraph data convert taobao.inter --to pairs --target buy --force -o taobao-pairs
  mbgraph data convert Tmall --min-user 5 --min-item 5 --core -o tmall-core
  mbgraph data convert DIR --behavior click=click_train --behavior buy=target_train --target buy \\
      --valid target_valid --test target_test --base 0 -o shop
""",
)
@click.argument("source", metavar="IN")
@click.argument("place", metavar="[OUT]", required=False, type=PATH)
@click.option("-o", "--out", "directory", type=PATH, help="Folder to write, instead of OUT.")
@click.option("--to", "to", type=click.Choice(WRITERS), default="npz", show_default=True, help="Format to write.")
@click.option("--format", "format", type=click.Choice(_READ), help="Format of IN.  [default: found by content]")
@click.option(
    "--behavior",
    "behaviors",
    multiple=True,
    metavar="NAME=FILE",
    help="A file of IN that holds a behavior's train pairs: pairs, lists of items or a matrix. May be repeated.",
)
@click.option("--valid", metavar="FILE", help="With --behavior: the file of IN with held-out pairs for validation.")
@click.option("--test", metavar="FILE", help="With --behavior: the file of IN with held-out pairs for the test.")
@click.option("--base", type=click.IntRange(0, 1), help="What ids of pairs and lists count from.  [default: as found]")
@click.option("--target", help="The behavior to predict.  [default: the one called buy, purchase or the like]")
@filter_options
@click.option("--name", help="Name of the dataset.  [default: as in IN]")
@click.option("--force", is_flag=True, help="Replace a folder that mbgraph wrote in the same format.")
@json_option
def command(
    source: str,
    place: Path | None,
    directory: Path | None,
    to: str,
    format: str | None,
    behaviors: Sequence[str],
    valid: str | None,
    test: str | None,
    base: int | None,
    target: str | None,
    name: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Read the dataset IN, a name or a path in any known format, and write it to the folder OUT.

    Nothing is lost: npz, pairs and recbole keep ids, order, times, splits and metadata, and can be read back. A folder
    of no known format is read by naming its files.
    """
    from mbgraph.data import formats
    from mbgraph.data.catalog import check_name, find_dataset, load_dataset
    from mbgraph.data.filters import filter_dataset

    out = _out(place, directory)
    check_name(out)
    formats.check_place(out, to, overwrite=force)
    rule = filter_of(options)
    files = _files(behaviors, valid, test, base)
    if files.keys() - {"base"}:
        if format not in (None, "by-part"):
            raise UsageError(f"format {format} names its own files", "leave --format out, or --behavior and the others")
        format = "by-part"
    if source == "demo" and not files:
        path, ds = None, load_dataset(source)
    else:
        path = Path(source).expanduser() if format is not None else find_dataset(source)
        if path.resolve() == out.resolve():
            raise UsageError(f"{out} is the dataset itself", "choose another folder")
        console.print(f"reading {path}")
        ds = formats.read(path, format, target=target, **files)
    before = ds
    ds = filter_dataset(ds, rule)
    if name is not None:
        ds = ds.replace(name=name)
    formats.write(ds, out, to, overwrite=force)
    source_facts = ds.metadata.get("format", {}) if path is not None else {}
    filters = ds.metadata["filters"][-1:] if ds is not before and rule.is_active else []
    if as_json:
        emit_json(
            {
                "out": str(out),
                "format": to,
                "dataset": ds.name,
                "users": ds.num_users,
                "items": ds.num_items,
                "behaviors": list(ds.behaviors),
                "target": ds.target,
                "counts": ds.counts,
                "content_hash": ds.content_hash(),
                "source": source_facts,
                **({"filters": filters} if filters else {}),
            }
        )
        return
    counts = [[f"{part} (target, train)" if part == ds.target else part, n] for part, n in ds.counts.items()]
    table(ds.name, ["", "count"], [["users", ds.num_users], ["items", ds.num_items], *counts])
    for line in [*_notes(source_facts), *filter_notes(filters)]:
        console.print(line)
    console.print(f"wrote {out} ({to})")


def _out(place: Path | None, directory: Path | None) -> Path:
    if place is not None and directory is not None and place != directory:
        raise UsageError(f"two folders to write are named, {place} and {directory}", "name one")
    out = place if place is not None else directory
    if out is None:
        raise UsageError("no folder to write is named", "mbgraph data convert IN OUT, or -o OUT")
    return out


def _files(behaviors: Sequence[str], valid: str | None, test: str | None, base: int | None) -> dict[str, Any]:
    """Return the options of reading that name files, as far as they were given."""
    named: dict[str, str] = {}
    for pair in behaviors:
        name, equals, file = pair.partition("=")
        if not (name.strip() and equals and file):
            raise UsageError(f"cannot read --behavior {pair!r}", "write NAME=FILE, such as click=click_train")
        if name in named:
            raise UsageError(f"--behavior names {name!r} twice", "name one file for each behavior")
        named[name] = file
    given = {"behaviors": named or None, "valid": valid, "test": test, "base": base}
    return {option: value for option, value in given.items() if value is not None}


def _notes(facts: dict[str, Any]) -> list[str]:
    """Say what the source holds that the dataset does not."""
    lines = [f"{count:,} duplicate {part} pairs left out" for part, count in facts.get("duplicates", {}).items()]
    lines += [f"left out {file}: {reason}" for file, reason in facts.get("left_out", {}).items()]
    if facts.get("name") == "by-part":
        lines.append(f"ids of the files count from {facts['first_id']}")
    return lines + [f"{part}: {note}" for part, note in facts.get("notes", {}).items()]
