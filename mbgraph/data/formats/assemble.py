"""From the parts of a foreign format to a dataset: target, order of behaviors, sizes, duplicates, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mbgraph import limits
from mbgraph.data.aliases import canonical_behavior
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError, UnknownNameError, UsageError

__all__ = ["Origin", "assemble", "find_target", "in_order", "unique_pairs"]

_FUNNEL = ("view", "collect", "cart")


@dataclass
class Origin:
    """What is read, and what is told about it.

    Attributes
    ----------
    path : Path
    format : str
    first_id : int
        What ids count from in the files.
    files : list of str
        Names of the files that were read.
    left_out : dict of str to str
        Names of the files that were not, with the reason.
    notes : dict of str to str
        Further facts, by part.
    """

    path: Path
    format: str
    first_id: int = 0
    files: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def find_target(path: Path, behaviors: Iterable[str], target: str | None) -> str:
    """Return the behavior to predict: the one asked for, or the only one with a name such as buy or purchase.

    Raises
    ------
    DataError
        If there is no behavior at all.
    UnknownNameError
        If the one asked for does not exist.
    UsageError
        If none was asked for and it cannot be guessed.
    """
    names = list(behaviors)
    if not names:
        raise DataError(f"{path} holds no behavior", "give the folder with the files of all behaviors")
    if target is not None:
        if target not in names:
            raise UnknownNameError("target behavior", target, names)
        return target
    guesses = [name for name in names if canonical_behavior(name) == "buy"]
    if len(guesses) != 1:
        raise UsageError(f"{path}: which behavior is the target?", f"name it (--target): {', '.join(names)}")
    return guesses[0]


def in_order(behaviors: Iterable[str], target: str) -> list[str]:
    """Return behaviors in the order views, collects, carts, others by name, target: folders have none of their own."""

    def place(name: str) -> tuple[bool, int, str]:
        canonical = canonical_behavior(name)
        return name == target, _FUNNEL.index(canonical) if canonical in _FUNNEL else len(_FUNNEL), name

    return sorted(behaviors, key=place)


def unique_pairs(pairs: Pairs, num_items: int) -> tuple[Pairs, int]:
    """Return the first occurrence of every pair, in order, and the number of those left out."""
    keys = pairs.keys(num_items)
    if (keys[1:] > keys[:-1]).all():
        return pairs, 0
    _, first = np.unique(keys, return_index=True)
    if len(first) == len(keys):
        return pairs, 0
    return pairs[np.sort(first)], len(keys) - len(first)


def assemble(
    source: Origin,
    edges: Mapping[str, Pairs],
    target: str,
    splits: Mapping[str, Pairs],
    *,
    name: str | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Make a dataset whose row numbers are the files' ids; duplicates are left out and counted.

    Parameters
    ----------
    source : Origin
    edges, splits : mapping of str to Pairs
        Train pairs by behavior and held-out pairs by split, as they stand in the files.
    target : str
    name : str, optional
        By default the folder's.
    users, items : int, optional
        Numbers of them; by default the largest id plus one.

    Raises
    ------
    DataError
        If the parts make no dataset; see `MultiBehaviorDataset`.
    """
    limits.check("behaviors", len(edges), source.path)
    parts = {**edges, **splits}
    sizes = {}
    for kind, given in (("user", users), ("item", items)):
        found = max((int(getattr(part, kind).max()) + 1 for part in parts.values() if len(part)), default=0)
        sizes[kind] = found if given is None else given
        limits.check(f"{kind}s", sizes[kind], source.path)
    distinct, repeated = {}, {}
    for part, pairs in parts.items():
        distinct[part], count = unique_pairs(pairs, sizes["item"])
        if count:
            repeated[part] = count
    facts = {
        "name": source.format,
        "files": sorted(source.files),
        "first_id": source.first_id,
        "duplicates": repeated,
        "left_out": source.left_out,
    }
    if source.notes:
        facts["notes"] = source.notes
    try:
        return MultiBehaviorDataset(
            name or source.path.resolve().name,
            Vocabulary(size=sizes["user"], kind="user"),
            Vocabulary(size=sizes["item"], kind="item"),
            {behavior: distinct[behavior] for behavior in in_order(edges, target)},
            target,
            {split: distinct[split] for split in ("valid", "test") if split in splits},
            {"format": facts},
        )
    except DataError as error:
        raise DataError(f"{source.path}: {error.message}", error.remedy) from error
