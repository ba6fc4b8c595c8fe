"""What is odd about a dataset before anybody trains on it: findings with stable codes.

docs/checks.md has a paragraph per code. A check looks at the raw parts, so that data which `read_npz` refuses
(duplicates, ids out of range, overlapping splits) is described and not only refused.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbgraph.data.alignment import alignment
from mbgraph.data.cards import Card, find_card
from mbgraph.data.dataset import SPLITS, MultiBehaviorDataset
from mbgraph.data.formats.archive import read_arrays
from mbgraph.data.formats.npz import is_npz, read_meta
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.splits import split_within_ties
from mbgraph.errors import DataError
from mbgraph.keys import contains, runs, union
from mbgraph.typing import IntArray

__all__ = ["CODES", "SEVERITIES", "Finding", "behaviors_within_target", "check"]

SEVERITIES = ("error", "warning", "note")

CODES: Mapping[str, tuple[str, str]] = {
    "MBG100": ("error", "cannot be read"),
    "MBG101": ("error", "counts differ from the card"),
    "MBG102": ("error", "content differs from the card"),
    "MBG103": ("error", "alignment differs from the card"),
    "MBG104": ("error", "counts differ from the paper's tables"),
    "MBG105": ("error", "pairs stand twice"),
    "MBG106": ("error", "ids beyond the counts"),
    "MBG107": ("error", "splits overlap"),
    "MBG108": ("error", "validation equals test"),
    "MBG109": ("warning", "two parts hold the same pairs"),
    "MBG110": ("note", "a behavior lies within another"),
    "MBG111": ("warning", "held-out pairs are visible in an auxiliary behavior"),
    "MBG112": ("warning", "users are evaluated without a train target pair"),
    "MBG113": ("note", "users are in no split"),
    "MBG114": ("note", "held-out items nobody bought in train"),
    "MBG115": ("warning", "pairs are sorted by item"),
    "MBG116": ("note", "there are no times"),
    "MBG117": ("warning", "auxiliary pairs later than the held-out ones"),
    "MBG118": ("warning", "held-out pairs earlier than train pairs"),
    "MBG119": ("warning", "a behavior has hardly any pairs"),
    "MBG120": ("note", "users with several held-out pairs"),
    "MBG121": ("note", "there is no validation or test part"),
    "MBG122": ("warning", "a behavior holds target pairs only"),
    "MBG123": ("warning", "pairs of the same moment on both sides of the split"),
}
"""Severity and title of every code."""

_VISIBLE = 0.05  # a smaller share of visible pairs hardly moves a result
_SORTED = 0.95
_FEW = 0.1  # pairs per user
_ROUNDING = 5e-5
_BLOCK = 1 << 12  # pairs


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset.

    Attributes
    ----------
    code : str
        Stable, ``MBG1xx``.
    text : str
        What was found, with counts and an example, on one line.
    """

    code: str
    text: str

    @property
    def severity(self) -> str:
        """``error``: the data is not what it says; ``warning``: results need care; ``note``: good to know."""
        return CODES[self.code][0]

    @property
    def title(self) -> str:
        """The code in a few words."""
        return CODES[self.code][1]

    @property
    def docs(self) -> str:
        """Where the code is explained."""
        return f"docs/checks.md#{self.code.lower()}"


@dataclass(frozen=True)
class _Raw:
    """Parts as they lie on disk, nothing refused."""

    name: str
    users: int
    items: int
    target: str
    edges: Mapping[str, Pairs]
    splits: Mapping[str, Pairs]

    @property
    def parts(self) -> dict[str, Pairs]:
        return {**self.edges, **self.splits}

    @property
    def auxiliary(self) -> list[str]:
        return [behavior for behavior in self.edges if behavior != self.target]

    def keys(self, part: str) -> IntArray:
        """Return the distinct pairs of a part as sorted keys."""
        return np.unique(self.parts[part].keys(self.items))


def check(source: MultiBehaviorDataset | str | os.PathLike[str], card: Card | None = None) -> list[Finding]:
    """Look a dataset over.

    Parameters
    ----------
    source : MultiBehaviorDataset or path
        A folder in any known format; one in the npz layout is looked at part by part, whatever is wrong with it.
    card : Card, optional
        What to compare with; by default the card that has the dataset's name.

    Returns
    -------
    list of Finding
        Errors first, then by code.
    """
    try:
        raw = _from_dataset(source) if isinstance(source, MultiBehaviorDataset) else _from_path(Path(source))
    except DataError as error:
        return [Finding("MBG100", str(error))]
    card = find_card(raw.name) if card is None else card
    broken = list(_broken(raw))
    clean = _inside(raw)
    findings = [*broken, *_contents(clean), *_times(clean)]
    if card is not None:
        findings += _against(card, raw, clean, whole=not broken)
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.code))


