r"""InfoNCE between a user's target embedding and the same user's auxiliary embedding (RMBRec's RRM, Eq. 3-4).

With :math:`S_{uv} = \cos(a_u, o_v) / \tau` (cross) the term of one direction is

.. math:: -\frac1N \sum_u \Big[ S_{uu} - \log \sum_v \exp S_{uv} \Big]

The paper prints another form: negatives are other users of the *same* behavior (intra) and the positive stands outside
the denominator, which leaves the loss unbounded below. Both are choices here.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers.base import REGULARIZERS, Regularizer
from mbgraph.regularizers.outputs import StepOutputs

__all__ = ["InfoNCE", "infonce", "infonce_among"]

DIRECTIONS = ("both", "anchor", "other")
NEGATIVES = ("cross", "intra")
REDUCTIONS = ("mean", "sum")
_SHARES = {"both": (0.5, 0.5), "anchor": (1.0, 0.0), "other": (0.0, 1.0)}
_COLDEST = 0.025  # exp(-2 / temperature) is still a float32 number, so no row needs its maximum subtracted


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
        so is memory: blocks are computed again for the derivative.

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
    a = torch.nn.functional.normalize(anchor, dim=1)  # (N, D)
    o = torch.nn.functional.normalize(other, dim=1)  # (N, D)
    losses = partial(_losses, temperature, direction, negatives, include_positive)
    if block is None or len(a) <= block:
        return _reduced(losses(a, o), reduction, weights)
    count = -(-len(a) // block)
    order = torch.cat([torch.arange(start, len(a), count, device=a.device) for start in range(count)])  # (N,)
    sizes = [len(range(start, len(a), count)) for start in range(count)]
    # split, not sliced: the derivative of a slice is a table of zeros around it
    pairs = zip(a[order].split(sizes), o[order].split(sizes), strict=True)
    parts = torch.cat([checkpoint(losses, *pair, use_reentrant=False) for pair in pairs])  # (N,)
    return _reduced(parts, reduction, None if weights is None else weights[order])


def _losses(temperature: float, direction: str, negatives: str, include_positive: bool, a: Tensor, o: Tensor) -> Tensor:
    """Return each row's own loss among all rows: two unit (N, D) -> (N,)."""
    if len(a) == 0 or (len(a) == 1 and not include_positive):
        return a.sum(1) * 0.0
    if negatives == "cross" and include_positive and temperature > _COLDEST:
        return _Contrast.apply(a, o, temperature, _SHARES[direction])
    if negatives == "cross":
        similarity = a @ o.T / temperature  # (N, N)
        positive = similarity.diagonal()
        terms = {
            "anchor": lambda: _one_way(similarity, positive, include_positive),
            "other": lambda: _one_way(similarity.T, positive, include_positive),
        }
    else:
        positive = torch.linalg.vecdot(a, o) / temperature  # (N,)
        terms = {
            "anchor": lambda: _one_way_intra(a, positive, temperature, include_positive),
            "other": lambda: _one_way_intra(o, positive, temperature, include_positive),
        }
    return (terms["anchor"]() + terms["other"]()) / 2 if direction == "both" else terms[direction]()


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{name} must be positive, got {value}")


