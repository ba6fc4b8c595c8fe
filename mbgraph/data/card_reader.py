"""Reads a dataset card from TOML and trusts nothing in it.

What a value must be is said by the fields of `Card` and `CardFile`; here stands what one field asks of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mbgraph.data.card import COUNT, Card, CardFile, Repository, Sha1, Text
from mbgraph.data.dataset import SPLITS
from mbgraph.data.formats import FORMATS
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.files import is_taken
from mbgraph.schema import InWords, Section, read_toml

__all__ = ["load_card"]

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")
_PAPER = ("interactions", "view", "collect", "cart", "purchase", "bar_view", "bar_collect", "bar_cart", "dt")


class _Group(Section):
    """Files of one place: a table of ``[[sources]]``."""

    called = "a table of [[sources]]"

    files: Annotated[tuple[Mapping[str, Any], ...], Field(min_length=1), InWords("a list of tables")]
    repository: Repository | None = None
    commit: Sha1 | None = None
    folder: str = ""
    format: Text | None = None


def load_card(path: str | os.PathLike[str]) -> Card:
    """Read and check one card.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a key, has one that no card has (the message names the nearest), a value is of
        the wrong type, a name does not fit the others, or a path would leave its folder. One line that names the file.
    """
    file = Path(path)
    values = read_toml(file)
    try:
        groups = values.get("sources", ())
        if isinstance(groups, list) and all(isinstance(group, dict) for group in groups):
            values["sources"] = tuple(source for group in groups for source in _sources(group, values.get("format")))
        card = Card(**values)
        _check_names(card)
        _check_sources(card)
    except UsageError as error:
        raise DataError(f"{file}: {error.message}", error.remedy) from error
    return card


def _sources(table: dict[str, Any], format: Any) -> list[CardFile]:
    group = _Group(**table)
    shared = {"repository": group.repository, "commit": group.commit, "format": group.format or format}
    made = [CardFile(**{**shared, **entry}) for entry in group.files]
    return [source.replace(path=f"{group.folder}/{source.path}") if group.folder else source for source in made]


def _known(kind: str, names: Iterable[str], choices: Iterable[str]) -> None:
    choices = list(choices)
    for name in names:
        if name not in choices:
            raise UnknownNameError(kind, name, choices)


def _check_names(card: Card) -> None:
    """Names that stand in one field must be those of another, or of a closed list."""
    if len(set(card.behaviors)) != len(card.behaviors) or set(card.behaviors) & {*SPLITS, COUNT}:
        raise UsageError("'behaviors' names one twice, or one that is a split", "correct the list")
    _known("target", [card.target], card.behaviors)
    _known("format", [card.format, *(source.format for source in card.sources)], FORMATS)
    for key, names, choices in (
        ("counts", card.counts, (*card.behaviors, *SPLITS)),
        ("bar", card.bar, (behavior for behavior in card.behaviors if behavior != card.target)),
        ("aliases", card.aliases, card.behaviors),
        ("splits", card.splits, ("train", *SPLITS, "order", "note")),
        ("paper", card.paper, _PAPER),
    ):
        _known(f"key of {key!r}", names, choices)
    if card.counts and set(card.behaviors) - set(card.counts):
        raise UsageError(f"'counts' lacks {', '.join(sorted(set(card.behaviors) - set(card.counts)))}", "add it")
    for key, value in card.paper.items():
        is_share = key.startswith("bar") or key == "dt"
        if value < 0 or (value > 1 if is_share else not isinstance(value, int)):
            words = "a number from 0 to 1" if is_share else "a whole number of at least 0"
            raise UsageError(f"paper.{key} of the card must be {words}, got {value}", "correct it")


def _check_sources(card: Card) -> None:
    """Every part of the data is in one file, and every file stays below its folder."""
    for source in card.sources:
        if source.format != "npz":
            _known("part", [source.part], (*card.behaviors, *SPLITS, COUNT))
        for piece in source.path.split("/"):
            if not _PART.fullmatch(piece) or piece.endswith((".", " ")) or is_taken(piece):
                raise UsageError(f"{source.path!r} is no path of a source", "name a file below its repository, with /")
    for kind, labels in (
        ("file", [source.name.lower() for source in card.sources]),
        ("part", [source.part for source in card.sources]),
    ):
        if len(set(labels)) != len(labels):
            raise UsageError(
                f"two sources have the same {kind} {max(labels, key=labels.count)!r}", f"give each its own {kind}"
            )
    missing = [part for part in card.counts if part not in {source.part for source in card.sources}]
    if card.sources and missing and card.format != "npz":
        raise UsageError(f"no source holds {', '.join(missing)}", "add its file")
    if not card.is_downloadable and card.by_hand is None:
        raise UsageError("a file has no place or no hash", "say under 'by_hand' how to get the data")
