"""Command-line options made from the fields of sections: name, value, default and help stand at the field alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.common import Command

if TYPE_CHECKING:
    from mbgraph.schema import Section

__all__ = ["SectionsCommand", "options_of"]


class SectionsCommand(Command):
    """A command that also has an option for each field of some sections.

    The sections are looked up when the command is used, so that listing commands imports none of them. What is given
    arrives as text; the section's own check says what is wrong with it.

    Parameters
    ----------
    sections : callable
        Returns pairs of a heading and the options below it, see `options_of`.
    """

    def __init__(self, *args: Any, sections: Callable[[], list[tuple[str, list[click.Option]]]], **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._sections = sections
        self._made: list[tuple[str, list[click.Option]]] | None = None

    @property
    def made(self) -> list[tuple[str, list[click.Option]]]:
        """Headings with their options."""
        if self._made is None:
            self._made = self._sections()
        return self._made

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and those of the fields."""
        return [*super().get_params(ctx), *(option for _, options in self.made for option in options)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then a list below each heading."""
        listed = {id(option) for _, options in self.made for option in options}
        own = [param for param in self.get_params(ctx) if isinstance(param, click.Option) and id(param) not in listed]
        for heading, params in [("Options", own), *self.made]:
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def options_of(section: type[Section], leave_out: tuple[str, ...] = (), *, defaults: bool = True) -> list[click.Option]:
    """Return an option for each field of a section.

    Parameters
    ----------
    section : type of Section
    leave_out : tuple of str
        Fields without one.
    defaults : bool
        Whether help shows the fields' defaults.
    """
    from mbgraph.schema import shown

    made = []
    for fact in section.facts():
        if fact.name in leave_out:
            continue
        names = [f"--{fact.name.replace('_', '-')}", *(["-k"] if fact.name == "k" else [])]
        text = fact.doc.replace("``", "").replace("`", "")
        if defaults and fact.default not in (None, ""):
            text += f"  [default: {shown(fact.default).strip('[]')}]"
        made.append(
            click.Option(
                names,
                type=str,
                multiple=fact.is_list,
                metavar=fact.placeholder,
                help=text,
                callback=_joined if fact.is_list else None,
            )
        )
    return made


def _joined(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> str | None:
    """Return the pieces of a list as one text: ``--k 5 --k 50`` is ``--k 5,50``."""
    return ",".join(value) if value else None
