"""Denominators of contrasts, with derivatives by hand: one exponential serves the value and the gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbgraph.derivatives import COLDEST, TINY, derive_plainly

__all__ = ["one_way", "sum_of_logs", "two_way", "unit"]

_CACHED = 2**22  # numbers of a block on a CPU: what is written by one operation is in the cache for the next
_SHORT = (torch.float16, torch.bfloat16)


def unit(rows: Tensor) -> Tensor:
    """Return rows divided by their Euclidean norms, short ones as they are times 1e12: (N, D) -> (N, D)."""
    made: Tensor = _Unit.apply(rows)
    return made


class _Unit(torch.autograd.Function):
    """`torch.nn.functional.normalize`, whose derivative takes a dozen passes of the table where two do."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(TINY)  # (N, 1)
        made = rows / norms
        ctx.save_for_backward(rows, made, norms)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor | None:
        rows, made, norms = ctx.saved_tensors
        (gradient,) = gradients  # (N, D)
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            return derive_plainly(lambda table: [torch.nn.functional.normalize(table, dim=1)], (rows,), gradients)[0]
        along = torch.linalg.vecdot(gradient, made).unsqueeze(1)  # (N, 1)
        along = along.masked_fill(norms <= TINY, 0.0)  # divided by a constant
        return torch.addcmul(gradient, made, along, value=-1).div_(norms)


# --- one direction, any candidates ----------------------------------------------------------------------------------


def sum_of_logs(
    rows: Tensor,
    candidates: Tensor,
    own: Tensor | None,
    weights: Tensor | None,
    *,
    temperature: float,
    left_out: Tensor | None = None,
    zero_left_out: bool = False,
    block: int = 1024,
) -> Tensor:
    r"""Return the weighted sum of the logarithms of all rows' denominators.

    .. math:: \sum_n w_n \log \Big( [e^{p_n}] + \sum_m e^{a_n \cdot c_m / \tau} \Big)

    Parameters
    ----------
    rows, candidates : Tensor (N, D), (M, D)
        Of length 1, or 0.
    own : Tensor (N,), optional
        One summand more of each row: its logarithm p.
    weights : Tensor (N,), optional
        All 1 by default.
    temperature, left_out, zero_left_out, block
        See `mbgraph.regularizers.infonce_among`.

    Returns
    -------
    Tensor ()
        Minus infinity where a row has no candidate.
    """
    if left_out is not None and not left_out.shape[1]:
        left_out = None
    dtype = rows.dtype
    if dtype in _SHORT:  # sums of so many exponentials need more digits
        rows, candidates = rows.float(), candidates.float()
        own = None if own is None else own.float()
    weights = None if weights is None else weights.to(rows.dtype)
    total: Tensor = _SumOfLogs.apply(
        rows, candidates, own, weights, temperature, left_out, zero_left_out, _rows_at_once(candidates, block)
    )
    return total.to(dtype)


