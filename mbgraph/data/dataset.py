"""The dataset: train edges per behavior as one DGL heterograph, held-out target pairs, ids both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.interactions import CSR, Pairs, Vocabulary, check_times
from mbgraph.errors import DataError, UnknownNameError
from mbgraph.keys import contains

if TYPE_CHECKING:
    import dgl

__all__ = ["SPLITS", "MultiBehaviorDataset", "check_behavior_name", "check_pairs"]

SPLITS = ("valid", "test")


_MAX_CELLS = np.iinfo(np.int64).max


def check_pairs(what: str, pairs: Pairs, num_users: int, num_items: int) -> None:
    """Raise `DataError` if a row number is negative or beyond its count, a time is none, or a pair stands twice."""
    for kind, rows, count in (("user", pairs.user, num_users), ("item", pairs.item, num_items)):
        if len(rows) == 0:
            continue
        low, high = int(rows.min()), int(rows.max())
        if low < 0:
            raise DataError(f"{what}: negative {kind} id {low}", "ids start at 0")
        if high >= count:
            raise DataError(
                f"{what}: {kind} id {high} is out of range", f"the dataset has {count} {kind}s (0..{count - 1})"
            )
    if pairs.time is not None:
        check_times(what, pairs.time)
    keys = pairs.keys(num_items)
    if (keys[1:] > keys[:-1]).all():  # most files are sorted: no need to do it again
        return
    keys = np.sort(keys)
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        user, item = divmod(int(keys[twice[0]]), num_items)
        raise DataError(
            f"{what}: {len(twice)} duplicate pairs, the first is user {user} and item {item}",
            "keep the earliest of each",
        )


def check_behavior_name(name: Any) -> str:
    """Return a behavior name that can be an edge type and a file name; raises `DataError` otherwise."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{name!r} is no behavior name", "behaviors are named by text, such as view or buy")
    if name in SPLITS:
        raise DataError(f"a behavior cannot be called {name!r}, which is a split", "rename it")
    return name


