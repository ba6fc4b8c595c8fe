"""`mbgraph data import`: from an event log to a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mbgraph.cli.common import PATH, SEED, Command, console, emit_json, json_option, table
from mbgraph.cli.data.filtering import filter_notes, filter_of, filter_options
from mbgraph.cli.data.reading import ReadingProgress
from mbgraph.errors import UsageError

_AS_THEY_ARE = ("user", "item", "behavior", "time", "target", "encoding", "split", "split_column", "ties", "cutoff")


@click.command(
    name="import",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data import events.csv --target purchase -o shop
  mbgraph data import 2019-Oct.csv.gz 2019-Nov.csv.gz --user user_id --item product_id --behavior event_type \\
      --time event_time --target purchase --split ratio:0.7,0.2,0.1 -o shop
  mbgraph data import UserBehavior.csv --columns user,item,_,behavior,time --target buy -o taobao
  mbgraph data import log/ --one-hot view,cart,buy --target buy --min-user 5 --min-item 5 --core -o shop
  mbgraph data import events.jsonl --rename 1=view --rename 4=buy --target buy --time time --cutoff target -o shop
""",
)
@click.argument("events", metavar="EVENTS...", nargs=-1, required=True, type=PATH)
@click.option("--user", help="Column of user ids.  [default: user, in a file of RecBole user_id]")
@click.option("--item", help="Column of item ids.  [default: item, in a file of RecBole item_id]")
@click.option("--behavior", default="behavior", show_default=True, help="Column of behaviors.")
@click.option("--time", help="Column of times (numbers or ISO dates); without it the split is random.")
@click.option("--columns", help="Names of all columns, in order, of a CSV without a header; _ leaves one out.")
@click.option("--encoding", help="Encoding of the text, such as gbk.  [default: utf-8, or by byte order mark]")
@click.option("--one-hot", help="Columns of 0 and 1, one per behavior, comma separated, in place of --behavior.")
@click.option("--target", required=True, help="The behavior to predict.")
@click.option("--behaviors", help="Behaviors to keep, comma separated, the target among them.  [default: all]")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="Call a behavior otherwise; may be repeated.")
@click.option(
    "--split",
    default="auto",
    show_default=True,
    help="auto or loo (a user's last pair is test, the one before it valid), random, ratio:A,B,C, given, none.",
)
@click.option("--split-column", help="For --split given: the column that says train, valid or test.")
@click.option(
    "--ties",
    type=click.Choice(["rows", "random"]),
    default="rows",
    show_default=True,
    help="Of a user's target pairs of the same moment, the later row is the later one, or a random one.",
)
@click.option(
    "--cutoff",
    type=click.Choice(["none", "target"]),
    default="none",
    show_default=True,
    help="target leaves out auxiliary events later than their user's first held-out pair.",
)
@filter_options
@click.option("--name", help="Name of the dataset.  [default: the folder's]")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of what is random.")
@click.option("--force", is_flag=True, help="Replace an existing dataset folder.")
@click.option("-o", "--out", "directory", type=PATH, required=True, help="Folder to write.")
@json_option
def command(events: tuple[Path, ...], directory: Path, name: str | None, **options: Any) -> None:
    """Turn an event log into a dataset folder.

    EVENTS are files of one kind: CSV (in any encoding, with a header or --columns), JSON lines, both gzipped or not, or
    Parquet. A folder stands for the files in it. They are read in pieces: 50 million events need less than 4 GB of
    memory.

    Of each (user, item, behavior) the earliest event is kept. Every command takes the folder by path; below
    $MBGRAPH_DATA its name is enough.
    """
    from mbgraph.data.catalog import check_name
    from mbgraph.data.events import import_events
    from mbgraph.data.formats.folder import claimed_folder
    from mbgraph.data.formats.npz import check_place, write_npz

    check_name(directory)
    check_place(directory, options["force"])
    rule = filter_of(options)
    rename = _renames(options["rename"])
    given: dict[str, Any] = {key: options[key] for key in _AS_THEY_ARE}
    given.update({key: _listed(options[key]) for key in ("columns", "one_hot", "behaviors")})
    console.print(f"reading {', '.join(map(str, events))}")
    with claimed_folder(directory), ReadingProgress(console) as reading:
        ds = import_events(
            events,
            rename=rename,
            filter=rule,
            name=name or directory.resolve().name,
            rng=options["seed"],
            progress=reading.update,
            **given,
        )
        write_npz(ds, directory, overwrite=options["force"])
    facts, act, filters = ds.metadata["import"], ds.metadata["splits"][0], ds.metadata.get("filters", [])
    split_facts = {"split": act["protocol"], "by": act["by"], "seed": act.get("seed"), "cutoff": act["cutoff"]}
    if "ties" in act:
        split_facts.update(ties=act["ties"], users_with_ties=act["users_with_ties"])
    if options["as_json"]:
        emit_json(
            {
                "out": str(directory),
                "dataset": ds.name,
                "users": ds.num_users,
                "items": ds.num_items,
                "behaviors": list(ds.behaviors),
                "target": ds.target,
                "counts": ds.counts,
                **split_facts,
                **facts,
                **({"filters": filters} if filters else {}),
            }
        )
        return
    counts = [[f"{part} (target, train)" if part == ds.target else part, n] for part, n in ds.counts.items()]
    by = f" by {act['by']}" if act["by"] in ("time", "random") and act["protocol"] != act["by"] else ""
    table(
        f"{ds.name}: split {act['protocol']}{by}",
        ["", "count"],
        [["users", ds.num_users], ["items", ds.num_items], *counts],
    )
    for line in _notes(facts, act, filters):
        console.print(line)
    console.print(f"wrote {directory}")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``OLD=NEW``; the last ``=`` divides, as new names hold none."""
    renames: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.rpartition("=")
        if not (old and equals and new.strip()):
            raise UsageError(f"cannot read --rename {pair!r}", "write OLD=NEW, such as 4=buy")
        if old in renames:
            raise UsageError(f"--rename names {old!r} twice", "rename it once")
        renames[old] = new.strip()
    return renames


def _notes(facts: dict[str, Any], act: dict[str, Any], filters: Sequence[dict[str, Any]]) -> list[str]:
    """Say what became of the events that are not in the table."""
    told = {
        "rows_without_behavior": "rows without any behavior left out",
        "repeated_events": "repeated events left out, the earliest of each is kept",
        "events_of_other_behaviors": "events of other behaviors left out",
        "later_auxiliary": "auxiliary pairs left out, later than a held-out pair of their user",
        "held_out_auxiliary": "auxiliary pairs left out, marked valid or test",
        "users_in_no_split": "users kept who are in no split, for they have no pair of the target",
    }
    lines = [f"{facts['events']:,} events read", *filter_notes(filters)]
    lines += [f"{facts[key]:,} {text}" for key, text in told.items() if facts.get(key)]
    if act["by"] == "random":
        lines.append("held-out pairs are random" + (f", seed {act['seed']}" if "seed" in act else ""))
    if act.get("users_with_ties"):
        rule = "the later row counts as later (--ties random draws)" if act["ties"] == "rows" else "drawn at random"
        lines.append(
            f"{act['users_with_ties']:,} users have target pairs of the same moment on both sides of the split: {rule}"
        )
    return lines
