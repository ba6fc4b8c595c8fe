"""Entry point of the command line."""

from __future__ import annotations

import os

import click

import mbgraph
from mbgraph.cli.lazy import LazyGroup
from mbgraph.cli.streams import prepare_streams, whole_output

__all__ = ["cli", "main"]


@click.group(
    cls=LazyGroup,
    package="mbgraph.cli",
    private=("main", "common", "consoles", "lazy", "streams", "progress", "sections"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--limit",
    "raised",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Let files hold more than usual: users, items, behaviors, unpacked_mib, .. (docs/security.md).",
)
@click.version_option(mbgraph.__version__, prog_name="mbgraph")
@click.pass_context
def cli(context: click.Context, debug: bool, raised: tuple[str, ...]) -> None:
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
    if raised:
        from mbgraph import limits
        from mbgraph.errors import UsageError

        try:
            context.with_resource(limits.raised(**limits.parse(raised).given()))
        except UsageError as error:
            raise click.UsageError(str(error)) from error


def main() -> None:
    """Run the command line."""
    # How long torch's OpenMP threads spin before they sleep. As long as libgomp likes, they take the cores from the
    # compiled kernels' threads and from every other process; not at all, and each of a step's many short operations
    # waits for a thread to wake. It has to be said before the first OpenMP library loads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    # Tables of large graphs in large pages: rows are read in no order, and small pages' addresses do not fit the
    # processor's cache of them. torch reads this when it allocates for the first time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    prepare_streams()
    with whole_output():
        cli(prog_name="mbgraph")
