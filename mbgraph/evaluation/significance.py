r"""Is one model better than another, or luck? Paired tests on the same users.

With :math:`d_u = b_u - a_u` the difference of a metric for user u, over n users:

- paired t: :math:`t = \bar d / (s_d / \sqrt n)` against Student's distribution with n - 1 degrees of freedom;
- Wilcoxon signed-rank: ranks of the non-zero differences; assumes no normal distribution;
- effect size: Cohen's :math:`d_z = \bar d / s_d`, and :math:`\bar d` itself with its 95 % interval;
- several metrics: p-values are corrected after Holm, which bounds the chance of any false finding.

The tests ask whether the difference would hold for other users of the same shop. They do not cover the luck of a seed:
for that, compare means of several runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.evaluation.per_user import PerUser
from mbgraph.typing import FloatArray

__all__ = ["Comparison", "compare", "compare_per_user", "holm", "paired_t", "wilcoxon"]


@dataclass(frozen=True)
class Comparison:
    """Two models on one metric; differences are the second minus the first.

    Attributes
    ----------
    users : int
    mean_a, mean_b, difference : float
    low, high : float
        95 % interval of the mean difference.
    effect : float
        Cohen's d_z; infinite where all users differ by the same amount.
    better, worse, same : int
        Users whose value rose, fell or stayed.
    t, t_p : float
        Paired t statistic and its two-sided p-value.
    wilcoxon, wilcoxon_p : float
        Signed-rank statistic and its two-sided p-value.
    t_holm, wilcoxon_holm : float
        The p-values after Holm's correction over all metrics compared together.
    """

    users: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    effect: float
    better: int
    worse: int
    same: int
    t: float
    t_p: float
    wilcoxon: float
    wilcoxon_p: float
    t_holm: float
    wilcoxon_holm: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def paired_t(differences: FloatArray) -> tuple[float, float]:
    """Return the t statistic and two-sided p-value of a zero mean. Shapes: (n,) -> (), ().

    No difference at all gives (0, 1); the same difference for everybody gives an infinite t and p = 0.
    """
    from scipy.stats import t as student

    mean, spread = differences.mean(), _spread(differences)
    if spread == 0:
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = float(mean / (spread / math.sqrt(len(differences))))
    return t, float(2 * student.sf(abs(t), len(differences) - 1))


def wilcoxon(differences: FloatArray) -> tuple[float, float]:
    """Return the signed-rank statistic and two-sided p-value; users without a difference drop out.

    Shapes: (n,) -> (), (). No difference at all gives (0, 1).
    """
    from scipy.stats import wilcoxon as signed_rank

    moved = differences[differences != 0]
    if len(moved) == 0:
        return 0.0, 1.0
    with warnings.catch_warnings():
        # older SciPy warns that the normal approximation is rough for few users; the interval says so too
        warnings.filterwarnings("ignore", message="Sample size too small")
        found = signed_rank(moved)
    return float(found.statistic), float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected after Holm (1979), in the order given.

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected.tolist()


def compare(
    a: FloatArray | Mapping[str, FloatArray], b: FloatArray | Mapping[str, FloatArray]
) -> dict[str, Comparison]:
    """Compare two models' values per user, metric by metric.

    Parameters
    ----------
    a, b : mapping of str to array (n,), or one array (n,)
        Values by metric; entry ``u`` of all arrays belongs to one user. A bare array is the metric ``"value"``.

    Returns
    -------
    dict of str to Comparison
        By metric, with Holm's correction over all of them.

    Raises
    ------
    UsageError
        If the arrays do not pair up, hold other than finite numbers, or fewer than two users.

    Examples
    --------
    >>> found = compare(np.array([0.0, 0.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0, 1.0]))["value"]
    >>> found.difference, found.better, found.same
    (0.5, 2, 2)
    """
    first = dict(a) if isinstance(a, Mapping) else {"value": a}
    second = dict(b) if isinstance(b, Mapping) else {"value": b}
    if set(first) != set(second):
        raise UsageError(f"the metrics differ: {sorted(first)} and {sorted(second)}", "give both the same")
    raw = {name: _tests(name, first[name], second[name]) for name in first}
    corrected = {key: holm([values[key] for values in raw.values()]) for key in ("t_p", "wilcoxon_p")}
    return {
        name: Comparison(**values, t_holm=corrected["t_p"][number], wilcoxon_holm=corrected["wilcoxon_p"][number])
        for number, (name, values) in enumerate(raw.items())
    }


def _tests(name: str, a: FloatArray, b: FloatArray) -> dict[str, Any]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or a.shape != b.shape:
        raise UsageError(f"{name}: values have shapes {a.shape} and {b.shape}", "give one value per user, same users")
    if len(a) < 2:
        raise UsageError(f"{name}: {len(a)} users are too few to compare", "evaluate at least two users")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UsageError(f"{name}: values are not all finite", "leave users without a value out of both")
    from scipy.stats import t as student

    d = b - a
    mean, spread = float(d.mean()), _spread(d)
    half = float(student.ppf(0.975, len(d) - 1)) * spread / math.sqrt(len(d))
    effect = mean / spread if spread else (math.copysign(math.inf, mean) if mean else 0.0)
    (t, t_p), (statistic, wilcoxon_p) = paired_t(d), wilcoxon(d)
    return {
        "users": len(d),
        "mean_a": float(a.mean()),
        "mean_b": float(b.mean()),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "effect": effect,
        "better": int((d > 0).sum()),
        "worse": int((d < 0).sum()),
        "same": int((d == 0).sum()),
        "t": t,
        "t_p": t_p,
        "wilcoxon": statistic,
        "wilcoxon_p": wilcoxon_p,
    }


def _spread(differences: FloatArray) -> float:
    """Return the sample standard deviation, exactly 0 where all differences are the same."""
    if (differences == differences[0]).all():
        return 0.0  # the mean of equal numbers is rounded, and so would be the deviation from it
    return float(differences.std(ddof=1))


def compare_per_user(
    a: PerUser, b: PerUser, metrics: Sequence[str] = (), *, force: bool = False
) -> dict[str, Comparison]:
    """Compare two saved results, aligned by original user id.

    Parameters
    ----------
    a, b : PerUser
    metrics : sequence of str, optional
        For example ``("HR@10", "NDCG@10")``; by default every metric that both hold.
    force : bool
        Compare although users differ; only users of both count then. Masks and ties never mix.

    Raises
    ------
    DataError
        If the results do not stand on the same split, mask, ties and users.
    UnknownNameError
        If a metric is not in both.
    """
    for what in ("split", "mask", "ties"):
        ours, theirs = getattr(a, what), getattr(b, what)
        if ours != theirs:
            raise DataError(f"the results differ in {what}: {ours!r} and {theirs!r}", "evaluate both runs the same way")
    _, rows_a, rows_b = np.intersect1d(
        a.user_id.astype(str), b.user_id.astype(str), assume_unique=True, return_indices=True
    )
    if not force and not len(rows_a) == len(a.user_id) == len(b.user_id):
        raise DataError(
            f"the results hold {len(a.user_id)} and {len(b.user_id)} users, {len(rows_a)} of them the same",
            "evaluate both runs on the same data, or force it to compare only those",
        )
    shared = [name for name in a.metrics if name in b.metrics]
    for name in metrics:
        if name not in shared:
            raise UnknownNameError("metric", name, shared)
    chosen = list(dict.fromkeys(metrics)) or shared
    if not chosen:
        raise DataError("the results share no metric", "evaluate both runs with the same cut-offs")
    return compare(
        {name: a.metrics[name][rows_a] for name in chosen}, {name: b.metrics[name][rows_b] for name in chosen}
    )