def _from_dataset(ds: MultiBehaviorDataset) -> _Raw:
    return _Raw(ds.name, ds.num_users, ds.num_items, ds.target, ds.edges, ds.splits)


def _from_path(path: Path) -> _Raw:
    if not is_npz(path):
        from mbgraph.data.formats import read

        return _from_dataset(read(path))
    meta = read_meta(path)
    parts = {}
    for name in (*meta["behaviors"], *meta["splits"]):
        arrays = read_arrays(path / f"{name}.npz", ("user", "item"), ("time",), meta["counts"][name])
        parts[name] = Pairs(arrays["user"], arrays["item"], arrays.get("time"))
    edges = {name: parts[name] for name in meta["behaviors"]}
    splits = {name: parts[name] for name in meta["splits"]}
    return _Raw(meta["name"], meta["users"], meta["items"], meta["target"], edges, splits)


def _outside(raw: _Raw, pairs: Pairs) -> np.ndarray:
    return (pairs.user < 0) | (pairs.user >= raw.users) | (pairs.item < 0) | (pairs.item >= raw.items)


def _inside(raw: _Raw) -> _Raw:
    """Return the parts without pairs that no check could place."""
    edges = {name: pairs[~_outside(raw, pairs)] for name, pairs in raw.edges.items()}
    splits = {name: pairs[~_outside(raw, pairs)] for name, pairs in raw.splits.items()}
    return _Raw(raw.name, raw.users, raw.items, raw.target, edges, splits)


def _broken(raw: _Raw) -> Iterator[Finding]:
    """Yield what no dataset may have."""
    for name, pairs in raw.parts.items():
        outside = np.flatnonzero(_outside(raw, pairs))
        if len(outside):
            user, item = pairs.user[outside[0]], pairs.item[outside[0]]
            yield Finding(
                "MBG106",
                f"{len(outside):,} pairs of {name} have ids beyond {raw.users:,} users x {raw.items:,} items, "
                f"the first is user {user}, item {item}",
            )
    inside = _inside(raw)
    for name, pairs in inside.parts.items():
        keys, counts = np.unique(pairs.keys(raw.items), return_counts=True)
        if len(keys) < len(pairs):
            first = int(keys[counts > 1][0])
            yield Finding(
                "MBG105",
                f"{len(pairs) - len(keys):,} of {len(pairs):,} pairs of {name} are repeated, for example user "
                f"{first // raw.items}, item {first % raw.items}",
            )
    held = {"train": inside.keys(raw.target), **{split: inside.keys(split) for split in raw.splits}}
    for first_part, second in itertools.combinations([name for name in ("train", *SPLITS) if name in held], 2):
        shared = held[second][contains(held[second], held[first_part])]
        if {first_part, second} == set(SPLITS) and len(shared) and np.array_equal(held[first_part], held[second]):
            yield Finding("MBG108", f"valid and test are the same {len(shared):,} pairs: models are chosen on the test")
        elif len(shared):
            yield Finding(
                "MBG107",
                f"{len(shared):,} target pairs are in {first_part} and in {second}, for example user "
                f"{shared[0] // raw.items}, item {shared[0] % raw.items}",
            )


