"""`mbgraph data download`: the published files of a dataset, verified and turned into the npz layout."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mbgraph.cli.common import PATH, Command, console, emit_json, json_option
from mbgraph.cli.consoles import PlainConsole, TextColumn


@click.command(
    name="download",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data download taobao
  mbgraph data download beibei --from ~/Downloads/beibei
  mbgraph data download tmall --from https://mirror.example.org/tmall --to /data/sets
""",
)
@click.argument("name")
@click.option("--from", "source", metavar="URL|DIR", help="A mirror, or a local folder that holds the files.")
@click.option(
    "--to",
    "root",
    type=PATH,
    help="Folder of datasets; NAME is made in it.  [default: $MBGRAPH_DATA, else ~/.cache/mbgraph]",
)
@click.option("--force", is_flag=True, help="Replace an existing dataset of this name.")
@json_option
def command(name: str, source: str | None, root: Path | None, force: bool, as_json: bool) -> None:
    """Get a dataset: download its files, verify them by their hashes, read them, and check what came out.

    A broken transfer is continued by the next call. Proxies come from the environment (HTTPS_PROXY). Terms of use are
    the publishers': mbgraph data show NAME.
    """
    from mbgraph.data.cards import get_card
    from mbgraph.data.catalog import default_folder
    from mbgraph.data.download import download
    from mbgraph.data.formats.npz import FACTS, read_meta

    card = get_card(name)
    with TransferProgress(console) as progress:
        path = download(card, root or default_folder(), source=source, force=force, progress=progress)
    meta = read_meta(path)
    if as_json:
        emit_json({"name": card.name, "path": str(path.resolve()), **{key: meta[key] for key in FACTS}})
        return
    console.print(f"licence: {card.licence}")
    console.print(f"cite: {card.citation}")
    console.print(f"wrote {path}")


class TransferProgress:
    """Shows transfers: a bar per file with rate and remaining time on a terminal, a line per event in a pipe.

    Parameters
    ----------
    console : PlainConsole
    """

    def __init__(self, console: PlainConsole) -> None:
        self.console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TransferProgress:
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, name: str, done: int, total: int | None, note: str) -> None:
        """Take one step; see `mbgraph.data.transfer.Progress`."""
        if note:
            size = f" ({done / 1e6:,.1f} MB)" if note == "verified" else ""
            self.console.print(f"{name}: {note}{size}")
        if self._bars is None or note in ("reading", "writing"):
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        changes: dict[str, Any] = {"completed": done, "total": done if note == "verified" else total}
        self._bars.update(self._tasks[name], **changes)
