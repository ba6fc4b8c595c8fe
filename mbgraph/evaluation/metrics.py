r"""Ranking metrics from ranks.

A user has :math:`G` held-out items with ranks :math:`r`; :math:`h_K` of them have :math:`r \le K`.

.. math::
    \mathrm{HR@K} = [h_K > 0], \quad \mathrm{Recall@K} = h_K / G, \quad \mathrm{Precision@K} = h_K / K, \\
    \mathrm{NDCG@K} = \frac{\sum_{r \le K} 1 / \log_2(r + 1)}{\sum_{r=1}^{\min(K, G)} 1 / \log_2(r + 1)}, \quad
    \mathrm{MRR@K} = [h_K > 0] / \min r, \quad
    \mathrm{MAP@K} = \frac{1}{\min(K, G)} \sum_{r \le K} \frac{|\{r' \le r\}|}{r}

With one held-out item HR equals Recall, and NDCG is :math:`1 / \log_2(r + 1)`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import numpy as np

from mbgraph.errors import UsageError
from mbgraph.typing import IntArray

__all__ = ["METRICS", "headline_metrics", "per_user_metrics", "usable_cutoffs"]

METRICS = ("HR", "NDCG", "Recall", "Precision", "MRR", "MAP")


def usable_cutoffs(cutoffs: Sequence[int], num_items: int) -> tuple[int, ...]:
    """Return distinct cut-offs in the order given, those beyond the catalogue cut to its size.

    Raises
    ------
    UsageError
        If one is not a whole number of at least 1, or there is none.
    """
    try:
        chosen = [operator.index(k) for k in cutoffs]
    except TypeError as error:
        raise UsageError(f"cut-offs must be whole numbers, got {cutoffs!r}", "give a list, as k=(10, 20)") from error
    for k in chosen:
        if k < 1:
            raise UsageError(f"a cut-off must be at least 1, got {k}", "give a list, as k=(10, 20)")
    if not chosen:
        raise UsageError("no cut-off K given", "give at least one, for example k=(10, 20)")
    return tuple(dict.fromkeys(min(k, num_items) for k in chosen))


def headline_metrics(names: Iterable[str]) -> list[str]:
    """Return those metrics that tables show, HR and NDCG at every cut-off that was used, by cut-off.

    Examples
    --------
    >>> headline_metrics(["HR@50", "NDCG@50", "MRR@50", "HR@5", "NDCG@5"])
    ['HR@5', 'NDCG@5', 'HR@50', 'NDCG@50']
    """
    parts = [name.partition("@") for name in names]
    chosen = [(int(cutoff), METRICS.index(kind), kind) for kind, _, cutoff in parts if kind in ("HR", "NDCG")]
    return [f"{kind}@{cutoff}" for cutoff, _, kind in sorted(set(chosen))]


def per_user_metrics(
    ranks: np.ndarray, owner: IntArray, num_owners: int, cutoffs: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return ``{"HR@10": (n,), ...}`` per user.

    Parameters
    ----------
    ranks : float array (N,)
        Rank of every held-out pair, 1 is best; halves are allowed.
    owner : int64 array (N,)
        Whose pair it is, 0..n-1; every owner has at least one pair.
    num_owners : int
    cutoffs : sequence of int
    """
    order = np.lexsort((ranks, owner))
    ranks, owner = ranks[order], owner[order]
    relevant = np.bincount(owner, minlength=num_owners)  # G, (n,)
    first = np.concatenate([[0], np.cumsum(relevant)[:-1]]).astype(np.int64)
    best = ranks[first] if len(ranks) else np.empty(0)
    found = np.arange(len(ranks)) - first[owner] + 1  # how many held-out items rank at least as high
    gain = 1.0 / np.log2(ranks + 1.0)
    values: dict[str, np.ndarray] = {}
    for k in cutoffs:
        hit = ranks <= k
        hits = np.bincount(owner, weights=hit, minlength=num_owners)
        ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
        capped = np.minimum(k, relevant)
        values[f"HR@{k}"] = (hits > 0).astype(np.float64)
        values[f"NDCG@{k}"] = np.bincount(owner, weights=gain * hit, minlength=num_owners) / ideal[capped - 1]
        values[f"Recall@{k}"] = hits / relevant
        values[f"Precision@{k}"] = hits / k
        values[f"MRR@{k}"] = np.where(best <= k, 1.0 / best, 0.0)
        values[f"MAP@{k}"] = np.bincount(owner, weights=hit * found / ranks, minlength=num_owners) / capped
    return values