def _contents(raw: _Raw) -> Iterator[Finding]:
    keys = {name: raw.keys(name) for name in raw.parts}
    for one, other in itertools.permutations(raw.edges, 2):
        if not len(keys[one]) or not contains(keys[one], keys[other]).all():
            continue
        if len(keys[one]) < len(keys[other]):
            if other != raw.target:  # that is a finding of its own
                yield Finding("MBG110", f"all {len(keys[one]):,} pairs of {one} are {other} pairs too")
        elif one < other:
            yield Finding("MBG109", f"{one} and {other} hold the same {len(keys[one]):,} pairs")
    for name in _within_target(raw):
        yield Finding(
            "MBG122",
            f"all {len(keys[name]):,} pairs of {name} are {raw.target} pairs: a model can read the answer in it",
        )
    for split in raw.splits:
        found = {name: int(contains(keys[split], keys[name]).sum()) for name in raw.auxiliary}
        touched = union(*(keys[name] for name in raw.auxiliary)) if raw.auxiliary else np.empty(0, np.int64)
        any_of = int(contains(keys[split], touched).sum()) if len(touched) else 0
        if any_of > _VISIBLE * len(keys[split]):
            told = ", ".join(f"{name} {n / len(keys[split]):.1%}" for name, n in found.items())
            yield Finding(
                "MBG111",
                f"{any_of:,} of {len(keys[split]):,} {split} pairs ({any_of / len(keys[split]):.1%}) are train edges "
                f"of an auxiliary behavior of their user ({told})",
            )
    yield from _users_and_items(raw)
    for name, pairs in raw.edges.items():
        if len(pairs) < _FEW * raw.users:
            yield Finding("MBG119", f"{name} has {len(pairs):,} pairs, {len(pairs) / raw.users:.3f} per user")
    missing = [split for split in SPLITS if not len(raw.splits.get(split, ()))]
    if missing:
        yield Finding("MBG121", f"there is no {' and no '.join(missing)} part")


def _users_and_items(raw: _Raw) -> Iterator[Finding]:
    target = raw.edges[raw.target]
    trained, held_out = np.zeros(raw.users, bool), np.zeros(raw.users, bool)
    bought = np.zeros(raw.items, bool)
    trained[target.user], bought[target.item] = True, True
    for split, pairs in raw.splits.items():
        held_out[pairs.user] = True
        unseen = int((~bought[pairs.item]).sum())
        if unseen:
            share = unseen / len(pairs)
            yield Finding("MBG114", f"{unseen:,} {split} pairs ({share:.1%}) are of items without a train {raw.target}")
        users, counts = np.unique(pairs.user, return_counts=True)
        if (counts > 1).any():
            yield Finding(
                "MBG120",
                f"{int((counts > 1).sum()):,} of {len(users):,} users have several {split} pairs, up to "
                f"{counts.max()}: HR counts a user once",
            )
    cold = np.flatnonzero(held_out & ~trained)
    if len(cold):
        yield Finding(
            "MBG112", f"{len(cold):,} users with held-out pairs have no train {raw.target}, the first is {cold[0]}"
        )
    absent = np.flatnonzero(~held_out & ~trained)
    if len(absent):
        yield Finding("MBG113", f"{len(absent):,} users have no {raw.target} at all, the first is {absent[0]}")


def _times(raw: _Raw) -> Iterator[Finding]:
    timed = {name for name, pairs in raw.parts.items() if pairs.time is not None}
    if not timed:
        yield Finding("MBG116", "no part has times: nobody can tell what was known when")
    for name, pairs in raw.parts.items():
        if name in timed:
            continue
        share, users, chance = sorted_share(pairs)
        if users >= 20 and share > _SORTED and chance < 0.5:
            yield Finding(
                "MBG115",
                f"{name}: the items of {share:.1%} of {users:,} users with three or more pairs ascend (by chance "
                f"{chance:.1%}): the last one is the largest id, not the latest",
            )
    held = [pairs for split, pairs in raw.splits.items() if split in timed and len(pairs)]
    if not held:
        return
    of_target = [(0, raw.edges[raw.target]), *enumerate((raw.splits[split] for split in raw.splits), 1)]
    of_target = [(part, pairs) for part, pairs in of_target if pairs.time is not None]
    joined = Pairs(*(np.concatenate([getattr(p, k) for _, p in of_target]) for k in ("user", "item", "time")))
    part = np.repeat([part for part, _ in of_target], [len(p) for _, p in of_target])
    _, first_of = np.unique(joined.keys(raw.items), return_index=True)  # a pair in two parts is another finding
    tied = split_within_ties(joined[first_of], part[first_of])
    if len(tied):
        users = len(np.unique(np.concatenate([pairs.user for pairs in held])))
        yield Finding(
            "MBG123",
            f"{len(tied):,} of {users:,} users with held-out pairs have {raw.target} pairs of the same moment on both "
            f"sides of the split, the first is {tied[0]}: something else than time chose",
        )
    first = np.full(raw.users, np.inf)
    for pairs in held:
        assert pairs.time is not None
        np.minimum.at(first, pairs.user, pairs.time)
    for name, pairs in raw.edges.items():
        if pairs.time is None or not len(pairs):
            continue
        later = int((pairs.time > first[pairs.user]).sum())
        if later and name != raw.target:
            yield Finding(
                "MBG117", f"{later:,} of {len(pairs):,} {name} pairs are later than their user's first held-out pair"
            )
        elif later:
            yield Finding("MBG118", f"{later:,} train {name} pairs are later than their user's first held-out pair")


