"""Does a claim hold? Decided by the cells, at the number of seeds that there are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mbgraph.bench.jobs import CLEAN
from mbgraph.bench.results import CellResult, Results
from mbgraph.bench.study import Claim

__all__ = ["HOLDS", "Verdict", "decide", "verdicts"]

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
_LEVEL = 0.95

Samples = Mapping[tuple[int, int | None], float]


@dataclass(frozen=True)
class Verdict:
    """A claim on a dataset.

    Attributes
    ----------
    claim : Claim
    dataset : str
    verdict : str
        ``holds``, ``does not hold``, or ``undecided`` at this number of seeds.
    evidence : tuple of str
        A line per pair: both figures, how many seeds, the interval of the difference; one line more for all pairs that
        were not run.
    """

    claim: Claim
    dataset: str
    verdict: str
    evidence: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "claim": self.claim.text,
            "place": self.claim.place,
            "dataset": self.dataset,
            "verdict": self.verdict,
            "evidence": list(self.evidence),
        }


def decide(better: Samples, worse: Samples, *, fixed: bool = False) -> tuple[str, float, float, float, int]:
    """Say whether the first of two rows has the larger mean.

    The difference is taken per seed where both rows have two seeds or more in common, between the two means otherwise
    (Welch); it holds if the 95 % interval of its mean lies above 0, does not hold if it lies below, and is undecided in
    between or with a single seed. Two rows that no seed enters are compared as they are.

    Parameters
    ----------
    better, worse : mapping of (seed, noise seed) to float
    fixed : bool
        Whether neither row depends on a seed.

    Returns
    -------
    verdict : str
    difference, low, high : float
        Mean difference and its interval, infinite where it cannot be told.
    n : int
        Differences, or runs of the smaller row.

    Examples
    --------
    >>> decide({(1, None): 0.5, (2, None): 0.52}, {(1, None): 0.3, (2, None): 0.32})[0]
    'holds'
    >>> decide({(1, None): 0.5}, {(1, None): 0.3})[0]
    'undecided'
    """
    shared = sorted(better.keys() & worse.keys(), key=str)
    difference = statistics.fmean(better.values()) - statistics.fmean(worse.values())
    if fixed:
        low = high = difference
        n = min(len(better), len(worse))
    elif len(shared) >= 2:
        each = [better[key] - worse[key] for key in shared]
        difference, n = statistics.fmean(each), len(each)
        low, high = _interval(difference, statistics.stdev(each) / math.sqrt(n), n - 1)
    else:
        n = min(len(better), len(worse))
        low, high = _welch(difference, list(better.values()), list(worse.values()))
    verdict = HOLDS if low > 0 else FAILS if high < 0 or (fixed and difference == 0) else UNDECIDED
    return verdict, difference, low, high, n


def _welch(difference: float, a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    if len(a) < 2 or len(b) < 2:
        return -math.inf, math.inf
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return difference, difference
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (a, b), strict=True))
    return _interval(difference, error, freedom)


def _interval(difference: float, error: float, freedom: float) -> tuple[float, float]:
    from scipy.stats import t as student

    half = float(student.ppf((1 + _LEVEL) / 2, freedom)) * error
    return difference - half, difference + half


def verdicts(results: Results) -> list[Verdict]:
    """Decide every claim of a study on every dataset that has its rows."""
    found = []
    for claim in results.study.claims:
        for dataset in results.datasets:
            if claim.datasets and dataset not in claim.datasets:
                continue
            judged = [entry for pair in claim.pairs for entry in _judge(results, claim, dataset, pair)]
            if not judged:
                continue
            said = [each.verdict for each in judged]
            verdict = FAILS if FAILS in said else UNDECIDED if UNDECIDED in said else HOLDS
            found.append(Verdict(claim, dataset, verdict, _evidence(judged)))
    return found


class _Judged(NamedTuple):
    """What is said of one pair of rows."""

    verdict: str
    words: str
    is_run: bool = True
    at: str = ""


def _evidence(judged: Sequence[_Judged]) -> tuple[str, ...]:
    """Return a line per pair that was run, and one of all that were not, each with its noise levels."""
    missing: dict[str, list[str]] = {}
    for each in judged:
        if not each.is_run:
            missing.setdefault(each.words, []).extend([each.at] if each.at else [])
    named = [f"{words} at {', '.join(levels)}" if levels else words for words, levels in missing.items()]
    return (*(each.words for each in judged if each.is_run), *([f"not run yet: {'; '.join(named)}"] if named else []))


def _judge(results: Results, claim: Claim, dataset: str, pair: tuple[str, str]) -> list[_Judged]:
    """Return verdict and evidence of a pair, at every noise level for a drop; nothing where a row is not there."""
    cells = {each.cell.label: each for each in results.of(dataset)}
    if claim.measure == "value":
        sides = [cells.get(name) for name in pair]
        if any(side is None for side in sides):
            return []
        first, second = (side for side in sides if side is not None)
        fixed = not (first.is_trained or second.is_trained)
        ours, theirs = _repeated(first, second, claim.metric), _repeated(second, first, claim.metric)
        return [_line(pair, ours, theirs, fixed, "")]
    lines = []
    levels = {each.cell.setting for each in results.of(dataset)} - {CLEAN}
    for level in sorted(levels):
        drops = [_drops(results.of(dataset), name, level, claim.metric) for name in pair]
        if all(drop is not None for drop in drops):
            better, worse = (drop or {} for drop in drops)
            lines.append(_line(pair, worse, better, False, level, what="drop of ", swapped=True))
    return lines


def _repeated(side: CellResult, other: CellResult, metric: str) -> Samples:
    """Return a row's figure by seed; that of a row which no seed enters stands for each seed of the other."""
    found = side.by_seed(metric)
    if side.is_trained or not found or not other.is_trained:
        return found
    value = next(iter(found.values()))
    return dict.fromkeys(other.by_seed(metric), value) or found


def _drops(cells: Sequence[CellResult], row: str, level: str, metric: str) -> Samples | None:
    """Return what noise takes of a row's figure, by seed: (clean - noisy) / clean."""
    named = {each.cell.setting: each for each in cells if each.cell.row == row}
    if level not in named or CLEAN not in named:
        return None
    clean = {seed: value for (seed, _), value in named[CLEAN].by_seed(metric).items()}
    noisy = named[level].by_seed(metric)
    return {key: (clean[key[0]] - value) / clean[key[0]] for key, value in noisy.items() if clean.get(key[0])}


def _line(
    pair: tuple[str, str],
    larger: Samples,
    smaller: Samples,
    fixed: bool,
    at: str,
    what: str = "",
    swapped: bool = False,
) -> _Judged:
    """Return the verdict that ``larger`` is larger, and the evidence in words."""
    if not larger or not smaller:
        return _Judged(UNDECIDED, f"{what}{pair[0]} against {pair[1]}", is_run=False, at=at)
    verdict, difference, low, high, n = decide(larger, smaller, fixed=fixed)
    means = [statistics.fmean(side.values()) for side in ((smaller, larger) if swapped else (larger, smaller))]
    shown = f"{what}{pair[0]} {means[0]:.4f}, {pair[1]} {means[1]:.4f}{f' at {at}' if at else ''}, n = {n}" + (
        "" if math.isinf(low) else f", difference {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    )
    return _Judged(verdict, f"{shown}: {verdict}")
