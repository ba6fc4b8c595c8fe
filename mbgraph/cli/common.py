"""What every command shares: consoles, JSON, options, and the one-line error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click
from rich.table import Table

from mbgraph import processes
from mbgraph.cli.consoles import console, one_line, out, shortened, visible
from mbgraph.errors import MbgraphError, UsageError
from mbgraph.files import user_path

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset

__all__ = [
    "PATH",
    "SEED",
    "Command",
    "console",
    "dataset_argument",
    "emit_json",
    "json_option",
    "load",
    "make_table",
    "out",
    "say_no_pictures",
    "stop_early",
    "table",
]

_PROSE = 40  # a longer cell is text

F = TypeVar("F", bound=Callable[..., Any])


class PathType(click.Path):
    """A path, ``~`` expanded; what no path can be is refused when the command line is read."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        try:
            return user_path(value)
        except UsageError as error:
            self.fail(visible(str(error)), param, ctx)


PATH = PathType()
"""The type of every option and argument that is a path."""


SEED = click.IntRange(0, 2**63 - 1)
"""The type of every seed."""


class Command(click.Command):
    """A click command that turns an `MbgraphError` into one line on stderr and its exit code."""

    in_processes: ClassVar[bool] = False
    """Whether several processes may run the command together."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with ``mbgraph --debug`` errors keep their traceback."""
        try:
            if not self.in_processes and processes.asked_for()[1] > 1:
                raise UsageError(
                    f"{ctx.command_path} works in one process, and WORLD_SIZE={os.environ['WORLD_SIZE']} says that "
                    "several work together",
                    "leave torchrun out, or unset it",
                )
            return super().invoke(ctx)
        except (MbgraphError, OSError, MemoryError) as error:
            if ctx.find_root().params.get("debug"):
                raise
            if isinstance(error, BrokenPipeError):
                raise  # whoever read our output has had enough
            if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
                console.print(f"error: {shortened(one_line(_told(error)))}")
            ctx.exit(error.exit_code if isinstance(error, MbgraphError) else 1)


def _told(error: BaseException) -> str:
    """Say what the system refused: a disk, a file, memory."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; mbgraph fit --dry-run says what a model takes"
    if isinstance(error, OSError) and not isinstance(error, MbgraphError):
        return f"cannot use {error.filename or 'standard output'}: {error.strerror or error}"
    return str(error)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return str(value) if isinstance(value, Path) else value


def emit_json(value: Any) -> None:
    """Write one JSON value and a newline to stdout."""
    sys.stdout.write(json.dumps(_plain(value)) + "\n")


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(function)


def say_no_pictures() -> None:
    """Say on stderr that nothing is drawn, and what draws."""
    console.print('note: pictures are left out; install them with: pip install "mbgraph[plot]"')


def stop_early(budget: float | None) -> None:
    """Say on stderr that there is more to do; without a budget it was Ctrl-C, and the exit code says so."""
    console.print("stopped; the same command goes on where this one ended")
    if budget is None:
        click.get_current_context().exit(130)


def dataset_argument(function: F) -> F:
    """Add the optional DATASET argument; without it the embedded ``demo`` data is used."""
    return click.argument("dataset", default="demo", metavar="[DATASET]")(function)


def load(name: str) -> MultiBehaviorDataset:
    """Load a dataset and say on stderr which data the output stands on."""
    from mbgraph.data.catalog import load_dataset

    dataset = load_dataset(name)
    made = " (synthetic)" if dataset.metadata.get("synthetic") else ""
    console.print(f"data: {dataset.name}{made}: {dataset.num_users:,} users, {dataset.num_items:,} items")
    return dataset


def make_table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    """Return a table; text is left-aligned, figures right-aligned."""
    grid = Table(title=title, title_justify="left")
    texts = [[cell if isinstance(cell, str) else format_number(cell) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        words = all(isinstance(row[number], str) for row in rows) or any(len(row[number]) > _PROSE for row in texts)
        # text may wrap where the terminal is narrow, figures never lose a digit
        grid.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for row in texts:
        grid.add_row(*row)
    return grid


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table on stdout."""
    out.print_table(make_table(title, columns, rows))


def format_number(value: Any) -> str:
    """Return integers with separators, floats with four decimals, None as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
