"""`mbgraph bench render`: tables of pages from CSV files."""

from __future__ import annotations

from pathlib import Path

import click

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option


@click.command(
    name="render",
    cls=Command,
    epilog="""\b
Example:
  mbgraph bench render docs/reproduce.md
""",
)
@click.argument("pages", nargs=-1, required=True, type=PATH, metavar="PAGE...")
@click.option("--root", default=".", type=PATH, help="Where CSV paths start.  [default: here]")
@json_option
def command(pages: tuple[Path, ...], root: Path, as_json: bool) -> None:
    """Fill the tables of Markdown pages from their CSV files."""
    from mbgraph.bench.report import render_page
    from mbgraph.files import atomic_write

    for page in pages:
        text = render_page(page, root)
        with atomic_write(page, "w") as file:
            file.write(text)
        console.print(f"rendered {page}")
    if as_json:
        emit_json({"pages": list(pages)})
