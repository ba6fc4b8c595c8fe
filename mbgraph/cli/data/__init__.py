"""`mbgraph data`: datasets from event logs, files and the network; one file per subcommand."""

import click

from mbgraph.cli.lazy import LazyGroup


@click.group(name="data", cls=LazyGroup, package=__name__, private=("filtering", "reading"))
def command() -> None:
    """Find, import, convert and check datasets."""
