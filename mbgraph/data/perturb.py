"""Noise on purpose: add and remove auxiliary edges by exact, nested, recorded amounts (paper Section 4.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mbgraph import __version__
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.keys import contains, union
from mbgraph.random import RNGLike, as_generator, stream
from mbgraph.typing import IntArray

__all__ = ["perturb"]

_SMALL = 1 << 22  # cells; up to here all cells are shuffled, above candidates are drawn and rejected
_BLOCK = 1 << 16  # candidates per draw; part of the random stream
_MOST = 2**63 - 1
_ROUND = 1 << 24  # candidates looked at together


def perturb(
    ds: MultiBehaviorDataset,
    add: int | float = 0.0,
    remove: int | float = 0.0,
    behaviors: str | Sequence[str] | None = None,
    allow_held_out: bool = False,
    rng: RNGLike = 0,
) -> MultiBehaviorDataset:
    """Return a copy of ``ds`` with noise in its auxiliary behaviors; ``ds`` stays as it is.

    Added pairs are uniform over users x items, new to their behavior, each once; they may be train pairs of
    the target but, unless allowed, never held-out pairs. Removed edges are uniform among the original ones,
    without replacement, so none of them was added and none comes back. The target behavior and the held-out
    pairs are never touched.

    Under one seed, amounts are nested: the edges added at 10 % are among those added at 30 %, and likewise
    for removal. Addition, removal and each behavior have their own random stream: none depends on the others.

    Parameters
    ----------
    ds : MultiBehaviorDataset
    add, remove : int or float
        Per behavior, a number of edges (int) or a share of its train edges (float, ``1.0`` is all of them;
        rounded to the nearest number, halves to even). ``add`` may exceed 1.0.
    behaviors : str or sequence of str, optional
        Auxiliary behaviors to perturb; all of them by default.
    allow_held_out : bool
        Whether added pairs may be valid or test pairs.
    rng : int or Generator
        A generator gives one seed, which the manifest records.

    Returns
    -------
    MultiBehaviorDataset
        Surviving edges in their old order, then the added ones (with times drawn from the behavior's own,
        where it has times). ``metadata["perturbation"]`` is the manifest: seed, amounts, counts per behavior,
        name and content hash of the source, version of mbgraph.

    Raises
    ------
    UsageError
        If an amount makes no sense, there is nothing to do, or the target behavior is to be perturbed.
    UnknownNameError
        If a behavior does not exist.
    DataError
        If a behavior would lose all its edges, or has fewer free pairs than are to be added.

    Examples
    --------
    >>> from mbgraph.data.synthetic import demo
    >>> noisy = perturb(demo(), add=0.3, remove=0.1)
    >>> noisy.counts["view"], noisy.metadata["perturbation"]["behaviors"]["view"]
    (48000, {'before': 40000, 'added': 12000, 'removed': 4000, 'after': 48000})
    """
    chosen = _chosen(ds, behaviors)
    add, remove = _amount("add", add), _amount("remove", remove)
    if add == 0 and remove == 0:
        raise UsageError("nothing to do: add and remove are both 0", "give one of them an amount, such as add=0.3")
    if isinstance(remove, float) and remove > 1:
        raise UsageError(f"cannot remove {remove} times the edges", "remove takes a share up to 1.0 or a whole number")
    seed = int(rng) if isinstance(rng, int | np.integer) and rng >= 0 else int(as_generator(rng).integers(2**32))

    plan = {behavior: _plan(behavior, len(ds.edges[behavior]), add, remove) for behavior in chosen}
    if not any(counts["added"] or counts["removed"] for counts in plan.values()):
        raise UsageError(f"nothing to do: add={add} and remove={remove} round to no edge", "give a larger amount")

    held_out = np.empty(0, np.int64)
    if not allow_held_out:
        held_out = union(held_out, *(pairs.keys(ds.num_items) for pairs in ds.splits.values()))
    edges = dict(ds.edges)
    for behavior, counts in plan.items():
        edges[behavior] = _perturbed(ds, behavior, counts["added"], counts["removed"], held_out, seed)
    source: dict[str, Any] = {"name": ds.name, "content_hash": ds.content_hash()}
    if "perturbation" in ds.metadata:
        source["perturbation"] = ds.metadata["perturbation"]
    manifest = {
        "seed": seed,
        "add": add,
        "remove": remove,
        "allow_held_out": allow_held_out,
        "behaviors": plan,
        "source": source,
        "mbgraph": __version__,
    }
    amounts = "".join(f"-{verb}{amount}" for verb, amount in (("add", add), ("remove", remove)) if amount)
    return ds.replace(name=ds.name + amounts, edges=edges, metadata={**ds.metadata, "perturbation": manifest})


def _chosen(ds: MultiBehaviorDataset, behaviors: str | Sequence[str] | None) -> tuple[str, ...]:
    if not ds.auxiliary:
        raise UsageError(f"{ds.name!r} has no auxiliary behavior", "there is nothing to perturb")
    if behaviors is None:
        return ds.auxiliary
    asked = [behaviors] if isinstance(behaviors, str) else list(behaviors)
    for behavior in asked:
        if behavior == ds.target:
            raise UsageError(
                f"{behavior!r} is the target behavior and is never perturbed",
                f"choose from: {', '.join(ds.auxiliary)}",
            )
        if behavior not in ds.auxiliary:
            raise UnknownNameError("auxiliary behavior", behavior, ds.auxiliary)
    if not asked:
        raise UsageError("nothing to do: no behavior chosen", f"choose from: {', '.join(ds.auxiliary)}")
    return tuple(behavior for behavior in ds.auxiliary if behavior in asked)


def _amount(verb: str, amount: int | float) -> int | float:
    number = isinstance(amount, int | float | np.number) and not isinstance(amount, bool)
    if not number or not 0 <= amount <= _MOST:  # NaN is in no order
        raise UsageError(f"{verb} must be a share such as 0.3 or a number of edges, not {str(amount)[:40]}")
    return int(amount) if isinstance(amount, int | np.integer) else float(amount)


def _plan(behavior: str, before: int, add: int | float, remove: int | float) -> dict[str, int]:
    added, removed = (n if isinstance(n, int) else round(n * before) for n in (add, remove))
    if removed >= before:
        raise DataError(
            f"removing {removed:,} of {before:,} edges would leave {behavior!r} empty", "remove fewer of them"
        )
    return {"before": before, "added": added, "removed": removed, "after": before + added - removed}


def _perturbed(
    ds: MultiBehaviorDataset, behavior: str, n_added: int, n_removed: int, held_out: IntArray, seed: int
) -> Pairs:
    pairs = ds.edges[behavior]
    keys = pairs.keys(ds.num_items)
    order = np.argsort(keys, kind="stable")
    keep = np.ones(len(pairs), bool)
    if n_removed:
        # positions in key order: the same edges go whatever the order of the file
        keep[order[stream(seed, "remove", behavior).permutation(len(pairs))[:n_removed]]] = False
    forbidden = keys[order] if len(held_out) == 0 else union(keys, held_out)
    cells = ds.num_users * ds.num_items
    if n_added > cells - len(forbidden):
        raise DataError(
            f"cannot add {n_added:,} pairs to {behavior!r}: only {cells - len(forbidden):,} are free",
            "add fewer pairs",
        )
    added = _free_cells(stream(seed, "add", behavior), n_added, cells, forbidden)
    time = None
    if pairs.time is not None:
        # drawn one number per pair, so that a longer list of added pairs starts with the same times
        drawn = (stream(seed, "time", behavior).random(n_added) * len(pairs)).astype(np.int64)
        time = np.concatenate((pairs.time[keep], pairs.time[order][drawn]))
    user, item = np.divmod(added, ds.num_items)
    return Pairs(np.concatenate((pairs.user[keep], user)), np.concatenate((pairs.item[keep], item)), time)


def _free_cells(rng: np.random.Generator, n: int, cells: int, forbidden: IntArray) -> IntArray:
    """Return the first ``n`` distinct cells of a fixed random sequence that are not forbidden: (n,).

    The sequence does not depend on ``n``, which makes the results nested. ``forbidden`` (F,) ascends. Memory
    goes with ``n`` and F, not with ``cells``.
    """
    if n == 0:
        return np.empty(0, np.int64)
    if cells <= _SMALL:
        is_free = np.ones(cells, bool)
        is_free[forbidden] = False
        shuffled = rng.permutation(cells)
        return shuffled[is_free[shuffled]][:n]
    taken = np.empty(0, np.int64)
    parts: list[IntArray] = []
    free = cells - len(forbidden)
    while len(taken) < n:
        expected = (n - len(taken)) * cells / (free - len(taken))
        blocks = math.ceil(min(expected * 1.02 + 64, _ROUND) / _BLOCK)
        drawn = np.concatenate([rng.integers(0, cells, _BLOCK) for _ in range(blocks)])
        new, first = np.unique(drawn, return_index=True)
        fresh = ~contains(new, forbidden) & ~contains(new, taken)
        new, first = new[fresh], first[fresh]
        parts.append(new[np.argsort(first)])  # back into the order of the sequence
        taken = np.sort(np.concatenate((taken, new)))
    return np.concatenate(parts)[:n]
