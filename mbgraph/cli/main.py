"""Entry point. Commands are imported when they are called, so `mbgraph perturb` never waits for torch."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Any

import click

import mbgraph.cli
from mbgraph.errors import nearest

__all__ = ["cli", "main"]

_PRIVATE = {"main", "common", "progress"}


class LazyGroup(click.Group):
    """A group whose command NAME is the object ``command`` of ``mbgraph/cli/NAME.py``."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Like click's, but an unreadable command line is one line on stderr too."""
        if not extra.pop("standalone_mode", True):
            return _click_main(self, *args, **extra)
        try:
            code = _click_main(self, *args, **extra)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            see = f"; see {context.command_path} --help" if context is not None else ""
            click.echo(f"error: {' '.join(error.format_message().rstrip('.').split())}{see}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all command modules."""
        names = (module.name for module in pkgutil.iter_modules(mbgraph.cli.__path__))
        return sorted(name for name in names if name not in _PRIVATE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"mbgraph.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, but an unknown command names the nearest one."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            close = nearest(args[0], self.list_commands(ctx))
            hint = f"did you mean {close!r}?" if close else "see mbgraph --help"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


def _click_main(group: click.Group, *args: Any, **extra: Any) -> Any:
    main: Any = click.Group.main  # its overloads cannot be told apart behind *args
    return main(group, *args, standalone_mode=False, **extra)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
