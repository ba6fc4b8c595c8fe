"""`mbgraph bench`: results side by side, and speed; one file per subcommand."""

import click

from mbgraph.cli.lazy import LazyGroup


@click.group(name="bench", cls=LazyGroup, package=__name__)
def command() -> None:
    """Put runs side by side, fill the documentation's tables, measure speed."""
