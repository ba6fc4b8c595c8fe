r"""The conditional logit: a softmax over each user's lists, linear in the evidence.

With rows x of pairs and weights w per list, :math:`P(i \mid u) = e^{w \cdot x_{ui}} / \sum_{j} e^{w \cdot x_{uj}}` over
both lists of u. Minimised is the mean of :math:`-\log P` over labels plus :math:`\lambda \lVert w \rVert^2`, which is
convex: Newton's method with step halving. With :math:`m_u = \sum_i P(i \mid u)\, x_{ui}` and :math:`k_u` labels of u,

.. math:: \nabla = \tfrac1n \big(\sum_u k_u m_u - \sum_{label} x\big) + 2 \lambda w, \qquad
    H = \tfrac1n \sum_u k_u \big(\sum_i P(i \mid u)\, x_{ui} x_{ui}^\top - m_u m_u^\top\big) + 2 \lambda I.

Standard errors are the square roots of the diagonal of :math:`(n H)^{-1}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from mbgraph.errors import RunError
from mbgraph.typing import FloatArray, IntArray

__all__ = ["Choices", "Fitted", "fit", "log_shares", "loss"]

_STEPS = 100
_TOLERANCE = 1e-12  # of the decrease that the next step promises
_ROWS = 2**17  # of a block of users whose rows are in float64 at a time


@dataclass(frozen=True)
class Choices:
    """Lists of users and what they chose.

    Attributes
    ----------
    owner : sequence of int64 array (P_l,)
        Per list the user of each pair, ascending, from 0 to n - 1.
    rows : sequence of float array (P_l, F_l)
        Per list what the weights see.
    chosen : sequence of float array (P_l,)
        Per list how many labels each pair is.
    count : int
        Number of users.
    """

    owner: Sequence[IntArray]
    rows: Sequence[FloatArray]
    chosen: Sequence[FloatArray]
    count: int

    @property
    def labels(self) -> FloatArray:
        """Number of labels of every user: (n,)."""
        parts = zip(self.owner, self.chosen, strict=True)
        return np.sum([np.bincount(owner, chosen, self.count) for owner, chosen in parts], 0)

    @property
    def width(self) -> int:
        """Number of weights of all lists together."""
        return sum(rows.shape[1] for rows in self.rows)

    def of(self, users: np.ndarray) -> Choices:
        """Return the lists of some users: bool (n,)."""
        number = np.cumsum(users) - 1
        kept = [users[owner] for owner in self.owner]
        return Choices(
            [number[owner[keep]] for owner, keep in zip(self.owner, kept, strict=True)],
            [rows[keep] for rows, keep in zip(self.rows, kept, strict=True)],
            [chosen[keep] for chosen, keep in zip(self.chosen, kept, strict=True)],
            int(users.sum()),
        )

    def blocks(self) -> Iterator[tuple[slice, list[slice]]]:
        """Yield blocks of users and where their pairs stand in each list."""
        total = np.sum([np.bincount(owner, minlength=self.count) for owner in self.owner], 0).cumsum()
        start = 0
        while start < self.count:
            before = total[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(total, before + _ROWS, "right")))
            yield (
                slice(start, stop),
                [slice(*np.searchsorted(owner, [start, stop])) for owner in self.owner],
            )
            start = stop

    def split(self, weights: FloatArray) -> list[FloatArray]:
        """Return the weights of each list: (F,) -> (F_l,) each."""
        return np.split(weights, np.cumsum([rows.shape[1] for rows in self.rows])[:-1])


@dataclass(frozen=True)
class Fitted:
    """What a fit came to.

    Attributes
    ----------
    weights, errors : float64 array (F,)
        Weights of all lists, one after the other, and their standard errors, the penalty counted as knowledge.
    loss : float
        Mean of ``-log P`` over labels, without the penalty.
    steps : int
    """

    weights: FloatArray
    errors: FloatArray
    loss: float
    steps: int


def log_shares(owner: Sequence[IntArray], scores: Sequence[FloatArray], count: int) -> list[FloatArray]:
    """Return the logarithm of each pair's share of its user's softmax over all lists: (P_l,) each -> (P_l,) each."""
    highest = np.full(count, -np.inf)
    for users, values in zip(owner, scores, strict=True):
        np.maximum.at(highest, users, values)
    sums = np.zeros(count)
    for users, values in zip(owner, scores, strict=True):
        sums += np.bincount(users, np.exp(values - highest[users]), count)
    with np.errstate(divide="ignore"):  # a user without a pair has no share to take a logarithm of
        total = highest + np.log(sums)
    return [values - total[users] for users, values in zip(owner, scores, strict=True)]


def loss(choices: Choices, weights: FloatArray, l2: float) -> float:
    """Return the mean of ``-log P`` over labels plus the penalty."""
    return _sums(choices, weights, derive=False)[0] + l2 * float(weights @ weights)


def fit(choices: Choices, l2: float, start: FloatArray | None = None) -> Fitted:
    """Minimise the loss.

    Parameters
    ----------
    choices : Choices
        Each user has a label.
    l2 : float
        Above 0, so that collinear columns share a weight and constant ones have none.
    start : float64 array (F,), optional
        Weights to begin with, 0 by default; the end is the same.

    Raises
    ------
    RunError
        If a row is not finite, or Newton's method does not come to an end.
    """
    if not all(np.isfinite(rows).all() for rows in choices.rows):
        raise RunError("evidence is not finite", "leave out one kind after the other with --set evidence=..")
    weights = np.zeros(choices.width) if start is None else start
    value = loss(choices, weights, l2)
    for step in range(1, _STEPS + 1):
        _, gradient, hessian = _sums(choices, weights)
        gradient = gradient + 2 * l2 * weights
        hessian = hessian + 2 * l2 * np.eye(choices.width)
        move = np.linalg.solve(hessian, gradient)
        promised = float(gradient @ move) / 2
        size = 1.0
        while promised > _TOLERANCE and size > 1e-8:
            tried = loss(choices, weights - size * move, l2)
            if tried < value:
                break
            size /= 2
        else:
            labels = float(choices.labels.sum())
            errors = np.sqrt(np.diag(np.linalg.inv(labels * hessian)))
            return Fitted(weights, errors, value - l2 * float(weights @ weights), step)
        weights, value = weights - size * move, tried
    raise RunError(f"the weights still move after {_STEPS} steps", "raise --set l2=..")


def _sums(choices: Choices, weights: FloatArray, derive: bool = True) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean loss, its gradient (F,) and its Hessian (F, F), the penalty left out."""
    own = choices.split(weights)
    value, gradient = 0.0, np.zeros(choices.width)
    hessian = np.zeros((choices.width, choices.width))
    labels = choices.labels
    for users, places in choices.blocks():
        owner = [numbers[place] - users.start for numbers, place in zip(choices.owner, places, strict=True)]
        rows = [rows[place].astype(np.float64) for rows, place in zip(choices.rows, places, strict=True)]
        chosen = [values[place] for values, place in zip(choices.chosen, places, strict=True)]
        count = users.stop - users.start
        logs = log_shares(owner, [x @ w for x, w in zip(rows, own, strict=True)], count)
        value -= sum(float(times[times > 0] @ log[times > 0]) for times, log in zip(chosen, logs, strict=True))
        if not derive:
            continue
        times = labels[users]  # (B,)
        means = []
        first = 0
        for numbers, x, log, picked in zip(owner, rows, logs, chosen, strict=True):
            share = np.exp(log)
            bounds = np.searchsorted(numbers, np.arange(count + 1))
            mean = sparse.csr_array((share, np.arange(len(share)), bounds), shape=(count, len(share))) @ x
            means.append(mean)
            part = slice(first, first + x.shape[1])
            gradient[part] += times @ mean - picked @ x
            hessian[part, part] += _product(x * (share * times[numbers])[:, None], x)
            first = part.stop
        mean = np.concatenate(means, 1)  # (B, F)
        hessian -= _product(mean * times[:, None], mean)
    total = max(1.0, float(labels.sum()))
    return value / total, gradient / total, hessian / total


def _product(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return ``one.T @ other`` by torch, whose threads do not spin against those of the compiled loops."""
    made: FloatArray = (torch.from_numpy(one).T @ torch.from_numpy(other)).numpy()
    return made
