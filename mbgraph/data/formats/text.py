"""Numbers out of text files, block by block and without a Python loop over pairs.

All ids leave this module as row numbers from 0; ``base`` is what the file counts from. A line that cannot be used is
named by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mbgraph import limits
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.files import open_file
from mbgraph.typing import IntArray

__all__ = ["Tokens", "blocks", "line_lengths", "read_adjacency", "read_pairs", "split_words"]

BLOCK = 1 << 24
"""Bytes that are parsed at a time; memory beyond the result is about twenty times this at most."""

_DIGITS = 18  # so many always fit into 64 bits
_BOM = b"\xef\xbb\xbf"
_SEPARATOR = np.zeros(256, bool)
_SEPARATOR[list(b" ,\t\r\n")] = True
_EMPTY_CELL = re.compile(rb"^[ \t]*,|,[ \t]*,", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Words of a block of whole lines, separated by blanks, tabs, commas and line ends.

    Attributes
    ----------
    file : Path
        For messages.
    data : uint8 array (B,)
        The block, followed by padding.
    starts, lengths, lines : int64 array (T,)
        Where each word begins, its length, and the number of its line, counted from 1.
    """

    file: Path
    data: NDArray[np.uint8]
    starts: IntArray
    lengths: IntArray
    lines: IntArray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, selection: slice | np.ndarray) -> Tokens:
        """Return some of the words, by slice, index array or mask."""
        return Tokens(self.file, self.data, self.starts[selection], self.lengths[selection], self.lines[selection])

    def text(self, number: int) -> str:
        """Return one word for a message; bytes that are no UTF-8 are replaced and long words cut."""
        start, length = int(self.starts[number]), int(self.lengths[number])
        return self.data[start : start + min(length, 40)].tobytes().decode(errors="replace")

    def words(self) -> NDArray[np.bytes_]:
        """Return all words as bytes of one width, (T,)."""
        width = int(self.lengths.max(initial=1))
        letters = np.zeros((len(self), width), np.uint8)
        for place in range(width):
            at = self.lengths > place
            letters[at, place] = self.data[self.starts[at] + place]
        return np.ascontiguousarray(letters).view(f"S{width}").reshape(-1)

    def integers(self) -> IntArray:
        """Return the words as numbers, (T,).

        Raises
        ------
        DataError
            If a word is anything but digits, naming its line.
        """
        values = np.zeros(len(self), np.int64)
        bad = self.lengths > _DIGITS
        for place in range(min(int(self.lengths.max(initial=0)), _DIGITS)):
            digit = self.data[self.starts + place] - np.uint8(48)  # wraps around below "0"
            inside = self.lengths > place
            bad |= inside & (digit > 9)
            np.multiply(values, 10, out=values, where=inside)
            np.add(values, digit, out=values, where=inside)
        if bad.any():
            raise self._no_integer(int(np.flatnonzero(bad)[0]))
        return values

    def row_numbers(self, kind: str, base: int = 0, count: int | None = None) -> IntArray:
        """Return the words as row numbers, (T,), each checked to be below ``count``."""
        values = self.integers()
        if len(values) == 0:
            return values
        low, high = int(values.min()), int(values.max())
        allowed = getattr(limits.current(), f"{kind}s")
        most = (allowed if count is None else count) - 1 + base
        if base <= low and high <= most:
            return values - base if base else values
        first = int(np.flatnonzero((values < base) | (values > most))[0])
        where, value = f"{self.file} line {self.lines[first]}", int(values[first])
        if value < base:
            raise DataError(
                f"{where}: {kind} id {value} is below {base}",
                f"{kind} ids of this format start at {base}, correct it"
                + (", or convert with --base 0 if all of them start there" if base == 1 else ""),
            )
        if count is None:
            what = f"{where}: {kind} ids up to {value:,} without gaps"
            raise limits.refusal(f"{kind}s", what, value + 1 - base)
        raise DataError(
            f"{where}: {kind} id {value} is out of range",
            f"there are {count} {kind}s ({base}..{count - 1 + base}); correct the line or the number of {kind}s",
        )

    def _no_integer(self, number: int) -> DataError:
        word, where = self.text(number), f"{self.file} line {self.lines[number]}"
        if word[:1] == "-" and word[1:].isdigit():
            return DataError(f"{where}: negative id {word}", "ids start at 0; correct or drop the line")
        if word.isascii() and word.isdigit():
            return DataError(f"{where}: {word} has more than {_DIGITS} digits", "number users and items from 0")
        return DataError(f"{where}: {word!r} is no integer", "this format holds whole numbers only; correct the line")


def split_words(line: bytes) -> list[bytes]:
    """Return the words of one line, as `Tokens` separates them."""
    return line.replace(b",", b" ").split()