def behaviors_within_target(ds: MultiBehaviorDataset) -> list[str]:
    """Return the auxiliary behaviors of which every pair is a pair of the target, held-out ones among them.

    A model that sees such a behavior can read the answer in it: it was made of purchases, as an intersection of
    behaviors is.

    Examples
    --------
    >>> from mbgraph.data import load_dataset
    >>> behaviors_within_target(load_dataset("demo"))
    []
    """
    return _within_target(_from_dataset(ds))


def _within_target(raw: _Raw) -> list[str]:
    whole = union(*(raw.parts[part].keys(raw.items) for part in (raw.target, *raw.splits)))
    found = []
    for name in raw.auxiliary:
        pairs = raw.edges[name]
        # a block at a time: nearly always the first pairs tell that others are among them
        blocks = (pairs[start : start + _BLOCK].keys(raw.items) for start in range(0, len(pairs), _BLOCK))
        if len(pairs) and all(contains(keys, whole).all() for keys in blocks):
            found.append(name)
    return found


def sorted_share(pairs: Pairs) -> tuple[float, int, float]:
    """Return how many users' items ascend in file order.

    Returns
    -------
    share : float
        Of the users with three or more pairs, those whose items ascend.
    users : int
        Number of users with three or more pairs.
    chance : float
        The share to expect if the order were random, the mean of ``1 / n!``.
    """
    order = np.argsort(pairs.user, kind="stable")
    user, item = pairs.user[order], pairs.item[order]
    counts = np.bincount(user) if len(user) else np.zeros(0, np.int64)
    inner = runs(user) > 0
    descends = np.zeros(len(user), bool)
    descends[1:] = inner[1:] & (item[1:] <= item[:-1])
    unsorted = np.bincount(user[descends], minlength=len(counts)) > 0
    chosen = counts >= 3
    if not chosen.any():
        return 0.0, 0, 0.0
    chance = float(np.mean([1 / math.factorial(min(int(n), 20)) for n in counts[chosen]]))
    return float((~unsorted[chosen]).mean()), int(chosen.sum()), chance


def _against(card: Card, raw: _Raw, clean: _Raw, *, whole: bool) -> Iterator[Finding]:
    """Compare with a card, and with what the paper's Tables 1 and 5 print for it."""
    counts = {name: len(pairs) for name, pairs in raw.parts.items()}
    found = {"users": raw.users, "items": raw.items, **counts}
    expected = {"users": card.users, "items": card.items, **card.counts}
    if card.counts:
        wrong = [
            f"{name} {found.get(name, 0):,}, not {expected.get(name, 0):,}"
            for name in dict.fromkeys((*expected, *found))
            if found.get(name, 0) != expected.get(name, 0)
        ]
        if wrong:
            yield Finding("MBG101", f"against the card {card.name}: {'; '.join(wrong)}")
    table5 = {
        "purchase": sum(counts.get(name, 0) for name in (raw.target, *SPLITS)),
        "interactions": sum(counts.values()),
        **{name: counts[name] for name in raw.auxiliary},
    }
    wrong = [
        f"{name} {value:,}, not {int(card.paper[name]):,}"
        for name, value in table5.items()
        if name in card.paper and value != card.paper[name]
    ]
    if wrong:
        yield Finding("MBG104", f"against Table 5 of the paper: {'; '.join(wrong)}")
    if not whole:
        return
    users, items = Vocabulary(size=clean.users, kind="user"), Vocabulary(size=clean.items, kind="item")
    ds = MultiBehaviorDataset(raw.name, users, items, clean.edges, raw.target, clean.splits)
    rates = alignment(ds)
    pairs = {name: (rates.bar.get(name), card.bar[name]) for name in card.bar}
    if card.dt is not None:
        pairs["DT"] = (rates.dt, card.dt)
    off = [
        f"{name} {'missing' if mine is None else f'{mine:.4f}'}, not {theirs:.4f}"
        for name, (mine, theirs) in pairs.items()
        if mine is None or abs(mine - theirs) > _ROUNDING
    ]
    if off:
        yield Finding("MBG103", f"against the card {card.name}: {'; '.join(off)}")
    if card.content_hash is not None and ds.content_hash() != card.content_hash:
        yield Finding("MBG102", f"the pairs are not those of the card {card.name}, although a card has its name")