def _reduced(loss: Tensor, reduction: str, weights: Tensor | None) -> Tensor:
    """Return the (weighted) mean or sum, 0 of nothing: (N,), (N,) -> ()."""
    if not len(loss):
        return loss.sum()
    if weights is None:
        return loss.mean() if reduction == "mean" else loss.sum()
    total = (loss * weights).sum()
    return total if reduction == "sum" else total / weights.sum().clamp_min(torch.finfo(loss.dtype).tiny)


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
        Rows per block. Memory is block x M; where there are several, they are computed again for the derivative.

    Returns
    -------
    Tensor ()
    """
    _check_positive("temperature", temperature)
    _check_positive("block", block)
    if len(anchor) == 0:
        return anchor.sum() * 0.0
    normalize = torch.nn.functional.normalize
    a, p, c = normalize(anchor, dim=1), normalize(positive, dim=1), normalize(candidates, dim=1)

    def denominators(start: int, rows: Tensor, c: Tensor) -> Tensor:
        similarity = rows @ c.T / temperature  # (B, M)
        if left_out is not None:
            own = left_out[start : start + len(rows)]
            own = own.masked_fill(own < 0, len(c))  # one column more, for the numbers that are none
            mask = torch.zeros(len(rows), len(c) + 1, dtype=torch.bool, device=c.device).scatter(1, own, True)[:, :-1]
            similarity = similarity.masked_fill(mask, 0.0 if zero_left_out else float("-inf"))
        return torch.logsumexp(similarity, dim=1)  # (B,)

    own = torch.linalg.vecdot(a, p) / temperature  # (N,)
    if len(a) <= block:
        total = denominators(0, a, c)
    else:
        starts = range(0, len(a), block)
        parts = (checkpoint(denominators, at, a[at : at + block], c, use_reentrant=False) for at in starts)
        total = torch.cat(list(parts))
    loss = (torch.logaddexp(total, own) if include_positive else total) - own  # (N,)
    return _reduced(loss, reduction, weights)


class _Contrast(torch.autograd.Function):
    """The published form by hand: one exponential of the (N, N) matrix, which both directions share.

    Cosines are at most 1, so ``1 / temperature`` bounds every entry and stands for the maximum of each row.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, o: Tensor, temperature: float, shares: tuple[float, float]) -> Tensor:
        bound = 1 / temperature
        weights = torch.mm(a, o.T)  # (N, N)
        loss = bound - weights.diagonal() * bound  # (N,)
        weights.sub_(1).mul_(bound).exp_()
        sums = [weights.sum(1 - side) if share else None for side, share in enumerate(shares)]  # 2 x (N,)
        for share, total in zip(shares, sums, strict=True):
            if total is not None:
                loss.add_(total.log(), alpha=share)
        ctx.save_for_backward(a, o, weights, *sums)
        ctx.temperature, ctx.shares = temperature, shares
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, o, weights, rows, columns = ctx.saved_tensors
        (gradient,) = gradients  # (N,)
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            similarity = a @ o.T / ctx.temperature
            positive, both = similarity.diagonal(), (similarity, similarity.T)
            loss = sum(
                share * _one_way(matrix, positive, True)
                for share, matrix in zip(ctx.shares, both, strict=True)
                if share
            )
            return (*torch.autograd.grad(loss, (a, o), gradient, create_graph=True), None, None)
        gradient = gradient / ctx.temperature
        of_rows, of_columns = (
            None if total is None else share * gradient / total
            for share, total in zip(ctx.shares, (rows, columns), strict=True)
        )  # (N,), (N,)
        if of_rows is not None and of_columns is not None:
            inner = torch.add(of_rows.unsqueeze(1), of_columns).mul_(weights)  # (N, N)
        else:
            inner = weights * (of_columns if of_rows is None else of_rows.unsqueeze(1))
        inner.diagonal().sub_(gradient)
        return inner @ o, inner.T @ a, None, None


def _one_way(similarity: Tensor, positive: Tensor, include_positive: bool) -> Tensor:
    if not include_positive:
        same = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(same, float("-inf"))
    return torch.logsumexp(similarity, dim=1) - positive  # (N,)


def _one_way_intra(rows: Tensor, positive: Tensor, temperature: float, include_positive: bool) -> Tensor:
    similarity = rows @ rows.T / temperature  # (N, N)
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similarity = similarity.masked_fill(same, float("-inf"))  # a user is not a negative of its own
    if include_positive:
        similarity = torch.cat([similarity, positive.unsqueeze(1)], dim=1)  # (N, N + 1)
    return torch.logsumexp(similarity, dim=1) - positive  # (N,)