def _rows_at_once(candidates: Tensor, block: int) -> int:
    return min(block, max(16, _CACHED // max(1, len(candidates)))) if candidates.device.type == "cpu" else block


def _plain_sum_of_logs(
    temperature: float,
    left_out: Tensor | None,
    zero_left_out: bool,
    rows: Tensor,
    candidates: Tensor,
    own: Tensor | None,
    weights: Tensor | None,
) -> tuple[Tensor]:
    """Return what `sum_of_logs` does, by operations that torch records and derives any number of times."""
    similarity = rows @ candidates.T / temperature  # (N, M)
    if left_out is not None:
        at = left_out.masked_fill(left_out < 0, len(candidates))  # one column more, for the numbers that are none
        mask = torch.zeros(len(rows), len(candidates) + 1, dtype=torch.bool, device=rows.device)
        similarity = similarity.masked_fill(mask.scatter(1, at, True)[:, :-1], 0.0 if zero_left_out else float("-inf"))
    logs = torch.logsumexp(similarity, dim=1)  # (N,)
    if own is not None:
        logs = torch.logaddexp(logs, own)
    return ((logs if weights is None else logs * weights).sum(),)


class _SumOfLogs(torch.autograd.Function):
    """Value and gradient in one pass over blocks of rows, of which none is kept.

    The gradient is that of the value times a number, so it is known in the forward pass. A row's denominator divides
    the row's exponentials in both products, where it is a factor of (B, D) and not of the block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        candidates: Tensor,
        own: Tensor | None,
        weights: Tensor | None,
        temperature: float,
        left_out: Tensor | None,
        zero_left_out: bool,
        block: int,
    ) -> Tensor:
        of_rows, of_candidates = (
            torch.zeros_like(table) if needed else None
            for table, needed in zip((rows, candidates), ctx.needs_input_grad, strict=False)
        )
        of_own = None if own is None else torch.empty_like(own)  # (N,)
        logs = rows.new_empty(len(rows))  # (N,)
        scaled = rows / temperature  # (N, D)
        space = rows.new_empty(min(block, len(rows)), len(candidates))
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            weighed = torch.mm(scaled[part], candidates.T, out=space[: len(scaled[part])])  # (B, M)
            out = None if left_out is None else _LeftOut(left_out[part])
            if out is not None:
                out.fill(weighed, 0.0 if zero_left_out else float("-inf"))
            also = None if own is None else own[part]
            shift = _shift(weighed, also) if temperature <= COLDEST else None
            if shift is not None:
                weighed.sub_(shift.unsqueeze(1))
                also = None if also is None else also - shift
            total = weighed.exp_().sum(1)  # (B,)
            if also is not None:
                also = also.exp()
                total += also
            logs[part] = total.log() if shift is None else total.log() + shift
            if not any(ctx.needs_input_grad[:3]):
                continue
            if out is not None and zero_left_out:
                out.fill(weighed, 0.0)  # a constant
            share = total.reciprocal().masked_fill_(total == 0, 0.0)  # (B,)
            if weights is not None:
                share *= weights[part]
            if of_own is not None and also is not None:
                of_own[part] = also * share
            share = (share / temperature).unsqueeze(1)  # (B, 1)
            if of_rows is not None:
                torch.mm(weighed, candidates, out=of_rows[part]).mul_(share)
            if of_candidates is not None:
                of_candidates.addmm_(weighed.T, rows[part] * share)
        ctx.save_for_backward(rows, candidates, own, weights, left_out, of_rows, of_candidates, of_own, logs)
        ctx.temperature, ctx.zero_left_out = temperature, zero_left_out
        return logs.sum() if weights is None else torch.dot(logs, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, candidates, own, weights, left_out, *made = ctx.saved_tensors
        (gradient,) = gradients  # ()
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            plain = partial(_plain_sum_of_logs, ctx.temperature, left_out, ctx.zero_left_out)
            return *derive_plainly(plain, (rows, candidates, own, weights), gradients), *[None] * 4
        return (
            *(entry * gradient if wanted else None for entry, wanted in zip(made, needed, strict=True)),
            *[None] * 4,
        )


def _shift(similarity: Tensor, own: Tensor | None) -> Tensor:
    """Return what keeps the largest exponential of each row at 1: (B, M), (B,) -> (B,)."""
    if not similarity.shape[1]:
        return torch.zeros_like(similarity[:, 0]) if own is None else own
    largest = similarity.amax(1)
    if own is not None:
        largest = torch.maximum(largest, own)
    return largest.clamp_min_(torch.finfo(largest.dtype).min)  # nothing but what is left out


class _LeftOut:
    """Entries of a block by number, without a mask of its size; -1 is none."""

    def __init__(self, numbers: Tensor) -> None:
        last = numbers.amax(1, keepdim=True)  # (B, 1)
        self.nothing = last < 0
        # what is none stands for another that the row leaves out; where there is no other, for an entry that stays
        self.at = torch.where(numbers < 0, last, numbers).clamp_min_(0)  # (B, k)

    def fill(self, block: Tensor, value: float) -> None:
        """Write a value to the entries: (B, M)."""
        block.scatter_(1, self.at, block.gather(1, self.at).masked_fill_(~self.nothing, value))


# --- both directions ------------------------------------------------------------------------------------------------


def two_way(a: Tensor, o: Tensor, temperature: float) -> Tensor:
    """Return the mean of the losses of a row among the other side's, of either side: two unit (N, D) -> (N,).

    The temperature is above `COLDEST`.
    """
    made: Tensor = _TwoWay.apply(a, o, temperature)
    return made


def _plain_two_way(temperature: float, a: Tensor, o: Tensor) -> tuple[Tensor]:
    similarity = a @ o.T / temperature  # (N, N)
    positive = similarity.diagonal()
    return ((one_way(similarity, positive, True) + one_way(similarity.T, positive, True)) / 2,)


class _TwoWay(torch.autograd.Function):
    """One exponential of the (N, N) matrix, which both directions share.

    Cosines are at most 1, so ``1 / temperature`` bounds every entry and stands for the maximum of each row.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, o: Tensor, temperature: float) -> Tensor:
        bound = 1 / temperature
        weights = torch.mm(a, o.T)  # (N, N)
        loss = bound - weights.diagonal() * bound  # (N,)
        weights.sub_(1).mul_(bound).exp_()
        rows, columns = weights.sum(1), weights.sum(0)  # (N,), (N,)
        loss.add_(rows.log(), alpha=0.5).add_(columns.log(), alpha=0.5)
        ctx.save_for_backward(a, o, weights, rows, columns)
        ctx.temperature = temperature
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, o, weights, rows, columns = ctx.saved_tensors
        (gradient,) = gradients  # (N,)
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            return *derive_plainly(partial(_plain_two_way, ctx.temperature), (a, o), gradients), None
        gradient = gradient / ctx.temperature
        of_rows, of_columns = (gradient / (2 * total) for total in (rows, columns))  # (N,), (N,)
        # written over: nothing but this sum, made here; what was saved serves the next backward through the graph
        inner = torch.add(of_rows.unsqueeze(1), of_columns).mul_(weights)  # (N, N)
        inner.diagonal().sub_(gradient)
        return inner @ o, inner.T @ a, None


def one_way(similarity: Tensor, positive: Tensor, include_positive: bool) -> Tensor:
    """Return what rows lose that pick among columns: (N, N), (N,) -> (N,)."""
    if not include_positive:
        same = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(same, float("-inf"))
    return torch.logsumexp(similarity, dim=1) - positive  # (N,)
