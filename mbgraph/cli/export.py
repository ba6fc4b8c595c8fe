"""`mbgraph export`: the embeddings of a run, with original ids, for use without this library."""

from __future__ import annotations

from pathlib import Path

import click

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option
from mbgraph.errors import UsageError
from mbgraph.export import FORMATS

__all__ = ["command"]

EPILOG = """\b
Examples:
  mbgraph export runs/demo-rmbrec-mbgraph-s2026 -o embeddings.npz
  mbgraph export runs/demo-rmbrec-mbgraph-s2026 -o embeddings.parquet --json
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("run", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="The file to write, required.")
@click.option("--format", "format_", metavar="|".join(FORMATS), help="Default: by the suffix of -o.")
@json_option
def command(run: Path, output: Path | None, format_: str | None, as_json: bool) -> None:
    """Export fused and per-behavior embeddings of the run directory RUN, with original ids.

    The file also holds the items each user has seen, so that `mbgraph.export.ExportedModel` recommends from
    an npz file with numpy alone. `pydoc mbgraph.export` describes both layouts.
    """
    if output is None:
        raise UsageError("no file to write", "name it with -o FILE.npz or -o FILE.parquet")

    from mbgraph.export import export_embeddings, export_format
    from mbgraph.run import Run

    format_ = export_format(output, format_)  # before the run loads, which takes a while
    loaded = Run.load(run)
    ds = loaded.dataset()
    exported = export_embeddings(loaded.model(ds), ds, output, format_)
    report = {
        "out": output,
        "format": format_,
        "dataset": exported.meta["dataset"],
        "model": exported.meta["model"],
        "users": len(exported.users),
        "items": len(exported.items),
        "embedding_dim": exported.user.shape[1],
        "behaviors": list(exported.behaviors),
        "dot_scores": exported.meta["dot_scores"],
    }
    if as_json:
        emit_json(report)
        return
    sizes = f"{report['users']:,} users and {report['items']:,} items x {report['embedding_dim']}"
    behaviors = ", ".join(("fused", *exported.behaviors))
    text = f"{report['model']} on {report['dataset']}: {sizes} ({behaviors}) in {output}"
    console.print(text)
