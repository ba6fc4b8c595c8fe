"""`mbgraph recommend`: the best items of some users, or of all, from a run."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option, table
from mbgraph.cli.consoles import TextColumn
from mbgraph.errors import DataError, UsageError
from mbgraph.files import atomic_write
from mbgraph.recommend import EXCLUDE, FALLBACKS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["command"]

_SHOWN = 3  # pieces of evidence in a table
FORMATS = ("table", "csv", "json", "parquet")

EPILOG = """\b
Examples:
  mbgraph recommend runs/demo-rmbrec-mbgraph-s2026 --user u0001 u0002 -k 5
  mbgraph recommend runs/demo-rmbrec-mbgraph-s2026 --users-file ids.txt --exclude all --json
  mbgraph recommend runs/demo-rmbrec-mbgraph-s2026 --all -o recommendations.parquet
  mbgraph recommend runs/demo-twostage-s2026 --user u0001 --explain
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("run", type=PATH)
@click.argument("more", nargs=-1, metavar="[USER]...")
@click.option("--user", "users", multiple=True, metavar="ID", help="A user's original id; may be repeated.")
@click.option("--users-file", metavar="FILE", help="A file with one user id per line; - reads standard input.")
@click.option("--all", "everyone", is_flag=True, help="All users of the dataset.")
@click.option("-k", "--k", type=click.IntRange(1, 10_000_000), default=10, show_default=True, help="Items per user.")
@click.option(
    "--exclude",
    default="target",
    show_default=True,
    metavar="|".join(EXCLUDE),
    help="Items to leave out: the user's train items of the target behavior, of all behaviors, or none. "
    "Held-out items stay candidates.",
)
@click.option(
    "--fallback",
    metavar="|".join(FALLBACKS),
    help="What users get whom the data does not know: without it, an error.",
)
@click.option("--explain", is_flag=True, help="Say what speaks for each item, if the model can (twostage).")
@click.option("--format", "format_", metavar="|".join(FORMATS), help="Default: by the suffix of -o, else table.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    help="Write here (.csv, .json, .parquet).",
)
@json_option
def command(
    run: Path,
    more: tuple[str, ...],
    users: tuple[str, ...],
    users_file: str | None,
    everyone: bool,
    k: int,
    exclude: str,
    fallback: str | None,
    explain: bool,
    format_: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Recommend items from the run directory RUN, with original ids in and out.

    JSON is a list of {"user", "items", "scores"}; CSV and Parquet have the columns user, rank, item, score.
    With --explain there is also "evidence", what each piece of it adds to the score: a mapping per item, in CSV and
    Parquet as JSON text.
    """
    if as_json and not output:
        if format_ not in (None, "json"):
            raise UsageError(f"--json and --format {format_} exclude each other", "leave one of them out")
        format_ = "json"
    format_ = _format(format_, output)
    asked = _asked((*users, *more), users_file, everyone)

    from mbgraph.recommend import recommend
    from mbgraph.run import Run

    loaded = Run.load(run)
    ds = loaded.dataset()
    made = " (synthetic)" if ds.metadata.get("synthetic") else ""
    console.print(f"data: {ds.name}{made}, run: {run}")
    served = 0
    with _progress(ds.num_users if asked is None else len(asked)) as advance:

        def count(users: int) -> None:
            nonlocal served
            served += users
            advance(users)

        frame = recommend(loaded.model(ds), ds, asked, k, exclude, fallback, progress=count, explain=explain)
    if empty := served - int((frame["rank"] == 1).sum()):
        console.print(f"users without a candidate left, and so without a list: {empty:,}")
    if output:
        with atomic_write(output, "wb" if format_ == "parquet" else "w") as file:
            _write(frame, format_, file)
        console.print(f"{len(frame):,} recommendations for {served:,} users in {output}")
        if as_json:
            emit_json(_lists(frame))
    elif format_ == "table":
        _print(frame, f"{ds.name}: top {k}, exclude {exclude}")
    else:
        _write(frame, format_, sys.stdout)


def _format(named: str | None, output: Path | None) -> str:
    """Return the output format from ``--format``, else from the suffix of the file."""
    choice = named or (output.suffix[1:].lower() if output else "table")
    if choice not in FORMATS:
        what = f"unknown format {named!r}" if named else f"{str(output)!r} names no format"
        raise UsageError(what, f"choose --format from {', '.join(FORMATS)}, or end the file in .csv, .json or .parquet")
    if output and choice == "table":
        raise UsageError("a table goes to the screen only", "choose --format csv, json or parquet for a file")
    if not output and choice == "parquet":
        raise UsageError("Parquet goes to a file only", "name it with -o FILE")
    return choice


def _asked(users: tuple[str, ...], users_file: str | None, everyone: bool) -> list[str] | None:
    """Return the ids asked for, None for all users."""
    if everyone and (users or users_file):
        raise UsageError("--all and named users exclude each other", "leave one of them out")
    if everyone:
        return None
    asked = [*users, *(_read_users(users_file) if users_file else [])]
    if not asked:
        raise UsageError("no users to recommend to", "name them with --user ID or --users-file FILE, or say --all")
    return asked


def _read_users(name: str) -> list[str]:
    try:
        with click.open_file(name, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}", "check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text", "give one user id per line") from error
    users = [line for line in lines if line.strip()]
    if not users:
        raise DataError(f"{name} holds no user ids", "give one user id per line")
    return users


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; yield the function that moves it on."""
    bar = Progress(
        TextColumn("recommending"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda users: bar.advance(task, users)


def _lists(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one object per user, in the order of the frame."""
    starts = np.flatnonzero(frame["rank"].to_numpy() == 1)
    users, items, scores = (frame[name].tolist() for name in ("user", "item", "score"))
    ends = [*starts[1:].tolist(), len(frame)][: len(starts)]  # where nobody has a candidate there is no list
    lists = [
        {"user": users[start], "items": items[start:end], "scores": scores[start:end]}
        for start, end in zip(starts.tolist(), ends, strict=True)
    ]
    if "fallback" in frame:
        for one, flag in zip(lists, frame["fallback"].to_numpy()[starts].tolist(), strict=True):
            one["fallback"] = flag
    if "evidence" in frame:
        found = frame["evidence"].tolist()
        for one, start, end in zip(lists, starts.tolist(), ends, strict=True):
            one["evidence"] = found[start:end]
    return lists


def _write(frame: pd.DataFrame, format_: str, file: IO[Any]) -> None:
    if format_ in ("csv", "parquet") and "evidence" in frame:
        frame = frame.assign(evidence=[json.dumps(each) for each in frame["evidence"]])
    if format_ == "parquet":
        frame.to_parquet(file, index=False)
    elif format_ == "csv":
        frame.to_csv(file, index=False, lineterminator="\n", float_format="%.9g")  # nine digits tell float32 apart
    else:
        file.write(json.dumps(_lists(frame)) + "\n")


def _print(frame: pd.DataFrame, title: str) -> None:
    flags = frame["fallback"] if "fallback" in frame else [False] * len(frame)
    rows = [
        [
            str(user) if rank == 1 else "",
            str(rank),
            str(item),
            f"{score:.4f}",
            "popular" if flag else "",
        ]
        for user, rank, item, score, flag in zip(
            *(frame[name] for name in ("user", "rank", "item", "score")), flags, strict=True
        )
    ]
    columns = ["user", "rank", "item", "score", "fallback"]
    if "fallback" not in frame:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if "evidence" in frame:
        columns = [*columns, "what speaks for it most"]
        rows = [[*row, _most(found)] for row, found in zip(rows, frame["evidence"], strict=True)]
    table(title, columns, rows)


def _most(evidence: dict[str, float]) -> str:
    """Return the largest parts of a score in words."""
    found = [f"{name} {value:+.2f}" for name, value in list(evidence.items())[:_SHOWN] if value > 0]
    return "; ".join(found) or "-"