def blocks(file: Path, *, header: bool = False, stream: BinaryIO | None = None) -> Iterator[Tokens]:
    """Yield the words of a file in blocks of whole lines.

    Parameters
    ----------
    file : Path
    header : bool
        Leave out the first line.
    stream : binary file, optional
        Where the bytes come from if not from ``file`` itself; it is closed.
    """
    line = 1
    with stream or open_file(file) as source:
        kept = b""
        first, old_mac = True, False
        while True:
            chunk = _chunk(file, source)
            if first:
                chunk, first = chunk.removeprefix(_BOM), False
                old_mac = b"\r" in chunk and b"\n" not in chunk
            if old_mac:  # lines end in CR alone
                chunk = chunk.replace(b"\r", b"\n")
            end = chunk.rfind(b"\n") + 1 if chunk else 0
            if chunk and not end:
                kept += chunk
                if len(kept) >> 20 >= limits.current().line_mib:
                    raise limits.refusal("line_mib", f"{file} line {line}: {len(kept) >> 20:,} MiB and more")
                continue
            block, kept = kept + chunk[:end] if chunk else kept, chunk[end:]
            if block:
                tokens = _tokens(file, block, line)
                yield tokens[tokens.lines > 1] if header and line == 1 else tokens
                line += block.count(b"\n")
            if not chunk:
                return


def _chunk(file: Path, source: BinaryIO) -> bytes:
    try:
        return source.read(BLOCK)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}", "restore the file") from error


def _tokens(file: Path, block: bytes, line: int) -> Tokens:
    # a value that is missing would move the next one into its place
    empty = _EMPTY_CELL.search(block) if b"," in block else None
    if empty:
        at = line + block.count(b"\n", 0, empty.start())
        raise DataError(f"{file} line {at} has a comma with no value before it", "correct or drop the line")
    data = np.frombuffer(block + b"\n" * (_DIGITS + 1), np.uint8)
    separator = _SEPARATOR[data]
    edge = np.flatnonzero(separator[1:] != separator[:-1]) + 1
    if not separator[0]:
        edge = np.r_[0, edge]
    starts, ends = edge[::2], edge[1::2]
    lines = np.searchsorted(np.flatnonzero(data == 10), starts) + line
    return Tokens(file, data, starts, ends - starts, lines)


def line_lengths(tokens: Tokens) -> tuple[IntArray, IntArray]:
    """Return where each line with words begins among the words, and how many it has, both (L,)."""
    begins = np.flatnonzero(np.r_[True, tokens.lines[1:] != tokens.lines[:-1]]) if len(tokens) else tokens.lines
    return begins, np.diff(np.r_[begins, len(tokens)])


def read_pairs(
    file: Path,
    *,
    base: int = 0,
    users: int | None = None,
    items: int | None = None,
    header: bool = False,
    more_columns: bool = False,
    empty: bool = False,
    stream: BinaryIO | None = None,
) -> Pairs:
    """Read a file with a user and an item per line.

    Parameters
    ----------
    file : Path
    base : int
        The smallest id of the format.
    users, items : int, optional
        Numbers of them; ids beyond are errors.
    header : bool
        The first line names the columns.
    more_columns : bool
        Further columns are allowed, and left out.
    empty : bool
        No pairs at all are allowed.
    stream : binary file, optional
        Where the bytes come from if not from ``file`` itself.

    Raises
    ------
    DataError
        Naming file and line: an id that is no integer, negative or out of range, a line with other than two columns.
    """
    found: list[tuple[IntArray, IntArray]] = []
    for tokens in blocks(file, header=header, stream=stream):
        begins, lengths = line_lengths(tokens)
        wrong = np.flatnonzero(lengths < 2 if more_columns else lengths != 2)
        if len(wrong):
            at, wanted = int(wrong[0]), "2 or more" if more_columns else "2"
            raise DataError(
                f"{file} line {tokens.lines[begins[at]]} holds {lengths[at]} columns, not {wanted}",
                "write one user and one item per line",
            )
        found.append(
            (
                tokens[begins].row_numbers("user", base, users),
                tokens[begins + 1].row_numbers("item", base, items),
            )
        )
    if not any(len(user) for user, _ in found):
        if empty:
            return Pairs.empty()
        raise DataError(f"{file} is empty", "restore the file or leave it out")
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def read_adjacency(
    file: Path, *, base: int = 0, users: int | None = None, items: int | None = None, empty: bool = False
) -> tuple[Pairs, int]:
    """Read a file with a user and all the user's items per line; ids count from ``base``.

    Returns
    -------
    pairs : Pairs
        In the order of the file.
    most : int
        The number of users that the lines speak of: the largest user id plus one, users without items included.

    Raises
    ------
    DataError
        As in `read_pairs`; also if a user has two lines.
    """
    found: list[tuple[IntArray, IntArray]] = []
    owners: list[tuple[IntArray, IntArray]] = []
    for tokens in blocks(file):
        begins, lengths = line_lengths(tokens)
        user = tokens[begins].row_numbers("user", base, users)
        is_item = np.ones(len(tokens), bool)
        is_item[begins] = False
        found.append((np.repeat(user, lengths - 1), tokens[is_item].row_numbers("item", base, items)))
        owners.append((user, tokens.lines[begins]))
    if not any(len(user) for user, _ in owners) or not (empty or any(len(user) for user, _ in found)):
        if empty:
            return Pairs.empty(), 0
        raise DataError(f"{file} is empty", "restore the file or leave it out")
    user, lines = (np.concatenate(column) for column in zip(*owners, strict=True))
    order = np.argsort(user, kind="stable")
    twice = np.flatnonzero(user[order][1:] == user[order][:-1])
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        raise DataError(
            f"{file} line {lines[second]}: user {user[second] + base} already stands in line {lines[first]}",
            "join the two lines; if a line is one pair, say so: mbgraph data convert DIR --behavior NAME=FILE ..",
        )
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True))), int(user.max()) + 1
