"""The data of a study: where it is found, what stands in for it on a fresh machine, and what is done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

from mbgraph.data.aliases import canonical_behavior
from mbgraph.data.cards import cards, find_card
from mbgraph.data.catalog import find_dataset, list_datasets, load_dataset
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.perturb import perturb
from mbgraph.data.synthetic import Auxiliary, SyntheticConfig, generate
from mbgraph.errors import UnknownNameError, UsageError

__all__ = ["STAND_INS", "Facts", "Recipe", "choose_datasets", "facts_of", "known_dataset", "made", "source"]

STAND_INS = ("demo-low", "demo-high")
"""Generated datasets that a study runs on where none of its own is found: auxiliary behaviors that agree little with
the target, as on TMall, and much, as on Beibei."""

_SHAPES = {
    "demo-low": ({"view": Auxiliary(40_000, 0.30, 0.6), "cart": Auxiliary(6_000, 0.05, 0.6)}, 0.67),
    "demo-high": ({"view": Auxiliary(40_000, 0.95, 0.2), "cart": Auxiliary(16_000, 0.85, 0.1)}, 0.05),
}


@dataclass(frozen=True)
class Recipe:
    """What is done to a dataset before its split is arranged.

    Attributes
    ----------
    source : str
        Name or path.
    drop : tuple of str
        Behaviors to leave out, by their common names.
    add, remove : float
        Noise, see `mbgraph.data.perturb.perturb`.
    behaviors : tuple of str
        Behaviors with noise, by their common names; empty: all auxiliary ones.
    seed : int
        Seed of the noise.
    """

    source: str
    drop: tuple[str, ...] = ()
    add: float = 0.0
    remove: float = 0.0
    behaviors: tuple[str, ...] = ()
    seed: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the data stay as they are."""
        return not (self.drop or self.add or self.remove)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without the source's name, so that the same data under two names is one thing."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()} | {
            "source": None
        }


@dataclass(frozen=True)
class Facts:
    """What a study asks about a dataset.

    Attributes
    ----------
    name : str
    content_hash : str
    behaviors, auxiliary : tuple of str
    synthetic : bool
    as_published : bool
        Whether the content is that of the card of this name, so that published figures may stand beside it.
    """

    name: str
    content_hash: str
    behaviors: tuple[str, ...]
    auxiliary: tuple[str, ...]
    synthetic: bool
    as_published: bool


def known_dataset(name: str) -> None:
    """Raise `UnknownNameError` or `UsageError` if a study names a dataset that nobody knows."""
    if name in STAND_INS or name == "demo" or find_card(name) is not None:
        return
    if any(separator in name for separator in "/\\"):
        find_dataset(name)
        return
    names = [entry["name"] for entry in list_datasets()]
    if name not in names:
        raise UnknownNameError("dataset", name, [*names, *cards(), *STAND_INS])


def is_found(name: str) -> bool:
    """Return whether a dataset can be loaded here."""
    if name in STAND_INS or name == "demo":
        return True
    try:
        find_dataset(name)
    except UsageError:
        return False
    return True


def choose_datasets(datasets: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return those datasets that are here, or the stand-ins if there is none, and a line for each that is missing."""
    here = tuple(name for name in datasets if is_found(name))
    notes = []
    for name in datasets:
        if name not in here:
            card = find_card(name)
            can = card is not None and card.sources and all(file.is_verifiable for file in card.sources)
            how = f"get it with: mbgraph data download {name}" if can else f"see: mbgraph data show {name}"
            notes.append(f"{name} is not on disk; {how}")
    if not here:
        notes.append(f"none of the study's datasets is here: {', '.join(STAND_INS)} stand in, which are synthetic")
    return here or STAND_INS, notes


@lru_cache(maxsize=1)
def source(name: str) -> MultiBehaviorDataset:
    """Load or generate a dataset; the last one is kept."""
    if name in _SHAPES:
        auxiliary, dt = _SHAPES[name]
        return generate(SyntheticConfig(auxiliary=auxiliary, dt=dt), rng=2026, name=name)
    return load_dataset(name)


@cache
def facts_of(name: str) -> Facts:
    """Return the facts of a dataset, read once per process."""
    dataset = source(name)
    digest, card = dataset.content_hash(), find_card(name)
    return Facts(
        name=name,
        content_hash=digest,
        behaviors=dataset.behaviors,
        auxiliary=dataset.auxiliary,
        synthetic=bool(dataset.metadata.get("synthetic")),
        as_published=card is not None and card.content_hash in (None, digest),
    )


def made(recipe: Recipe) -> MultiBehaviorDataset:
    """Return the data of a recipe.

    Raises
    ------
    UsageError
        If no auxiliary behavior is left, or the target is to be dropped.
    """
    dataset = source(recipe.source)
    if recipe.drop:
        gone = {name for name in dataset.behaviors if canonical_behavior(name) in recipe.drop}
        if dataset.target in gone:
            raise UsageError(f"{dataset.target!r} is the target of {dataset.name!r}", "drop auxiliary behaviors")
        edges = {name: pairs for name, pairs in dataset.edges.items() if name not in gone}
        dataset = dataset.replace(name=f"{dataset.name}-without-{'-'.join(sorted(gone))}", edges=edges)
    if recipe.add or recipe.remove:
        behaviors = [name for name in dataset.auxiliary if canonical_behavior(name) in recipe.behaviors] or None
        dataset = perturb(dataset, recipe.add, recipe.remove, behaviors, rng=recipe.seed)
    return dataset
