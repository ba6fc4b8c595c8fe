r"""InfoNCE between a user's target embedding and the same user's auxiliary embedding (RMBRec's RRM, Eq. 3-4).

With :math:`S_{uv} = \cos(a_u, o_v) / \tau` (cross) the term of one direction is

.. math:: -\frac1N \sum_u \Big[ S_{uu} - \log \sum_v \exp S_{uv} \Big]

The paper prints another form: negatives are other users of the *same* behavior (intra) and the positive stands outside
the denominator, which leaves the loss unbounded below. Both are choices here.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mbgraph.derivatives import COLDEST
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers.denominators import one_way, sum_of_logs, two_way, unit

__all__ = ["infonce", "infonce_among", "nt_xent"]

DIRECTIONS = ("both", "anchor", "other")
NEGATIVES = ("cross", "intra")
REDUCTIONS = ("mean", "sum")


def infonce(
    anchor: Tensor,
    other: Tensor,
    *,
    temperature: float = 0.07,
    direction: str = "both",
    negatives: str = "cross",
    include_positive: bool = True,
    reduction: str = "mean",
    weights: Tensor | None = None,
    block: int | None = None,
) -> Tensor:
    """Contrast row ``u`` of ``anchor`` with row ``u`` of ``other`` against the rows of other users.

    Parameters
    ----------
    anchor, other : Tensor (N, D)
        Embeddings of the same N users; normalised here.
    temperature : float
        Divides the cosine.
    direction : {"both", "anchor", "other"}
        Whose rows pick among the other side's rows; ``"both"`` is the mean of the two.
    negatives : {"cross", "intra"}
        Candidates of a row: the other side's rows, or the rows of its own side.
    include_positive : bool
        Whether the positive stands in the denominator.
    reduction : {"mean", "sum"}
        Over the N users.
    weights : Tensor (N,), optional
        What each user's own loss counts; candidates are all users either way.
    block : int, optional
        Candidates of a row are those of its block alone, of at most so many rows. Of ``ceil(N / block)`` blocks the
        first holds rows 0, n, 2n, .., so that neighbours in the order of ids are apart. Time is linear in N then, and
        so is memory: no block is kept for the derivative.

    Returns
    -------
    Tensor ()
        Zero for a single user without the positive in the denominator (there is nothing to contrast).
    """
    for kind, value, choices in (
        ("direction", direction, DIRECTIONS),
        ("kind of negatives", negatives, NEGATIVES),
        ("reduction", reduction, REDUCTIONS),
    ):
        if value not in choices:
            raise UnknownNameError(kind, value, choices)
    _check_positive("temperature", temperature)
    if block is not None:
        _check_positive("block", block)
    a, o = unit(anchor), unit(other)  # (N, D), (N, D)
    simple = negatives == "cross" and include_positive and direction != "both"
    if simple:
        total = partial(_picked_one_way, temperature, direction)
    else:
        total = partial(_summed, temperature, direction, negatives, include_positive)
    if block is None or len(a) <= block:
        return _reduced(total(a, o, weights), len(a), reduction, weights)
    count = -(-len(a) // block)
    order = torch.cat([torch.arange(start, len(a), count, device=a.device) for start in range(count)])  # (N,)
    sizes = [len(range(start, len(a), count)) for start in range(count)]
    # split, not sliced: the derivative of a slice is a table of zeros around it
    sides = [a[order].split(sizes), o[order].split(sizes)]
    counts = [None] * count if weights is None else weights[order].split(sizes)
    parts = [
        total(*part) if simple else checkpoint(total, *part, use_reentrant=False)
        for part in zip(*sides, counts, strict=True)
    ]
    return _reduced(torch.stack(parts).sum(), len(a), reduction, weights)


def infonce_among(
    anchor: Tensor,
    positive: Tensor,
    candidates: Tensor,
    *,
    temperature: float = 0.07,
    left_out: Tensor | None = None,
    zero_left_out: bool = False,
    include_positive: bool = False,
    reduction: str = "mean",
    weights: Tensor | None = None,
    block: int = 1024,
) -> Tensor:
    r"""Contrast rows with all of many candidates, a block of rows at a time.

    .. math:: -\log \frac{\exp(\cos(a_n, p_n) / \tau)}{\sum_m \exp(\cos(a_n, c_m) / \tau)}

    Parameters
    ----------
    anchor, positive : Tensor (N, D)
        Row n of the one belongs to row n of the other; the positive should be one of the candidates, or be included.
    candidates : Tensor (M, D)
    temperature, reduction, weights
        See `infonce`.
    left_out : int64 tensor (N, k), optional
        Per anchor the numbers of candidates that are no negatives of it, -1 where there are fewer than k.
    zero_left_out : bool
        Count a left-out candidate as a similarity of 0, so that it adds 1 to the denominator (published MBSSL), instead
        of not at all.
    include_positive : bool
        Add each row's own positive to its denominator, for candidates that do not hold it.
    block : int
        Rows per block, at most. Memory is block x M: no block outlives the next one.

    Returns
    -------
    Tensor ()
    """
    _check_positive("temperature", temperature)
    _check_positive("block", block)
    if len(anchor) == 0:
        return anchor.sum() * 0.0
    a, p, c = unit(anchor), unit(positive), unit(candidates)
    own = torch.linalg.vecdot(a, p) / temperature  # (N,)
    total = sum_of_logs(
        a, c, own if include_positive else None, weights, temperature=temperature, left_out=left_out,
        zero_left_out=zero_left_out, block=block,
    )  # fmt: skip
    return _reduced(total - _counted(own, weights), len(a), reduction, weights)


def nt_xent(one: Tensor, two: Tensor, *, temperature: float = 0.07) -> Tensor:
    r"""Contrast two views of the same rows with all rows of both but themselves (NT-Xent).

    .. math::
        -\frac{1}{2N} \sum_n \log \frac{\exp(\cos(x_n, x_{n'}) / \tau)}{\sum_{m \ne n} \exp(\cos(x_n, x_m) / \tau)}

    over the 2 N rows of both views, where :math:`n'` is the other view of row n.

    Shapes: (N, D), (N, D) -> ().

    References
    ----------
    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    """
    both, partners = torch.cat([one, two]), torch.cat([two, one])  # (2 N, D)
    itself = torch.arange(len(both), device=both.device).unsqueeze(1)
    return infonce_among(both, partners, both, temperature=temperature, left_out=itself)


def _picked_one_way(temperature: float, direction: str, a: Tensor, o: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sum of losses of rows that pick among the other side's: two unit (N, D), (N,) -> ()."""
    if len(a) == 0:
        return a.sum() * 0.0
    rows, others = (a, o) if direction == "anchor" else (o, a)
    own = torch.linalg.vecdot(a, o) / temperature  # (N,)
    return sum_of_logs(rows, others, None, weights, temperature=temperature) - _counted(own, weights)


def _summed(
    temperature: float,
    direction: str,
    negatives: str,
    include_positive: bool,
    a: Tensor,
    o: Tensor,
    weights: Tensor | None,
) -> Tensor:
    """Return the sum of each row's own loss among all rows: two unit (N, D), (N,) -> ()."""
    if len(a) == 0 or (len(a) == 1 and not include_positive):
        return a.sum() * 0.0
    if negatives == "cross" and include_positive and temperature > COLDEST:
        return _counted(two_way(a, o, temperature), weights)
    if negatives == "cross":
        similarity = a @ o.T / temperature  # (N, N)
        positive = similarity.diagonal()
        terms = {
            "anchor": lambda: one_way(similarity, positive, include_positive),
            "other": lambda: one_way(similarity.T, positive, include_positive),
        }
    else:
        positive = torch.linalg.vecdot(a, o) / temperature  # (N,)
        terms = {
            "anchor": lambda: _one_way_intra(a, positive, temperature, include_positive),
            "other": lambda: _one_way_intra(o, positive, temperature, include_positive),
        }
    both = direction == "both"
    return _counted((terms["anchor"]() + terms["other"]()) / 2 if both else terms[direction](), weights)


def _one_way_intra(rows: Tensor, positive: Tensor, temperature: float, include_positive: bool) -> Tensor:
    similarity = rows @ rows.T / temperature  # (N, N)
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similarity = similarity.masked_fill(same, float("-inf"))  # a user is not a negative of its own
    if include_positive:
        similarity = torch.cat([similarity, positive.unsqueeze(1)], dim=1)  # (N, N + 1)
    return torch.logsumexp(similarity, dim=1) - positive  # (N,)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{name} must be positive, got {value}")


def _counted(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the (weighted) sum: (N,), (N,) -> ()."""
    return values.sum() if weights is None else (values * weights).sum()


def _reduced(total: Tensor, count: int, reduction: str, weights: Tensor | None) -> Tensor:
    """Return the sum or the (weighted) mean of so many rows, 0 of nothing: () -> ()."""
    if reduction == "sum" or not count:
        return total
    return total / (count if weights is None else weights.sum().clamp_min(torch.finfo(total.dtype).tiny))
