"""`mbgraph data import`: from an event log to a dataset."""

from __future__ import annotations

import time as clock
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mbgraph.cli.common import Command, console, emit_json, json_option, table

_EVERY = 10.0  # seconds between lines in a pipe


class ReadingProgress:
    """Shows how far a log is read: a bar with rate and remaining time on a terminal, plain lines in a pipe.

    Parameters
    ----------
    console : rich.console.Console
    every : float
        Seconds between the lines of a pipe; a log that is read sooner gets none.
    """

    def __init__(self, console: Console, every: float = _EVERY) -> None:
        self.console, self.every = console, every
        self._bar: Progress | None = None
        self._ended = False

    def __enter__(self) -> ReadingProgress:
        self._start = self._said = clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def update(self, events: int, done: int, total: int) -> None:
        """Say that ``events`` events were read, which is ``done`` of ``total`` bytes or rows."""
        now = clock.monotonic()
        rate = events / max(now - self._start, 1e-9)
        note = f"{events:,} events, {rate:,.0f} a second"
        if self.console.is_terminal:
            self._bar = self._bar or self._open()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        elif now - self._said >= self.every:
            self._said = now
            self.console.print(f"reading: {100 * done / max(total, 1):.0f}%, {note}", markup=False)
        if done >= total:
            self._close()  # sorting what was read has no measure of its own
            if now - self._start >= self.every and not self._ended:
                self._ended = True
                self.console.print(f"reading took {now - self._start:.0f} s; making the dataset", markup=False)

    def _open(self) -> Progress:
        bar = Progress(
            TextColumn("reading"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        bar.add_task("read", total=None, note="")
        bar.start()
        return bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@click.command(
    name="import",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data import events.csv --target purchase -o shop
  mbgraph data import log.parquet --user user_id --item product_id --behavior event_type --time event_time \\
      --target purchase --split ratio:0.7,0.2,0.1 -o shop
  mbgraph data import events.csv --time time --target purchase --behaviors view,cart,purchase --cutoff target -o shop
""",
)
@click.argument("events", type=click.Path(path_type=Path))
@click.option("--user", default="user", show_default=True, help="Column of user ids.")
@click.option("--item", default="item", show_default=True, help="Column of item ids.")
@click.option("--behavior", default="behavior", show_default=True, help="Column of behaviors.")
@click.option("--time", help="Column of times (numbers or ISO dates); without it the split is random.")
@click.option("--target", required=True, help="The behavior to predict.")
@click.option("--behaviors", help="Behaviors to keep, comma separated, the target among them.  [default: all]")
@click.option(
    "--split",
    default="auto",
    show_default=True,
    help="auto or loo (a user's last pair is test, the one before it valid), random, ratio:A,B,C, given, none.",
)
@click.option("--split-column", help="For --split given: the column that says train, valid or test.")
@click.option(
    "--cutoff",
    type=click.Choice(["none", "target"]),
    default="none",
    show_default=True,
    help="target leaves out auxiliary events later than their user's first held-out pair.",
)
@click.option("--name", help="Name of the dataset.  [default: the folder's]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of a random split.")
@click.option("--force", is_flag=True, help="Replace an existing dataset folder.")
@click.option("-o", "--out", "directory", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@json_option
def command(
    events: Path,
    user: str,
    item: str,
    behavior: str,
    time: str | None,
    target: str,
    behaviors: str | None,
    split: str,
    split_column: str | None,
    cutoff: str,
    name: str | None,
    seed: int,
    force: bool,
    directory: Path,
    as_json: bool,
) -> None:
    """Turn an event log (CSV, gzipped or not, or Parquet) into a dataset folder.

    The log is read in pieces: 50 million events need less than 4 GB of memory.

    Of each (user, item, behavior) the earliest event is kept. Every command takes the folder by path; below
    $MBGRAPH_DATA its name is enough.
    """
    from mbgraph.data.events import import_events
    from mbgraph.data.formats.npz import check_place, write_npz

    check_place(directory, force)
    console.print(f"reading {events}", markup=False)
    with ReadingProgress(console) as reading:
        ds = import_events(
            events,
            user=user,
            item=item,
            behavior=behavior,
            time=time,
            target=target,
            split=split,
            split_column=split_column,
            behaviors=[label.strip() for label in behaviors.split(",")] if behaviors else None,
            cutoff=cutoff,
            name=name or directory.resolve().name,
            rng=seed,
            progress=reading.update,
        )
    write_npz(ds, directory, overwrite=force)
    facts, act = ds.metadata["import"], ds.metadata["splits"][0]
    split_facts = {"split": act["protocol"], "by": act["by"], "seed": act.get("seed"), "cutoff": act["cutoff"]}
    if as_json:
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
    for line in _notes(facts, act):
        console.print(line, markup=False)
    console.print(f"wrote {directory}", markup=False)


def _notes(facts: dict[str, Any], act: dict[str, Any]) -> list[str]:
    """Say what became of the events that are not in the table."""
    told = {
        "repeated_events": "repeated events left out, the earliest of each is kept",
        "events_of_other_behaviors": "events of other behaviors left out",
        "later_auxiliary": "auxiliary pairs left out, later than a held-out pair of their user",
        "held_out_auxiliary": "auxiliary pairs left out, marked valid or test",
        "users_in_no_split": "users kept who are in no split, for they have no pair of the target",
    }
    lines = [f"{facts['events']:,} events read"]
    lines += [f"{facts[key]:,} {text}" for key, text in told.items() if facts.get(key)]
    if act["by"] == "random":
        lines.append("held-out pairs are random" + (f", seed {act['seed']}" if "seed" in act else ""))
    return lines
