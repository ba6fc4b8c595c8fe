"""What every command shares: consoles, JSON, options, and the one-line error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.table import Table

from mbgraph.cli.consoles import console, one_line, out, shortened
from mbgraph.errors import MbgraphError

if TYPE_CHECKING:
    from mbgraph.data.dataset import MultiBehaviorDataset

__all__ = ["Command", "console", "dataset_argument", "emit_json", "json_option", "load", "make_table", "out", "table"]

_PROSE = 40  # a longer cell is text

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A click command that turns an `MbgraphError` into one line on stderr and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with ``mbgraph --debug`` errors keep their traceback."""
        try:
            return super().invoke(ctx)
        except MbgraphError as error:
            if ctx.find_root().params.get("debug"):
                raise
            console.print(f"error: {shortened(one_line(str(error)))}")
            ctx.exit(error.exit_code)


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
