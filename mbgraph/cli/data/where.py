"""`mbgraph data where`: the folders that are searched, and what a name stands for."""

from __future__ import annotations

import click

from mbgraph.cli.common import Command, console, emit_json, json_option, out


@click.command(
    name="where",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data where
  mbgraph data where demo --json
""",
)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Print the folder of a dataset, or without NAME the folders that are searched, in order.

    A name is looked up in each folder first and taken as a path last.
    """
    from mbgraph.data.catalog import data_folders, find_dataset

    if name is None:
        folders = [{"path": str(folder), "exists": folder.is_dir()} for folder in data_folders()]
        if as_json:
            emit_json({"folders": folders})
            return
        for folder in folders:
            out.print(str(folder["path"]), soft_wrap=True)
            if not folder["exists"]:
                console.print(f"{folder['path']} does not exist yet")
        return
    path = None if name == "demo" else find_dataset(name)
    if as_json:
        emit_json({"name": name, "path": path})
    elif path is None:
        console.print("demo is generated and has no folder")
    else:
        out.print(str(path), soft_wrap=True)