@REGULARIZERS.register("infonce")
class InfoNCE(Regularizer):
    """Align every auxiliary behavior's embeddings of a node with the target's, or two views of it (SimGCL).

    The anchor side is the target behavior, or the first view.
    """

    name: ClassVar[str] = "infonce"

    temperature: Annotated[float, Field(gt=0, le=1_000_000)] = 0.07
    """Divides the cosine."""
    temperatures: tuple[Annotated[float, Field(gt=0, le=1_000_000)], ...] = ()
    """Temperature of each auxiliary behavior, in order; empty: ``temperature`` of all."""
    direction: Literal["both", "anchor", "other"] = "both"
    """Whose rows pick among the other side's rows; ``both`` is the mean of the two."""
    negatives: Literal["cross", "intra"] = "cross"
    """Candidates of a row: the other side's rows, or the rows of its own side."""
    include_positive: bool = True
    """Whether the positive stands in the denominator."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the nodes."""
    reduce_behaviors: Literal["sum", "mean"] = "sum"
    """Over the auxiliary behaviors: the published RMBRec code sums, its Eq. 4 averages."""
    supported_only: bool = False
    """Contrast only nodes that have an edge in the auxiliary behavior. Without one the auxiliary embedding is the
    layer-0 row, which says nothing about the behavior."""
    weighted: bool = False
    """Count each node by the weight that the model gives it in the auxiliary behavior."""
    adaptive: bool = False
    """Count each node by how much the auxiliary behavior says about what it buys (`mbgraph.nn.alignment_weights`), 0
    where it lacks the behavior, and divide a mean by the number of nodes: what says little pulls little."""
    between: Literal["behaviors", "views"] = "behaviors"
    """What is contrasted: the target with every auxiliary behavior, or two views of the model."""
    side: Literal["user", "item"] = "user"
    """Whose embeddings."""
    candidates: Literal["batch", "block", "all"] = "batch"
    """Who stands in the denominator: the nodes of the batch; those of the same block of the batch, which costs time and
    memory linear in the batch; or all nodes but those that the model calls similar, by the anchor's rows only."""
    zero_similar: bool = False
    """With all nodes as candidates: count a similar node as a cosine of 0 (published MBSSL) instead of not at all."""
    block: Annotated[int, Field(ge=1, le=2**24)] = 1024
    """Rows per block, with ``block`` or all nodes as candidates."""

    @model_validator(mode="after")
    def _agree(self) -> InfoNCE:
        if self.candidates == "all" and (self.negatives != "cross" or not self.include_positive):
            raise UsageError(
                "infonce among all nodes knows only cross negatives with the positive among them",
                "leave negatives and include_positive out",
            )
        if self.adaptive and (self.weighted or self.between == "views"):
            raise UsageError(
                "infonce counts nodes of behaviors either by the model's weights or by their alignment",
                "leave weighted, between=views or adaptive out",
            )
        return self

    def _term(self, anchor: Tensor, other: Tensor, weights: Tensor | None, temperature: float) -> Tensor:
        return infonce(
            anchor,
            other,
            temperature=temperature,
            direction=self.direction,
            negatives=self.negatives,
            include_positive=self.include_positive,
            reduction=self.reduction,
            weights=weights,
            block=self.block if self.candidates == "block" else None,
        )

    def in_blocks(self, rows: int) -> InfoNCE:
        """Return the contrast within blocks of so many nodes of the batch, where it was one of the whole batch."""
        return self.replace(candidates="block", block=rows) if self.candidates == "batch" else self

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the sum (or mean) over auxiliary behaviors, a 0-dimensional tensor."""
        if self.between == "views":
            one, two = self._of_side(outputs, "views")
            return self._term(one, two, None, self.temperature)
        anchors = self._of_side(outputs, "anchors")
        auxiliary = [behavior for behavior in anchors if behavior != outputs.target]
        if not auxiliary:
            raise UsageError(
                "infonce between behaviors needs a model that encodes an auxiliary behavior",
                f"leave it out: --regularizer {self.name}:weight=0",
            )
        temperatures = self.temperatures or (self.temperature,) * len(auxiliary)
        if len(temperatures) != len(auxiliary):
            raise UsageError(
                f"temperatures of infonce has {len(temperatures)} numbers for {len(auxiliary)} auxiliary behaviors",
                f"give one for each of {', '.join(auxiliary)}",
            )
        terms = [
            self._behavior(outputs, anchors[outputs.target], anchors[behavior], behavior, temperature)
            for behavior, temperature in zip(auxiliary, temperatures, strict=True)
        ]
        total = torch.stack(terms).sum()
        return total if self.reduce_behaviors == "sum" else total / len(terms)

    def _of_side(self, outputs: StepOutputs, entry: str) -> Any:
        given = outputs.need(entry, self.name)
        if self.side not in given:
            raise UsageError(
                f"infonce needs {entry} of {self.side}s, which this model does not give",
                f"choose side={' or '.join(given)}" if given else "use another regularizer",
            )
        return given[self.side]

    def _behavior(
        self, outputs: StepOutputs, anchor: Tensor, other: Tensor, behavior: str, temperature: float
    ) -> Tensor:
        weights = outputs.anchor_weights.get(self.side, {}).get(behavior)  # (N,)
        similar = outputs.similar.get(self.side) if self.candidates == "all" else None
        supported = None
        if self.supported_only and weights is not None:
            supported = weights > 0
            anchor, other, weights = anchor[supported], other[supported], weights[supported]
            similar = None if similar is None else similar[supported]
        used = weights if self.weighted else None
        if self.adaptive:
            used = self._aligned(outputs, behavior, supported)
        if self.adaptive and self.reduction == "mean":
            # a weighted mean divides by the weights, which would give back what they take away
            share = used.mean() if used is not None and len(used) else 1.0
            return share * self._one(outputs, anchor, other, behavior, temperature, similar, used)
        return self._one(outputs, anchor, other, behavior, temperature, similar, used)

    def _aligned(self, outputs: StepOutputs, behavior: str, supported: Tensor | None) -> Tensor:
        weights: Tensor = self._of_side(outputs, "alignment")[behavior]  # (N,)
        return weights if supported is None else weights[supported]

    def _one(
        self,
        outputs: StepOutputs,
        anchor: Tensor,
        other: Tensor,
        behavior: str,
        temperature: float,
        similar: Tensor | None,
        used: Tensor | None,
    ) -> Tensor:
        if self.candidates != "all":
            return self._term(anchor, other, used, temperature)
        return infonce_among(
            anchor,
            other,
            self._of_side(outputs, "nodes")[behavior],
            temperature=temperature,
            left_out=similar,
            zero_left_out=self.zero_similar,
            reduction=self.reduction,
            weights=used,
            block=self.block,
        )
