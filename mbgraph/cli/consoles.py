"""The two consoles, and the one place where text from data is made harmless before a terminal sees it.

Names, ids, behaviors and columns may hold anything: markup of rich, control sequences of terminals, half a character.
Here all of it is plain text.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.table import Column, Table
from rich.text import Text

__all__ = ["PlainConsole", "TextColumn", "console", "one_line", "out", "shortened", "visible"]

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PIPE = 160  # columns of a table in a pipe
_NARROWEST = 12
_TERMINAL = 80
_LONGEST = 2000


def visible(text: str) -> str:
    r"""Return text without anything that a terminal would obey: control characters become escapes such as ``\x1b``.

    Marks that turn the direction of writing and lone surrogates are escaped too; line breaks and tabs stay.

    Examples
    --------
    >>> print(visible("red" + chr(27) + "[31m"))
    red\x1b[31m
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """Return text on one line, whatever it quotes."""
    return " ".join(text.splitlines())


def shortened(text: str) -> str:
    """Return text without its middle where it is longer than anybody reads: messages quote what they were given."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} [..] {text[-_LONGEST // 2 :]}"


class PlainConsole(Console):
    """A console for which text is text, never markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if self.width < _NARROWEST:  # COLUMNS=0, or a terminal that does not know its size
            self.width = _TERMINAL

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich shows it; every string that is printed or stands in a table passes here."""
        options.update(markup=False, emoji=False)
        return super().render_str(visible(text), **options)

    def print_table(self, grid: Table) -> None:
        """Print a table; where the terminal is too narrow for its figures, the table is wider than the terminal."""
        needed = _narrowest(grid)
        if needed > self.width:
            grid.width = needed
        self.print(grid, crop=False, soft_wrap=False)


def _narrowest(grid: Table) -> int:
    """Return the columns of a terminal that a table needs so that no figure is cut."""
    widths = []
    for column in grid.columns:
        cells = [cell_len(str(cell)) for cell in (column.header, *column.cells)]
        widest = max(cells, default=0)
        widths.append(widest if column.no_wrap else min(widest, _NARROWEST))
    return sum(widths) + 3 * len(widths) + 1  # a blank on both sides and a line between


class TextColumn(ProgressColumn):
    """Text of a progress bar: a format that may name fields of the task, and never markup."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Return the text at this moment."""
        return Text(visible(self.text.format(task=task)))


console = PlainConsole(stderr=True, soft_wrap=True)
"""Progress and notices: stderr, so that stdout stays clean for tables and JSON."""

out = PlainConsole(width=None if sys.stdout is not None and sys.stdout.isatty() else _PIPE)
"""Tables and answers: stdout. In a pipe nothing is cut to the width of a terminal that is not there."""
