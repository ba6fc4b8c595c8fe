"""Dictionary files (DA-GCN): ``count.txt`` and JSON objects ``{"1": [7, 3], ...}`` from user to items; ids from 1."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.content import split_files
from mbgraph.data.formats.pairs import read_count
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError
from mbgraph.files import read_json
from mbgraph.typing import IntArray

__all__ = ["read", "read_part"]

_SUFFIX = "_dict.txt"
_REMEDY = "restore the file"


def read_part(path: Path, *, users: int | None = None, items: int | None = None) -> Pairs:
    """Read one dictionary file as row numbers from 0, in the order of the file.

    Raises
    ------
    DataError
        If the file is missing, truncated, no JSON object of lists of integers, has a user twice, or an id is out of
        range; the message names the user.
    """
    table = read_json(path, _Table)
    if not isinstance(table, _Table):
        raise DataError(f"{path} is not a JSON object", "this format maps users to lists of items")
    for key, values in table.entries:
        if not (key.isascii() and key.isdigit() and len(key) <= 18):
            raise DataError(f"{path}: user {key[:40]!r} is no integer", "name users by their numbers")
        if type(values) is not list or not set(map(type, values)) <= {int}:
            raise DataError(f"{path}: the items of user {key} are no list of integers", _REMEDY)
    user = np.fromiter((int(key) for key, _ in table.entries), np.int64, len(table.entries))
    _check(path, "user", user, user, users)
    order = np.argsort(user, kind="stable")
    twice = np.flatnonzero(user[order][1:] == user[order][:-1])
    if len(twice):
        raise DataError(f"{path}: user {user[order[twice[0]]]} stands twice", "join the two lists")
    lengths = np.fromiter((len(values) for _, values in table.entries), np.int64, len(user))
    try:
        item = np.fromiter(chain.from_iterable(values for _, values in table.entries), np.int64, int(lengths.sum()))
    except OverflowError as error:
        raise DataError(f"{path} holds an item id of more than 64 bits", _REMEDY) from error
    if not len(item):
        raise DataError(f"{path} is empty", "restore the file or leave it out")
    owner = np.repeat(user, lengths)
    _check(path, "item", item, owner, items)
    return Pairs(owner - 1, item - 1)


class _Table:
    """A JSON object as a list of its entries, so that a key that stands twice is seen."""

    def __init__(self, entries: list[tuple[str, Any]]) -> None:
        self.entries = entries


def _check(path: Path, kind: str, ids: IntArray, owner: IntArray, count: int | None) -> None:
    most = 2**31 - 1 if count is None else count
    wrong = np.flatnonzero((ids < 1) | (ids > most))
    if len(wrong):
        at = wrong[0]
        where = f"{path}: {kind} id {ids[at]}" + (f" of user {owner[at]}" if kind == "item" else "")
        raise DataError(f"{where} is out of range", f"ids of this format are 1..{most}, as count.txt says")


def read(path: Path, *, target: str | None = None, name: str | None = None) -> MultiBehaviorDataset:
    """Read a folder of dictionary files; see `mbgraph.data.formats.pairs.read` for parameters and errors."""
    users, items = read_count(path)
    found = {file.name.removesuffix(_SUFFIX): file for file in sorted(path.glob(f"*{_SUFFIX}"))}
    left_out = {f"{stem}{_SUFFIX}": "derived from the others" for stem in ("all", "train") if found.pop(stem, None)}
    held_out = split_files(path, f"{{}}{_SUFFIX}")
    for file in held_out.values():
        del found[file.name.removesuffix(_SUFFIX)]
    target = find_target(path, found, target)
    edges = {behavior: read_part(file, users=users, items=items) for behavior, file in found.items()}
    splits = {split: read_part(file, users=users, items=items) for split, file in held_out.items()}
    files = ["count.txt", *(file.name for file in (*found.values(), *held_out.values()))]
    return assemble(
        Origin(path, "dicts", 1, files, left_out), edges, target, splits, name=name, users=users, items=items
    )
