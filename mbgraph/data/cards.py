"""Dataset cards: what a dataset is, where its files lie, and what reading them must give.

A card is one TOML file of the folder ``datasets/``, which a wheel carries as ``mbgraph/datasets``. docs/datasets.md
explains its keys, the fields of `Card` and `CardFile`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mbgraph.data.aliases import canonical_behavior
from mbgraph.data.card import Card, CardFile
from mbgraph.data.card_reader import load_card
from mbgraph.errors import DataError, UnknownNameError
from mbgraph.files import shipped

__all__ = ["Card", "CardFile", "canonical_behavior", "cards", "find_card", "get_card", "load_card"]


def cards() -> dict[str, Card]:
    """Return every card by name, sorted.

    Raises
    ------
    DataError
        If the folder is missing or a card is wrong.
    """
    folder = shipped("datasets")
    if not folder.is_dir():
        raise DataError(f"no dataset cards in {folder}", "install mbgraph again")
    return dict(_read_cards(folder))


def find_card(name: str) -> Card | None:
    """Return the card called ``name``, or None."""
    return cards().get(name)


def get_card(name: str) -> Card:
    """Return the card called ``name``; raises `UnknownNameError` that names the nearest one."""
    known = cards()
    if name not in known:
        raise UnknownNameError("dataset card", name, known)
    return known[name]


@cache
def _read_cards(folder: Path) -> tuple[tuple[str, Card], ...]:
    found = []
    for file in sorted(folder.glob("*.toml")):
        card = load_card(file)
        if card.name != file.stem:
            raise DataError(f"{file}: the card is called {card.name!r}", "name the file after the card")
        found.append((card.name, card))
    return tuple(found)
