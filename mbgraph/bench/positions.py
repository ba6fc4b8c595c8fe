"""Where a key stands in a TOML file, which the standard library's reader does not tell."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["line_of"]

_NAME = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_HEADER = re.compile(rf"^\s*(\[\[?)\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*\]")
_KEY = re.compile(rf"^\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*=")


def line_of(text: str, path: Sequence[str | int]) -> int:
    r"""Return the line, from 1, where a key or table stands; of one that is not found that of the nearest above it.

    Parameters
    ----------
    text : str
        The TOML file.
    path : sequence of str or int
        Keys from the top; a number picks an entry of an array of tables.

    Examples
    --------
    >>> line_of('title = "x"\n[[rows]]\nname = "a"\n[[rows]]\nname = "b"', ("rows", 1, "name"))
    5
    """
    known = _positions(text)
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in known:
            return known[tuple(path[:length])]
    return 1


def _positions(text: str) -> dict[tuple[str | int, ...], int]:
    found: dict[tuple[str | int, ...], int] = {}
    counts: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            table = ()
            *above, last = _names(header[2])
            for name in above:
                table = (*table, name)
                if table in counts:
                    table = (*table, counts[table] - 1)
            table = (*table, last)
            if header[1] == "[[":
                found.setdefault(table, number)
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
            found.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            for depth in range(1, len(_names(key[1])) + 1):
                found.setdefault((*table, *_names(key[1])[:depth]), number)
    return found


def _names(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_NAME, dotted)]
