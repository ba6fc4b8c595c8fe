"""Planted preferences: factors with a known answer, and exact sampling of pairs from them at any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mbgraph.keys import contains, union
from mbgraph.random import stream
from mbgraph.typing import IntArray

__all__ = ["Planted", "align", "allocate", "plant", "sample_pairs"]

_CHUNK = 8192  # users drawn together; part of the random streams, so changing it changes every dataset
_ROUNDS = 24  # of rejection before the few users left are drawn from their complete distribution


@dataclass(frozen=True, eq=False)
class Planted:
    """The truth behind a generated dataset: a user draws a factor, the factor draws an item.

    Attributes
    ----------
    user : float64 array (U, F)
        Share of each factor in a user's taste; rows sum to 1.
    item : float64 array (I, F)
        Probability of each item under a factor; columns sum to 1.
    popularity : float64 array (I,)
        Zipf popularity, sums to 1. It is also the expected share of the items over all users' preferences.
    activity : float64 array (U,)
        Relative number of events of a user, sums to 1.
    """

    user: NDArray[np.float64]
    item: NDArray[np.float64]
    popularity: NDArray[np.float64]
    activity: NDArray[np.float64]

    def scores(self, users: IntArray | None = None) -> NDArray[np.float64]:
        """Return the probability of every item for each user: ``(B,) -> (B, I)``, rows sum to 1."""
        return (self.user if users is None else self.user[users]) @ self.item.T


def plant(
    seed: int,
    num_users: int,
    num_items: int,
    num_factors: int,
    skew: float,
    taste: float,
    spread: float,
    activity: float,
) -> Planted:
    """Draw factors whose expected item popularity is exactly Zipf.

    Users are Dirichlet around the mass of each factor, with total concentration ``taste``; an item spreads
    its popularity over the factors by a Dirichlet of total concentration ``spread``. Since a factor's mass is
    the sum of what its items give it, the popularity expected over users is the Zipf law itself.
    """
    rng = stream(seed, "factors")
    popularity = np.arange(1, num_items + 1, dtype=np.float64) ** -skew
    popularity = rng.permutation(popularity / popularity.sum())
    shares = _dirichlet(rng, np.full(num_factors, spread / num_factors), num_items)
    mass = popularity[:, None] * shares
    prior = mass.sum(axis=0) + 1e-12
    user = _dirichlet(rng, taste * prior / prior.sum(), num_users)
    item = (mass + 1e-12 * popularity[:, None]) / (mass + 1e-12 * popularity[:, None]).sum(axis=0)
    events = np.exp(activity * rng.standard_normal(num_users))
    return Planted(user, item, popularity, events / events.sum())


def _dirichlet(rng: np.random.Generator, alpha: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return Dirichlet rows (size, F); written out because tiny concentrations underflow in numpy's own."""
    draws = rng.standard_gamma(np.broadcast_to(alpha, (size, len(alpha)))) + 1e-12
    return draws / draws.sum(axis=1, keepdims=True)


def allocate(
    seed: int,
    name: str,
    total: int,
    weights: NDArray[np.float64],
    least: int | IntArray,
    most: int | IntArray,
) -> IntArray:
    """Spread ``total`` over rows: at least ``least``, at most ``most`` each, the rest by ``weights``; exact.

    The caller has checked that ``least.sum() <= total <= most.sum()``. Shapes: (U,) -> (U,).
    """
    rng = stream(seed, "allocate", name)
    counts = np.zeros(len(weights), np.int64) + least
    top = np.broadcast_to(np.asarray(most, np.int64), counts.shape)
    cumulative = np.cumsum(weights)
    for _ in range(64):
        short = total - int(counts.sum())
        if short == 0:
            return counts
        drawn = np.searchsorted(cumulative, rng.random(short) * cumulative[-1], side="right")
        counts = np.minimum(counts + np.bincount(np.minimum(drawn, len(counts) - 1), minlength=len(counts)), top)
    room = top - counts  # nearly full: give the rest away in row order
    before = np.cumsum(room) - room
    return counts + np.clip(total - int(counts.sum()) - before, 0, room)


def align(seed: int, total: int, bars: Mapping[str, float], dt: float) -> dict[str, NDArray[np.bool_]]:
    """Choose which of ``total`` target pairs each auxiliary behavior has, BAR and DT exact to rounding.

    Of the pairs that are no direct targets each behavior takes its share, as nearly independently of the
    behaviors before it as leaves no pair uncovered at the end.

    Shapes: {behavior: bool (total,)}.
    """
    rng = stream(seed, "alignment")
    wanted = {name: round(bar * total) for name, bar in bars.items()}
    direct = min(max(round(dt * total), total - sum(wanted.values()), 0), total - max(wanted.values(), default=0))
    covered = rng.permutation(total)[direct:]
    seen = np.zeros(total, bool)
    marks = {}
    later = sum(wanted.values())
    for name, n in wanted.items():
        later -= n
        new, old = covered[~seen[covered]], covered[seen[covered]]
        fair = round(n * len(new) / len(covered)) if len(covered) else 0
        fresh = min(max(fair, len(new) - later, n - len(old), 0), n, len(new))
        mark = np.zeros(total, bool)
        mark[rng.permutation(new)[:fresh]] = True
        mark[rng.permutation(old)[: n - fresh]] = True
        marks[name] = mark
        seen |= mark
    return marks


