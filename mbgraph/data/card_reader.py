"""Reads a dataset card from TOML and trusts nothing in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mbgraph.data.card import COUNT, Card, Source
from mbgraph.data.formats import FORMATS
from mbgraph.errors import DataError, nearest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

__all__ = ["load_card"]

_SPLITS = ("valid", "test")
_LENGTHS = {"git_blob": 40, "sha256": 64, "commit": 40, "content_hash": 64}
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that no file can have there
_REQUIRED = (
    "name", "title", "description", "citation", "licence", "homepage", "format", "users", "items", "behaviors",
    "target", "protocol", "splits",
)  # fmt: skip
_PAPER = ("interactions", "view", "collect", "cart", "purchase", "bar_view", "bar_collect", "bar_cart", "dt")
_FILE_KEYS = ("part", "path", "format", "git_blob", "sha256", "size")
_GROUP_KEYS = ("repository", "commit", "folder", "format", "files")


def load_card(path: str | os.PathLike[str]) -> Card:
    """Read and check one card.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a key, has one that no card has (the message names the nearest), a value is of
        the wrong type, a name does not fit the others, or a path would leave its folder.
    """
    file = Path(path)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}", "restore the card") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no TOML file ({error})", "correct it") from error
    except RecursionError as error:
        raise DataError(f"{file} is nested too deeply", "correct it") from error
    return _Reader(file, raw).card()


class _Reader:
    """Turns the tables of one file into a card; every complaint names the file."""

    def __init__(self, file: Path, raw: dict[str, Any]) -> None:
        self.file, self.raw = file, raw

    def wrong(self, what: str, remedy: str = "correct the card") -> DataError:
        return DataError(f"{self.file}: {what}", remedy)

    def known(self, where: str, table: Mapping[str, Any], keys: Iterable[str]) -> None:
        keys = list(keys)
        for key in table:
            if key not in keys:
                close = nearest(key, keys)
                hint = f"did you mean {close!r}?" if close else f"known are {', '.join(keys)}"
                raise self.wrong(f"unknown key {key!r}{where}", hint)

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{key!r} must be text, not {value!r}")
        return value.strip()

    def integer(self, key: str, value: Any, low: int = 0) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.wrong(f"{key!r} must be an integer of at least {low}, not {value!r}")
        return value

    def share(self, key: str, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise self.wrong(f"{key!r} must be between 0 and 1, not {value!r}")
        return float(value)

    def hexadecimal(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{_LENGTHS[key]}}}", value):
            raise self.wrong(f"{key!r} must be {_LENGTHS[key]} hexadecimal digits, not {value!r}")
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.raw.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(f"{key!r} must be a table, not {value!r}")
        return value

    def one_of(self, key: str, value: Any, choices: Iterable[str]) -> str:
        choices = list(choices)
        if value not in choices:
            close = nearest(str(value), choices)
            hint = f"did you mean {close!r}?" if close else f"choose from: {', '.join(choices)}"
            raise self.wrong(f"unknown {key} {value!r}", hint)
        return str(value)

    def card(self) -> Card:
        raw = self.raw
        self.known("", raw, [entry.name for entry in fields(Card)])
        for key in _REQUIRED:
            if key not in raw:
                raise self.wrong(f"the key {key!r} is missing", f"a card needs {', '.join(_REQUIRED)}")
        texts = {key: self.text(key, raw[key]) for key in ("title", "description", "citation", "licence", "protocol")}
        name, homepage = self.text("name", raw["name"]), self.text("homepage", raw["homepage"])
        if not _NAME.fullmatch(name):
            raise self.wrong(f"{name!r} is no name for a card", "use small letters, digits and _")
        if not homepage.startswith("https://"):
            raise self.wrong(f"'homepage' must start with https://, not {homepage!r}")
        behaviors = raw["behaviors"]
        if not isinstance(behaviors, list) or len({self.text("behaviors", entry) for entry in behaviors}) < 1:
            raise self.wrong(f"'behaviors' must be a list of names, not {behaviors!r}")
        if len(set(behaviors)) != len(behaviors) or set(behaviors) & {*_SPLITS, COUNT}:
            raise self.wrong("'behaviors' names one twice, or one that is a split")
        target = self.one_of("target", raw["target"], behaviors)
        auxiliary = [behavior for behavior in behaviors if behavior != target]
        parts = (*behaviors, *_SPLITS)
        for key, keys in (
            ("counts", parts),
            ("bar", auxiliary),
            ("aliases", behaviors),
            ("splits", ("train", *_SPLITS, "order", "note")),
            ("paper", _PAPER),
        ):
            self.known(f" in {key!r}", self.table(key), keys)
        counts = {part: self.integer(f"counts.{part}", n) for part, n in self.table("counts").items()}
        if counts and set(behaviors) - set(counts):
            raise self.wrong(f"'counts' lacks {', '.join(sorted(set(behaviors) - set(counts)))}")
        aliases = self.table("aliases")
        for behavior, labels in aliases.items():
            if not isinstance(labels, list):
                raise self.wrong(f"aliases.{behavior} must be a list of names, not {labels!r}")
        paper = self.table("paper")
        for key, value in paper.items():
            check = self.share if key.startswith("bar") or key == "dt" else self.integer
            check(f"paper.{key}", value)
        by_hand = self.text("by_hand", raw["by_hand"]) if "by_hand" in raw else None
        sources = self.sources((*parts, COUNT))
        card = Card(
            name=name,
            homepage=homepage,
            **texts,
            format=self.one_of("format", raw["format"], FORMATS),
            users=self.integer("users", raw["users"], 1),
            items=self.integer("items", raw["items"], 1),
            behaviors=tuple(behaviors),
            target=target,
            splits={key: self.text(f"splits.{key}", value) for key, value in self.table("splits").items()},
            counts=counts,
            bar={key: self.share(f"bar.{key}", value) for key, value in self.table("bar").items()},
            dt=self.share("dt", raw["dt"]) if "dt" in raw else None,
            aliases={key: tuple(self.text(key, label) for label in labels) for key, labels in aliases.items()},
            paper=paper,
            sources=sources,
            content_hash=self.hexadecimal("content_hash", raw["content_hash"]) if "content_hash" in raw else None,
            crop=self.crop(),
            by_hand=by_hand,
        )
        if not card.is_downloadable and by_hand is None:
            raise self.wrong("a file has no place or no hash", "say under 'by_hand' how to get the data")
        return card

    def crop(self) -> tuple[int, int] | None:
        if "crop" not in self.raw:
            return None
        value = self.raw["crop"]
        if not isinstance(value, list) or len(value) != 2:
            raise self.wrong(f"'crop' must be [users, items], not {value!r}")
        return self.integer("crop", value[0], 1), self.integer("crop", value[1], 1)

    def sources(self, parts: tuple[str, ...]) -> tuple[Source, ...]:
        groups = self.raw.get("sources", [])
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            raise self.wrong("'sources' must be tables ([[sources]])")
        found = [source for group in groups for source in self.group(group, parts)]
        for kind, labels in (
            ("file", [source.name.lower() for source in found]),
            ("part", [source.part for source in found]),
        ):
            if len(set(labels)) != len(labels):
                raise self.wrong(f"two sources have the same {kind} {max(labels, key=labels.count)!r}")
        missing = [part for part in self.table("counts") if part not in {source.part for source in found}]
        if found and missing and self.raw["format"] != "npz":
            raise self.wrong(f"no source holds {', '.join(missing)}")
        return tuple(found)

    def group(self, group: dict[str, Any], parts: tuple[str, ...]) -> list[Source]:
        self.known(" in 'sources'", group, _GROUP_KEYS)
        repository, commit = group.get("repository"), group.get("commit")
        if repository is not None and not (isinstance(repository, str) and _REPOSITORY.fullmatch(repository)):
            raise self.wrong(f"'repository' must be owner/name, not {repository!r}")
        if commit is not None:
            self.hexadecimal("commit", commit)
        files = group.get("files")
        if not isinstance(files, list) or not files or not all(isinstance(entry, dict) for entry in files):
            raise self.wrong("'files' of a source must be a list of tables")
        found = []
        for entry in files:
            self.known(" in 'files'", entry, _FILE_KEYS)
            folder = str(group.get("folder", ""))
            path = f"{folder}/{entry.get('path')}" if folder else str(entry.get("path"))
            self.check_path(path)
            own = entry.get("format", group.get("format", self.raw["format"]))
            choices = parts if own != "npz" else [entry.get("part", "")]
            hashes = {key: self.hexadecimal(key, entry[key]) for key in ("git_blob", "sha256") if key in entry}
            found.append(
                Source(
                    part=self.one_of("part", self.text("part", entry.get("part")), choices),
                    path=path,
                    format=self.one_of("format", own, FORMATS),
                    repository=repository,
                    commit=commit,
                    size=self.integer("size", entry["size"]) if "size" in entry else None,
                    **hashes,
                )
            )
        return found

    def check_path(self, path: str) -> None:
        """Refuse a path that leaves its folder, is hidden, or could not be a file everywhere."""
        for piece in path.split("/"):
            if not _PART.fullmatch(piece) or piece.endswith((".", " ")) or _WINDOWS.fullmatch(piece):
                raise self.wrong(f"{path!r} is no path of a source", "name a file below its repository, with /")
