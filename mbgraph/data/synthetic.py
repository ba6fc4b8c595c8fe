"""Synthetic multi-behavior data whose truth is known: set alignment, set noise, set popularity, any size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.data.planted import Planted, align, allocate, plant, sample_pairs
from mbgraph.errors import DataError, UsageError
from mbgraph.keys import runs
from mbgraph.random import RNGLike, as_generator, stream
from mbgraph.typing import IntArray

__all__ = ["Auxiliary", "SyntheticConfig", "demo", "generate", "planted"]

_START = 1_500_000_000  # seconds since 1970 of the first event
_DAY = 86_400


@dataclass(frozen=True)
class Auxiliary:
    """What one auxiliary behavior should look like."""

    edges: int
    """Number of train pairs, exact."""

    bar: float
    """Behavior alignment rate (paper Eq. 12): share of all target pairs, held-out ones included, that this
    behavior has too; exact to rounding."""

    noise: float = 0.2
    """Share of the pairs that are not target pairs which follow popularity instead of the user's taste; exact
    to rounding."""


def _default_auxiliary() -> Mapping[str, Auxiliary]:
    return {"view": Auxiliary(40_000, bar=0.55, noise=0.3), "cart": Auxiliary(12_000, bar=0.35, noise=0.1)}


@dataclass(frozen=True)
class SyntheticConfig:
    """What a generated dataset should look like. The defaults are those of `demo`.

    Raises
    ------
    UsageError
        If the values contradict each other, for example a DT outside
        ``max(0, 1 - sum(BAR)) <= DT <= 1 - max(BAR)``.
    """

    num_users: int = 2_000
    """Number of users."""

    num_items: int = 1_000
    """Number of items."""

    target: str = "buy"
    """Name of the target behavior; it comes last."""

    auxiliary: Mapping[str, Auxiliary] = field(default_factory=_default_auxiliary)
    """Auxiliary behaviors in the order in which a user goes through them: views precede carts."""

    pairs_per_user: float = 6.0
    """Mean number of target pairs per user, held-out ones included; the total is exact to rounding."""

    dt: float | None = 0.35
    """Share of direct targets (paper Eq. 12): target pairs in no auxiliary behavior; exact to rounding.
    None: as if the behaviors were independent, the product of ``1 - BAR``."""

    num_factors: int = 30
    """Number of planted factors."""

    taste: float = 0.6
    """Concentration of the users' factor shares: low: most users have one taste, high: they look alike."""

    spread: float = 0.3
    """Concentration of the items' factor shares: below 1 most items belong to one factor."""

    popularity_skew: float = 0.5
    """Zipf exponent s of item popularity, ``rank ** -s``; 0 makes all items alike."""

    activity_skew: float = 0.5
    """Standard deviation of the logarithm of the users' activity; 0 makes all users alike."""

    held_out: bool = True
    """Hold each user's last target pair out as test and the one before as valid. Every user then has at least
    three target pairs, so that one or more stay in train."""

    times: bool = True
    """Give every pair a time in seconds. A pair's auxiliary events precede its purchase."""

    days: int = 60
    """Span of the purchases."""

    string_ids: bool = True
    """Ids like ``u0001`` and ``i0001``; otherwise row numbers."""

    def __post_init__(self) -> None:
        for name in ("num_users", "num_items", "num_factors", "days"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        for name in ("taste", "spread", "pairs_per_user"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name} must be positive, not {getattr(self, name)!r}")
        for name in ("popularity_skew", "activity_skew"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)!r}")
        if self.target in self.auxiliary:
            raise UsageError(f"{self.target!r} is the target and an auxiliary behavior", "give it another name")
        self._check_alignment()
        least = 3 if self.held_out else 1
        if self.num_pairs < least * self.num_users:
            raise UsageError(
                f"pairs_per_user must be at least {least}, not {self.pairs_per_user}",
                "a held-out user keeps a train pair" if self.held_out else None,
            )
        if (
            max((self.num_pairs, *(spec.edges for spec in self.auxiliary.values()))) * 2
            > self.num_users * self.num_items
        ):
            raise UsageError("a behavior would fill more than half of users x items", "ask for fewer edges")

    def _check_alignment(self) -> None:
        for name, spec in self.auxiliary.items():
            if not (0 <= spec.bar <= 1 and 0 <= spec.noise <= 1):
                raise UsageError(f"bar and noise of {name!r} must lie between 0 and 1")
            if spec.edges < max(1, round(spec.bar * self.num_pairs)):
                raise UsageError(
                    f"{spec.edges} edges of {name!r} cannot hold {spec.bar} of {self.num_pairs} target pairs",
                    "raise edges or lower bar",
                )
        bars = [spec.bar for spec in self.auxiliary.values()]
        low, high = max(0.0, 1 - sum(bars)), 1 - max(bars, default=0.0)
        if self.dt is not None and not low - 1e-9 <= self.dt <= high + 1e-9:
            raise UsageError(
                f"a DT of {self.dt} contradicts the BARs {bars}",
                f"choose a DT between {low:.4g} and {high:.4g}",
            )

    @property
    def behaviors(self) -> tuple[str, ...]:
        """All behaviors, the target last."""
        return (*self.auxiliary, self.target)

    @property
    def num_pairs(self) -> int:
        """Number of target pairs, train, valid and test together."""
        return round(self.pairs_per_user * self.num_users)

    @classmethod
    def scaled(cls, num_edges: int, **changes: Any) -> SyntheticConfig:
        """Return the configuration of a graph with ``num_edges`` pairs in all, for work on speed.

        About 100 pairs per user, three users per item, 75 % views, 15 % carts, 10 % buys. ``changes``
        override single fields.
        """
        views, carts = num_edges * 3 // 4, num_edges * 3 // 20
        users = max(30, num_edges // 100)
        values = {
            "num_users": users,
            "num_items": max(300, users // 3),
            "pairs_per_user": (num_edges - views - carts) / users,
            "auxiliary": {"view": Auxiliary(views, 0.6, 0.3), "cart": Auxiliary(carts, 0.35, 0.1)},
            "num_factors": 32,
            "string_ids": False,
            "times": False,
        }
        return cls(**{**values, **changes})


def generate(config: SyntheticConfig, rng: RNGLike = 0, name: str = "synthetic") -> MultiBehaviorDataset:
    """Generate a dataset to measure.

    Users and items have planted factors (see `mbgraph.data.planted`); target pairs follow them. Target pairs
    are given auxiliary edges so that BAR and DT come out as asked; the other auxiliary edges follow the same
    taste, a set share of them popularity alone. Everything is a function of the configuration and the seed.

    Parameters
    ----------
    config : SyntheticConfig
    rng : int or Generator
        A generator gives one seed, which ``metadata["seed"]`` records.
    name : str
        Name of the dataset.

    Returns
    -------
    MultiBehaviorDataset
        ``metadata`` holds ``synthetic`` (True), ``config``, ``seed`` and ``planted``: per auxiliary behavior
        the number of edges on target pairs, by preference and by noise.

    Raises
    ------
    DataError
        If more edges are asked for than there are free pairs.
    """
    seed = int(rng) if isinstance(rng, int | np.integer) and rng >= 0 else int(as_generator(rng).integers(2**32))
    truth = _plant(config, seed)
    num_items = config.num_items
    least, half = (3 if config.held_out else 1), max(num_items // 2, 1)
    _check_room(config.target, config.num_pairs, least, half, config.num_users)
    counts = allocate(seed, config.target, config.num_pairs, truth.activity, least, half)
    keys = sample_pairs(seed, config.target, counts, truth, np.empty(0, np.int64))

    clock = stream(seed, "times")
    times = _START + clock.integers(0, config.days * _DAY, len(keys))
    order = np.lexsort((times, keys // num_items))
    keys, times = keys[order], times[order]
    times += 60 * runs(keys // num_items)  # strictly ascending inside a user: the last purchase is one purchase
    dt = config.dt if config.dt is not None else math.prod(1 - spec.bar for spec in config.auxiliary.values())
    marks = align(seed, len(keys), {name: spec.bar for name, spec in config.auxiliary.items()}, dt)

    edges, report = {}, {}
    sorted_keys = np.sort(keys)
    for place, (behavior, spec) in enumerate(config.auxiliary.items()):
        on_target = np.flatnonzero(marks[behavior])
        other = spec.edges - len(on_target)
        noise = round(spec.noise * other)
        _check_room(behavior, other, 0, half, config.num_users)
        free = np.minimum(half, num_items - counts)
        by_taste = allocate(seed, behavior, other - noise, truth.activity, 0, free)
        preferred = sample_pairs(seed, behavior, by_taste, truth, sorted_keys)
        by_noise = allocate(seed, f"{behavior} noise", noise, truth.activity, 0, free - by_taste)
        gone = np.sort(np.concatenate((sorted_keys, preferred)))
        noisy = sample_pairs(seed, f"{behavior} noise", by_noise, truth, gone, by_popularity=True)
        # a target pair's steps go view, cart, buy: each auxiliary owns its own stretch of the two days before
        step = 2 * _DAY // len(config.auxiliary)
        lead = (len(config.auxiliary) - 1 - place) * step
        before = times[on_target] - lead - clock.integers(1, step, len(on_target))
        browsing = _START + clock.integers(0, config.days * _DAY, other)
        edges[behavior] = _pairs(
            np.concatenate((keys[on_target], preferred, noisy)), np.concatenate((before, browsing)), config
        )
        report[behavior] = {"on_target": len(on_target), "preference": other - noise, "noise": noise}

    splits = {}
    if config.held_out:
        from_end = np.repeat(counts, counts) - runs(keys // num_items) - 1
        splits = {
            split: _pairs(keys[from_end == place], times[from_end == place], config)
            for split, place in (("valid", 1), ("test", 0))
        }
        keys, times = keys[from_end > 1], times[from_end > 1]
    edges[config.target] = _pairs(keys, times, config)
    metadata = {"synthetic": True, "seed": seed, "config": dataclasses.asdict(config), "planted": report}
    users, items = (_vocabulary(kind, config) for kind in ("user", "item"))
    return MultiBehaviorDataset(name, users, items, edges, config.target, splits, metadata)


def planted(ds: MultiBehaviorDataset) -> Planted:
    """Return the truth behind a generated dataset, rebuilt from its metadata.

    ``planted(ds).scores(users)`` is the best any model could know: the probability of every item.

    Raises
    ------
    DataError
        If the dataset was not generated here.
    """
    if not ds.metadata.get("synthetic") or "config" not in ds.metadata:
        raise DataError(f"{ds.name!r} has no planted truth", "only generated datasets have")
    values = dict(ds.metadata["config"])
    values["auxiliary"] = {name: Auxiliary(**spec) for name, spec in values["auxiliary"].items()}
    return _plant(SyntheticConfig(**values), int(ds.metadata["seed"]))


def demo() -> MultiBehaviorDataset:
    """Return the embedded demo data: 2,000 users, 1,000 items, 40,000 views, 12,000 carts, 12,000 buys.

    The same pairs on every machine (a test pins their hash). As in a real shop most purchases were seen
    before (BAR view 0.55, cart 0.35), 35 % come out of the blue, and part of the views follows fashion, not
    taste. Each user's last purchase is the test pair, the one before the validation pair.

    How much there is to learn, as test HR@10 over all items but the bought ones: popularity about 0.07, the
    planted truth itself (`planted`) about 0.37; no model that scores taste alone can beat the latter by much.
    """
    return generate(SyntheticConfig(), rng=2026, name="demo")


def _plant(config: SyntheticConfig, seed: int) -> Planted:
    return plant(
        seed,
        config.num_users,
        config.num_items,
        config.num_factors,
        skew=config.popularity_skew,
        taste=config.taste,
        spread=config.spread,
        activity=config.activity_skew,
    )


def _check_room(behavior: str, total: int, least: int, most: int, num_users: int) -> None:
    if not least * num_users <= total <= most * num_users or least > most:
        raise DataError(
            f"{total} pairs of {behavior!r} do not fit {num_users} users", "ask for fewer pairs or more items"
        )


def _pairs(keys: IntArray, times: IntArray, config: SyntheticConfig) -> Pairs:
    """Return the pairs ordered by user, then time (or item), as a log grouped by user would be."""
    user, item = np.divmod(keys, config.num_items)
    order = np.lexsort((item, times, user)) if config.times else np.argsort(keys)
    return Pairs(user[order], item[order], times[order] if config.times else None)


def _vocabulary(kind: str, config: SyntheticConfig) -> Vocabulary:
    size = config.num_users if kind == "user" else config.num_items
    if not config.string_ids:
        return Vocabulary(size=size, kind=kind)
    width = max(4, len(str(size)))
    return Vocabulary([f"{kind[0]}{row:0{width}d}" for row in range(1, size + 1)], kind=kind)
