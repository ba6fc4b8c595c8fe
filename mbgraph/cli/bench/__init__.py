"""`mbgraph bench`: studies of the paper and of one's own, results side by side, and speed.

A subcommand is a file here, or a study: ``table3`` is ``benchmarks/table3.toml``, and a path to any other TOML file
works the same way.
"""

from __future__ import annotations

import os

import click

from mbgraph.cli.lazy import LazyGroup

EVERY = "all"


class BenchGroup(LazyGroup):
    """A group whose commands are also the studies that are shipped, and any study file by its path."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return subcommands and studies."""
        from mbgraph.files import shipped

        studies = {path.stem for path in shipped("benchmarks").glob("*.toml")}
        return sorted({*super().list_commands(ctx), *studies, EVERY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand, or the command of a study."""
        if cmd_name in LazyGroup.list_commands(self, ctx):
            return super().get_command(ctx, cmd_name)
        if not is_file(cmd_name) and cmd_name not in self.list_commands(ctx):
            return None
        from mbgraph.cli.bench.study import study_command

        return study_command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like the group's, but a path to a TOML file is a command too."""
        if args and is_file(args[0]):
            return args[0], self.get_command(ctx, args[0]), args[1:]
        return super().resolve_command(ctx, args)


def is_file(name: str) -> bool:
    """Return whether a name means a study file rather than a command."""
    return name.endswith(".toml") or os.sep in name


@click.group(name="bench", cls=BenchGroup, package=__name__, private=("study", "watching"))
def command() -> None:
    """Run a study: every table and figure of the paper by one command, or a TOML file of your own.

    \b
    Examples:
      mbgraph bench table3 --datasets taobao15k --budget 30m
      mbgraph bench my_study.toml --jobs 2 --out results
      mbgraph bench all --quick
    """  # noqa: D301 (click reads the backspace)
