"""The dataset: train edges per behavior as one DGL heterograph, held-out target pairs, ids both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.interactions import CSR, Pairs, Vocabulary
from mbgraph.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import dgl

__all__ = ["SPLITS", "MultiBehaviorDataset", "check_pairs"]

SPLITS = ("valid", "test")


def check_pairs(what: str, pairs: Pairs, num_users: int, num_items: int) -> None:
    """Raise `DataError` if a row number is negative or beyond its count."""
    if len(pairs.user) != len(pairs.item) or (pairs.time is not None and len(pairs.time) != len(pairs.user)):
        raise DataError(f"{what}: user, item and time have different lengths")
    for kind, rows, count in (("user", pairs.user, num_users), ("item", pairs.item, num_items)):
        if len(rows) == 0:
            continue
        low, high = int(rows.min()), int(rows.max())
        if low < 0:
            raise DataError(f"{what}: negative {kind} id {low}", "ids start at 0")
        if high >= count:
            raise DataError(f"{what}: {kind} id {high} is out of range", f"the dataset has {count} {kind}s (0..{count - 1})")


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
        If the target has no edges, a behavior has no edges, an id is out of range, a pair stands twice in a
        behavior, or a held-out pair is also a train pair of the target.
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
        if self.target not in self.edges:
            raise UnknownNameError("target behavior", self.target, self.edges)
        for split in self.splits:
            if split not in SPLITS:
                raise UnknownNameError("split", split, SPLITS)
        for behavior, pairs in self.edges.items():
            if len(pairs) == 0:
                role = "target behavior" if behavior == self.target else "behavior"
                raise DataError(f"{role} {behavior!r} of {self.name!r} has no edges", "leave it out or add train pairs")
        for what, pairs in (*self.edges.items(), *self.splits.items()):
            check_pairs(f"{what} of {self.name!r}", pairs, self.num_users, self.num_items)
            keys = np.sort(pairs.keys(self.num_items))
            if (keys[1:] == keys[:-1]).any():
                raise DataError(f"{what} of {self.name!r} holds duplicate pairs", "keep the earliest of each")
        train = self.edges[self.target].keys(self.num_items)
        for split, pairs in self.splits.items():
            shared = int(np.isin(pairs.keys(self.num_items), train).sum())
            if shared:
                raise DataError(
                    f"{shared} {split} pairs of {self.name!r} are also train pairs of {self.target!r}",
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

        All users and items are nodes, isolated ones included. Built on first use, then kept.
        """
        import torch

        from mbgraph._dgl import import_dgl

        return import_dgl().heterograph(
            {
                ("user", behavior, "item"): (torch.from_numpy(pairs.user), torch.from_numpy(pairs.item))
                for behavior, pairs in self.edges.items()
            },
            num_nodes_dict={"user": self.num_users, "item": self.num_items},
        )

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

    def replace(self, **changes: Any) -> MultiBehaviorDataset:
        """Return a copy with some fields changed; caches are not carried over."""
        return replace(self, **changes)
