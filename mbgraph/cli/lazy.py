"""Commands are imported when they are called, so `mbgraph perturb` never waits for torch."""

from __future__ import annotations

import importlib
import keyword
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from mbgraph.errors import nearest

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group whose command NAME is the object ``command`` of the module NAME in one package.

    Where NAME is a word of Python's own, the module has an underscore after it (``import_``).

    Parameters
    ----------
    package : str
        Dotted name of the package.
    private : iterable of str
        Modules of the package that are no commands.
    """

    def __init__(self, *args: Any, package: str, private: Iterable[str] = (), **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.package, self.private = package, frozenset(private)

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
        folder = importlib.import_module(self.package).__path__
        names = {module.name for module in pkgutil.iter_modules(folder)} - self.private
        return sorted(name.removesuffix("_") for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        return importlib.import_module(f"{self.package}.{module}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, but an unknown command names the nearest one, and nothing is imported for a lost place."""
        _check_working_directory()
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            close = nearest(args[0], self.list_commands(ctx))
            ctx.fail(f"no such command {args[0]!r}" + (f"; did you mean {close!r}?" if close else ""))
        return super().resolve_command(ctx, args)


def _check_working_directory() -> None:
    """Refuse to work where paths mean nothing; libraries that torch loads end the process there."""
    try:
        Path.cwd()
    except OSError as error:
        raise click.ClickException("the working directory is gone; change to one that exists") from error


def _click_main(group: click.Group, *args: Any, **extra: Any) -> Any:
    main: Any = click.Group.main  # its overloads cannot be told apart behind *args
    return main(group, *args, standalone_mode=False, **extra)
