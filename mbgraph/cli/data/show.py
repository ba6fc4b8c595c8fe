"""`mbgraph data show`: the card of a dataset."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from mbgraph.cli.common import Command, emit_json, json_option, out, table

if TYPE_CHECKING:
    from mbgraph.data.card import Card


@click.command(
    name="show",
    cls=Command,
    epilog="""\b
Examples:
  mbgraph data show beibei
  mbgraph data show taobao --json
""",
)
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show what is known about a dataset: origin, terms, split, counts, source files and their hashes."""
    from mbgraph.data.cards import get_card

    card = get_card(name)
    if as_json:
        sources = [{**source.values(), "name": source.name, "url": source.url} for source in card.sources]
        emit_json({**card.values(), "sources": sources, "downloadable": card.is_downloadable})
        return
    _say(card.title)
    for label, text in _facts(card):
        _say(f"{label}: {text}", indent="  ")
    table("Counts", ["", "count", "BAR", "also called"], _counts(card))
    if card.sources:
        rows = [
            [source.part, source.path, source.repository or "-", (source.commit or "-")[:7], _hash(source)]
            for source in card.sources
        ]
        table("Files", ["part", "path", "repository", "commit", "content"], rows)


def _facts(card: Card) -> list[tuple[str, str]]:
    get = f"mbgraph data download {card.name}" if card.is_downloadable else str(card.by_hand)
    facts = [
        ("what", card.description),
        ("cite", card.citation),
        ("licence", card.licence),
        ("homepage", card.homepage),
        ("get it", get),
        ("target", card.target),
        ("split", card.protocol),
        *card.splits.items(),
    ]
    if card.crop is not None:
        facts.append(("cut", f"the first {card.crop[0]:,} users and {card.crop[1]:,} items of the files"))
    return facts


def _counts(card: Card) -> list[list[Any]]:
    rows: list[list[Any]] = [["users", card.users, None, ""], ["items", card.items, None, ""]]
    for part in dict.fromkeys((*card.behaviors, *card.counts)):
        role = " (target, train)" if part == card.target else ""
        rows.append([part + role, card.counts.get(part), card.bar.get(part), ", ".join(card.aliases.get(part, ()))])
    if card.dt is not None:
        rows.append(["direct targets (DT)", None, card.dt, ""])
    return rows


def _hash(source: Any) -> str:
    if source.git_blob:
        return f"git blob {source.git_blob}"
    return f"SHA-256 {source.sha256}" if source.sha256 else "no hash"


def _say(text: str, indent: str = "") -> None:
    out.print(
        textwrap.fill(text, width=min(out.width, 100), initial_indent=indent, subsequent_indent=indent + "  "),
    )