Draw = Callable[[IntArray, np.random.Generator], IntArray]


def sample_pairs(
    seed: int, name: str, counts: IntArray, planted: Planted, exclude: IntArray, by_popularity: bool = False
) -> IntArray:
    """Draw ``counts[u]`` distinct items per user without replacement, none of them among ``exclude``.

    Items come from the user's planted preference, or from popularity alone. Rejected draws are drawn again,
    which is successive sampling without replacement; users whose taste is nearly exhausted are finished from
    their complete distribution. Memory is that of a few thousand users at a time, never users x items.

    Parameters
    ----------
    seed, name : int, str
        The random stream.
    counts : int64 array (U,)
        At most the number of items that are left for the user.
    planted : Planted
    exclude : int64 array (E,)
        Ascending keys ``user * I + item``.
    by_popularity : bool
        Draw noise instead of preference.

    Returns
    -------
    int64 array (counts.sum(),)
        Ascending keys ``user * I + item``.
    """
    num_items = len(planted.popularity)
    draw = _popularity_draw(planted) if by_popularity else _preference_draw(planted)
    parts = []
    for start in range(0, len(counts), _CHUNK):
        stop = min(start + _CHUNK, len(counts))
        rng = stream(seed, "pairs", name, start)
        low, high = np.searchsorted(exclude, [start * num_items, stop * num_items])
        taken = exclude[low:high]
        have = np.empty(0, np.int64)
        need = counts[start:stop].copy()
        for _ in range(_ROUNDS):
            if not need.any():
                break
            users = np.repeat(np.arange(start, stop, dtype=np.int64), need)
            keys = union(users * num_items + draw(users, rng))
            keys = keys[~contains(keys, taken) & ~contains(keys, have)]
            have = np.sort(np.concatenate((have, keys)))
            need -= np.bincount(keys // num_items - start, minlength=stop - start)
        rest = [have]
        for user in (np.flatnonzero(need) + start).tolist():
            gone = np.concatenate((_row(taken, user, num_items), _row(have, user, num_items)))
            weights = planted.popularity if by_popularity else planted.scores(np.array([user]))[0]
            rest.append(user * num_items + _finish(rng, weights, gone, int(need[user - start])))
        parts.append(np.sort(np.concatenate(rest)))
    return np.concatenate(parts)


def _row(sorted_keys: IntArray, user: int, num_items: int) -> IntArray:
    low, high = np.searchsorted(sorted_keys, [user * num_items, (user + 1) * num_items])
    return sorted_keys[low:high] % num_items


def _finish(rng: np.random.Generator, weights: NDArray[np.float64], gone: IntArray, n: int) -> IntArray:
    """Draw ``n`` items without replacement by weight (Efraimidis and Spirakis, 2006): (I,) -> (n,)."""
    order = -np.log1p(-rng.random(len(weights))) / (weights + 1e-15)
    order[gone] = np.inf
    return np.argpartition(order, n - 1)[:n].astype(np.int64)


def _rowwise(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return all rows' cumulative probabilities, ascending: row r spans (r, r + 1]. (R, C) -> (R * C,)."""
    cumulative = np.cumsum(probabilities, axis=1)
    cumulative /= cumulative[:, -1:]
    return (cumulative + np.arange(len(cumulative))[:, None]).ravel()


def _pick(flat: NDArray[np.float64], rows: IntArray, columns: int, rng: np.random.Generator) -> IntArray:
    """Draw one column per entry of ``rows`` by one binary search over all rows. (N,) -> (N,)."""
    found = np.searchsorted(flat, rows + rng.random(len(rows)), side="right") - rows * columns
    return np.clip(found, 0, columns - 1)


def _preference_draw(planted: Planted) -> Draw:
    num_items, num_factors = planted.item.shape
    items = _rowwise(planted.item.T)

    def draw(users: IntArray, rng: np.random.Generator) -> IntArray:
        first = int(users[0])
        tastes = _rowwise(planted.user[first : int(users[-1]) + 1])
        factors = _pick(tastes, users - first, num_factors, rng)
        return _pick(items, factors, num_items, rng)

    return draw


def _popularity_draw(planted: Planted) -> Draw:
    items = _rowwise(planted.popularity[None])

    def draw(users: IntArray, rng: np.random.Generator) -> IntArray:
        return _pick(items, np.zeros_like(users), len(planted.popularity), rng)

    return draw
