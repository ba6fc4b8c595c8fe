r"""Evidence of like users: whether those who touched the item and are like this user bought it.

Users are embedded by a randomised singular value decomposition of the union of all behaviors,
:math:`D_U^{-1/2} A D_I^{-1/2} \approx U \Sigma V^\top`, their rows of :math:`U \Sigma` set to length 1, and
:math:`k(u, v) = \max(0, e_u \cdot e_v)^2`. Over users :math:`v \ne u` of the item, drawn once,
:math:`\mathrm{den} = \sum_v k(u, v)` and :math:`\mathrm{num}` the same over those who bought it.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from mbgraph import _kernels
from mbgraph.keys import contains, runs
from mbgraph.models.twostage.candidates import Candidates
from mbgraph.models.twostage.evidence import EVIDENCE, Evidence
from mbgraph.models.twostage.facts import Facts, Setting
from mbgraph.random import stream
from mbgraph.typing import FloatArray, IntArray

__all__ = ["KernelConversion", "likeness", "user_directions"]

_SMOOTHING, _PRIOR, _LEAST = 10.0, 2.0, 0.1
_ITERATIONS, _SPARE = 4, 10
_LENGTH = 1e-6  # below it a row is rounding, and its direction chance


def user_directions(facts: Facts, width: int, seed: int) -> FloatArray:
    """Return what users are like as rows of length 1, zeros for those without a pair: float32 (U, D)."""
    union = facts.relations.union().replace(norm="sym")
    width = min(width, union.num_users, union.num_items)
    wide = min(width + _SPARE, union.num_users, union.num_items)
    drawn = stream(seed, "kernel", "directions").standard_normal((union.num_users, wide))
    # the randomised range finder of Halko, Martinsson and Tropp (SIAM Review 2011) with power iterations, on the side
    # of the items: U S is the matrix times its right singular vectors, whatever their signs
    basis = torch.linalg.qr(union.propagate(torch.from_numpy(drawn).float(), "item"))[0]  # (I, D + 10)
    for _ in range(_ITERATIONS):
        image = torch.linalg.qr(union.propagate(basis, "user"))[0]  # (U, D + 10)
        basis = torch.linalg.qr(union.propagate(image, "item"))[0]
    image = union.propagate(basis, "user").double()
    turned = torch.linalg.eigh(image.T @ image).eigenvectors.flip(1)  # largest singular values first
    rows = (image @ turned[:, :width]).numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > _LENGTH, rows / np.maximum(length, _LENGTH), 0.0).astype(np.float32)


def likeness(
    directions: FloatArray, pool: tuple[IntArray, IntArray], bought: np.ndarray, users: IntArray, items: IntArray
) -> FloatArray:
    """Return sums of k between each pair's user and the item's others: all of the pool, and those who bought.

    Parameters
    ----------
    directions : float32 array (U, D)
    pool : users of every item
        int64 (I + 1,), int64 (N,).
    bought : bool array (N,)
        Who of them bought the item.
    users, items : int64 array (P,)

    Returns
    -------
    float64 array (P, 2)
    """
    if _kernels.available:
        return _kernels.add_likeness(directions, pool, bought, users, items, torch.get_num_threads())
    first, members = pool
    sums = np.zeros((len(users), 2))
    rows = torch.from_numpy(directions)
    counted = torch.from_numpy(np.stack([np.ones(len(members)), bought], 1).astype(np.float32))  # (N, 2)
    order = np.argsort(items, kind="stable")
    bounds = np.flatnonzero(np.diff(items[order], prepend=-1, append=-1))
    for low, high in itertools.pairwise(bounds.tolist()):
        own = order[low:high]
        near = slice(first[items[own[0]]], first[items[own[0]] + 1])
        # torch's threads sleep between small products, those of numpy's library spin against the others
        alike = (rows[users[own]] @ rows[members[near]].T).relu_().square_()  # (n, V)
        alike[torch.from_numpy(users[own, None] == members[near])] = 0.0
        sums[own] = alike @ counted[near]
    return sums


@EVIDENCE.register("kernel")
class KernelConversion(Evidence):
    """Conversion of an item among users who are alike."""

    name = "kernel"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        options = facts.options
        self.directions = user_directions(facts, options.kernel_dim, facts.seed)
        keys = facts.touched_or_bought
        users, items = np.divmod(keys, np.int64(facts.num_items))
        order = np.lexsort((stream(facts.seed, "kernel", "users").random(len(keys)), items))
        order = order[runs(items[order]) < options.kernel_users]
        self.pool = users[order]
        self.pool_bought = contains(keys[order], facts.bought)
        self.pool_of = np.concatenate([[0], np.bincount(items[order], minlength=facts.num_items).cumsum()])
        share = len(facts.bought) / max(1, len(keys))
        count = np.bincount(items, minlength=facts.num_items)
        self.prior = (facts.users_of(facts.setting.target) + _SMOOTHING * share) / (count + _SMOOTHING)  # (I,)

    @classmethod
    def columns(cls, setting: Setting) -> tuple[str, ...]:
        """See `Evidence.columns`."""
        return (f"{setting.target} among like users", f"like users who did {setting.target}", "like users of the item")

    def measure(self, pairs: Candidates) -> FloatArray:
        """See `Evidence.measure`."""
        pool = (self.pool_of, self.pool)
        sums = likeness(self.directions, pool, self.pool_bought, pairs.users, pairs.items)  # (P, 2)
        all_, done = sums.T
        prior = _PRIOR * self.prior[pairs.items]
        rate = np.log(np.maximum((done + prior) / (all_ + _PRIOR), 1e-12))
        return np.stack([rate, np.log(done + _LEAST), np.log(all_ + _LEAST)], 1)
