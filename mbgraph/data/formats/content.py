"""What a file holds, told by its content: pairs, lists of items, a pickled matrix, an archive or something else.

Names alone do not tell: folders hold notes, dictionaries and parts of archives that are called like behaviors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbgraph.data.aliases import SPLIT_ALIASES
from mbgraph.data.formats.text import Tokens, blocks, line_lengths, split_words
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.files import open_file
from mbgraph.typing import IntArray

__all__ = [
    "Survey",
    "archive",
    "first_words",
    "has_header",
    "is_pickle",
    "repeats_users",
    "same_pairs",
    "second_line",
    "split_files",
    "survey",
]

_HEAD = 1 << 16
_ARCHIVES = {
    b"Rar!": "a RAR archive",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1f\x8b": "packed by gzip",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
}
_PICKLE_0 = (b"ccopy_reg", b"ccopyreg", b"(lp", b"(dp", b"(l.", b"cnumpy", b"cscipy")


@dataclass(frozen=True)
class Survey:
    """What a file of numbers or a pickle holds.

    Attributes
    ----------
    kind : str
        ``"pairs"``, ``"adjacency"`` or ``"matrix"``.
    header : bool
        The first line names columns.
    columns : int
        Of pairs: how many columns a line has.
    lowest : int or None
        The smallest user or item id; None for matrices, which count from 0.
    """

    kind: str
    header: bool = False
    columns: int = 2
    lowest: int | None = None


def _head(file: Path) -> bytes:
    with open_file(file) as source:
        return source.read(_HEAD)


def archive(file: Path) -> str | None:
    """Say which kind of archive a file is, None if it is none."""
    head = _head(file)[:8]
    return next((kind for mark, kind in _ARCHIVES.items() if head.startswith(mark)), None)


def is_pickle(file: Path) -> bool:
    """Return whether a file begins as a pickle does."""
    head = _head(file)[:16]
    return head[:1] == b"\x80" or head.startswith(_PICKLE_0)


def first_words(file: Path) -> list[bytes]:
    """Return the words of the first line with any, as many as its first 64 KiB hold; none if the line is no text."""
    head = _head(file).removeprefix(b"\xef\xbb\xbf").lstrip()
    line = head.splitlines()[0] if head else b""
    return split_words(line) if b"\0" not in line else []


def second_line(file: Path) -> bytes:
    """Return the second line with any words, which is the first under a header; empty where there is none."""
    lines = [line for line in _head(file).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else b""


def has_header(file: Path) -> bool | None:
    """Return whether the first line of a file of numbers names columns; None if the file begins with no numbers."""
    if _numbers(first_words(file)):
        return False
    return True if _numbers(split_words(second_line(file))) else None


def _numbers(words: Sequence[bytes]) -> bool:
    return len(words) > 1 and words[0].isdigit() and words[1].isdigit()


def repeats_users(file: Path) -> bool:
    """Return whether a file begins as pairs do: two numbers a line, and a user with several lines."""
    lines = [split_words(line) for line in _head(file).splitlines()[:-1] if line.strip()]
    if not lines or not all(len(words) == 2 and _numbers(words) for words in lines):
        return False
    users = [words[0] for words in lines]
    return len(set(users)) < len(users)


def survey(file: Path) -> Survey | None:
    """Look through a file; None if it holds neither numbers nor a pickle.

    Two words on every line are a user and an item. More are a user and a list of items where no user has two lines, and
    otherwise a user, an item and further columns.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    if is_pickle(file):
        return Survey("matrix")
    header = has_header(file)
    if header is None:
        return None
    users: list[IntArray] = []
    longest, shortest = 0, 1 << 62
    lowest = 1 << 62
    for tokens in blocks(file, header=header):
        if not len(tokens):
            continue
        begins, lengths = line_lengths(tokens)
        longest, shortest = max(longest, int(lengths.max())), min(shortest, int(lengths.min()))
        users.append(_ids(tokens[begins]))
        lowest = min(lowest, int(users[-1].min()))
        pairs = tokens[begins[lengths > 1] + 1]
        if len(pairs):
            lowest = min(lowest, int(_ids(pairs).min()))
    if not users:
        return None
    if longest == shortest == 2:
        return Survey("pairs", header, 2, lowest)
    owners = np.concatenate(users)
    more = header or not all(word.isdigit() for word in first_words(file)) or len(np.unique(owners)) < len(owners)
    if more and longest == shortest > 2:
        return Survey("pairs", header, longest, lowest)
    if not header:
        for tokens in blocks(file):
            if len(tokens):
                lowest = min(lowest, int(_ids(tokens).min()))
    return Survey("adjacency", header, 2, lowest)


def _ids(tokens: Tokens) -> IntArray:
    return tokens.integers()


def split_files(path: Path, template: str, names: dict[str, tuple[str, ...]] = SPLIT_ALIASES) -> dict[str, Path]:
    """Return the files of held-out pairs by split, under any name that the split has.

    Parameters
    ----------
    path : Path
        The folder.
    template : str
        What a file is called, with ``{}`` for the name of the split.
    names : dict of str to tuple of str

    Raises
    ------
    DataError
        If there are two of one split.
    """
    found: dict[str, Path] = {}
    for split, aliases in names.items():
        for alias in aliases:
            file = path / template.format(alias)
            if not file.is_file():
                continue
            if split in found:
                raise DataError(f"{path} holds both {found[split].name} and {file.name}", "remove one")
            found[split] = file
    return found


def same_pairs(one: Pairs, other: Pairs) -> bool:
    """Return whether two lists hold the same pairs in the same order."""
    return np.array_equal(one.user, other.user) and np.array_equal(one.item, other.item)