@dataclass(frozen=True, eq=False)
class MultiBehaviorDataset:
    """Everything a model may learn from, and what it is judged on.

    Parameters
    ----------
    name : str
        What outputs call the data.
    users, items : Vocabulary
        Original ids by row number. Their lengths are the numbers of users and items; users and items without any
        edge count too.
    edges : mapping of str to Pairs
        Distinct train pairs per behavior, in the order of ``behaviors``.
    target : str
        The behavior to predict.
    splits : mapping of str to Pairs
        Held-out target pairs under ``"valid"`` and ``"test"``; either may be missing.
    metadata : mapping
        Provenance: source, how the split came to be, perturbation manifests.

    Raises
    ------
    DataError
        If the target has no edges, a behavior has no edges or the name of a split, an id is out of range, a pair
        stands twice in a behavior, or a held-out pair is also a train pair of the target.
    UnknownNameError
        If ``target`` is not one of the behaviors or a split is not ``valid`` or ``test``.
    """

    name: str
    users: Vocabulary
    items: Vocabulary
    edges: Mapping[str, Pairs]
    target: str
    splits: Mapping[str, Pairs] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for mapping in ("edges", "splits", "metadata"):
            # copies: a caller's dict that changes later must not change a dataset that was checked
            object.__setattr__(self, mapping, dict(getattr(self, mapping)))
        for behavior in self.edges:
            check_behavior_name(behavior)
        if self.target not in self.edges:
            raise UnknownNameError("target behavior", self.target, self.edges)
        for split in self.splits:
            if split not in SPLITS:
                raise UnknownNameError("split", split, SPLITS)
        if self.num_users * self.num_items > _MAX_CELLS:
            raise DataError(
                f"{self.num_users:,} users x {self.num_items:,} items are too many for one dataset",
                "number users and items from 0 without gaps",
            )
        for behavior, pairs in self.edges.items():
            if len(pairs) == 0:
                role = "target behavior" if behavior == self.target else "behavior"
                raise DataError(f"{role} {behavior!r} of {self.name!r} has no edges", "leave it out or add train pairs")
        for what, pairs in (*self.edges.items(), *self.splits.items()):
            check_pairs(f"{what} of {self.name!r}", pairs, self.num_users, self.num_items)
        self._check_held_out()

    def _check_held_out(self) -> None:
        if not any(len(pairs) for pairs in self.splits.values()):
            return
        train = np.sort(self.edges[self.target].keys(self.num_items))
        for split, pairs in self.splits.items():
            shared = np.flatnonzero(contains(pairs.keys(self.num_items), train))
            if len(shared):
                user, item = pairs.user[shared[0]], pairs.item[shared[0]]
                raise DataError(
                    f"{len(shared)} {split} pairs of {self.name!r} are also train pairs of {self.target!r}, "
                    f"the first is user {user} and item {item}",
                    "a held-out pair must not be trained on",
                )

    @property
    def num_users(self) -> int:
        """Number of users, those without edges included."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """Number of items, those without edges included."""
        return len(self.items)

    @property
    def behaviors(self) -> tuple[str, ...]:
        """All behaviors, in the order of the source."""
        return tuple(self.edges)

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """All behaviors but the target."""
        return tuple(behavior for behavior in self.edges if behavior != self.target)

    @property
    def valid(self) -> Pairs:
        """Held-out target pairs for model selection; empty when the dataset has none."""
        return self.splits.get("valid", Pairs.empty())

    @property
    def test(self) -> Pairs:
        """Held-out target pairs for the final figures; empty when the dataset has none."""
        return self.splits.get("test", Pairs.empty())

    @property
    def counts(self) -> dict[str, int]:
        """Number of train pairs per behavior and of held-out pairs per split."""
        return {name: len(pairs) for name, pairs in (*self.edges.items(), *self.splits.items())}

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={count:,}" for name, count in self.counts.items())
        return f"MultiBehaviorDataset({self.name!r}, {self.num_users:,} users, {self.num_items:,} items, {counts})"

    @cached_property
    def graph(self) -> dgl.DGLGraph:
        """DGL heterograph with one edge type per behavior, ``('user', behavior, 'item')``, train edges only.

        All users and items are nodes, isolated ones included. Edges of behaviors with times carry them as ``time``.
        Built on first use, then kept. Its attribute ``behaviors`` is the order of the behaviors, which DGL itself does
        not keep.
        """
        import torch

        from mbgraph._dgl import import_dgl

        graph = import_dgl().heterograph(
            {
                ("user", behavior, "item"): tuple(
                    # torch wants memory it may write to
                    torch.from_numpy(np.require(rows, requirements="W"))
                    for rows in (pairs.user, pairs.item)
                )
                for behavior, pairs in self.edges.items()
            },
            num_nodes_dict={"user": self.num_users, "item": self.num_items},
        )
        times = {}
        for behavior, pairs in self.edges.items():
            if pairs.time is not None:  # torch has no unsigned numbers of 64 bits to sort
                time = pairs.time.astype(np.int64) if pairs.time.dtype.kind == "u" else pairs.time
                times["user", behavior, "item"] = torch.from_numpy(np.require(time, requirements="W"))
        if times:
            graph.edata["time"] = times if len(self.edges) > 1 else next(iter(times.values()))
        graph.behaviors = self.behaviors  # DGL sorts edge types by name; models read the behaviors in this order
        return graph

    @cached_property
    def _csr(self) -> dict[str, CSR]:
        return {}

    def csr(self, name: str) -> CSR:
        """Return the pairs of a behavior or split grouped by user; computed once."""
        if name not in self._csr:
            if name not in self.edges and name not in SPLITS:
                raise UnknownNameError("behavior", name, (*self.edges, *SPLITS))
            pairs = self.edges[name] if name in self.edges else self.splits.get(name, Pairs.empty())
            self._csr[name] = pairs.csr(self.num_users)
        return self._csr[name]

    def content_hash(self) -> str:
        """Return a SHA-256 over counts, target and all pairs, independent of their order and of the name."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items} {self.target}".encode())
        for name in sorted((*self.edges, *self.splits)):
            pairs = self.edges[name] if name in self.edges else self.splits[name]
            digest.update(f" {name} {len(pairs)} ".encode())
            digest.update(np.sort(pairs.keys(self.num_items)).astype("<i8").tobytes())
        return digest.hexdigest()

    def ids_hash(self) -> str:
        """Return a SHA-256 over the original ids of users and items in the order of their rows."""
        digest = hashlib.sha256()
        for vocabulary in (self.users, self.items):
            digest.update(f"{vocabulary.kind} {len(vocabulary)} ".encode())
            if vocabulary.is_identity:
                continue
            if vocabulary.ids.dtype.kind == "i":
                digest.update(b"int " + vocabulary.ids.astype("<i8").tobytes())
                continue
            ids = vocabulary.ids.tolist()
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))  # so that no two lists join to one text
            digest.update(b"str " + lengths.astype("<i8").tobytes())
            digest.update("".join(ids).encode(errors="surrogatepass"))
        return digest.hexdigest()

    def replace(self, **changes: Any) -> MultiBehaviorDataset:
        """Return a copy with some fields changed; caches are not carried over."""
        return replace(self, **changes)
