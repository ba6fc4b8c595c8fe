"""Entry point of the command line."""

from __future__ import annotations

import os

import click

import mbgraph
from mbgraph.cli.lazy import LazyGroup

__all__ = ["cli", "main"]


@click.group(
    cls=LazyGroup,
    package="mbgraph.cli",
    private=("main", "common", "lazy", "progress"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(mbgraph.__version__, prog_name="mbgraph")
def cli(debug: bool) -> None:
    """Multi-behavior recommendation on graphs.

    Without a dataset, commands use the embedded synthetic data `demo`. Other datasets are looked up in $MBGRAPH_DATA,
    then in ~/.cache/mbgraph, then as a path.

    \b
    Examples:
      mbgraph fit                                   train RMBRec on the demo data
      mbgraph fit taobao15k --variant official      a real dataset, the published mathematics
      mbgraph recommend runs/demo-rmbrec --all -k 5
      mbgraph perturb --add 0.3 -o noisy
    """  # noqa: D301 (click reads the backspace)


def main() -> None:
    """Run the command line."""
    # OpenMP threads that spin while they wait take the cores from the next parallel region (torch and numba each bring
    # a pool); waiting asleep costs nothing measurable alone and is several times faster on a shared machine. It has to
    # be said before the first OpenMP library loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cli(prog_name="mbgraph")
