r"""Invariant risk minimisation over behaviors as environments (RMBRec C.2, Eq. 14 and 15).

With margins :math:`\Delta` and a scale :math:`w` on the scores,
:math:`R_b(w) = \operatorname{mean} -\log\sigma(w\Delta)` and

.. math::
    \left.\frac{\partial R_b}{\partial w}\right|_{w=1} = -\operatorname{mean}\big[(1 - \sigma(\Delta))\,\Delta\big]

so the penalty :math:`\sum_b (\partial R_b / \partial w)^2` needs no second backward pass. Eq. 14 lets :math:`w` learn
and Eq. 15 fixes it at 1; a learned scale multiplies all scores alike and cannot change a ranking, so :math:`w` stays 1
here (a scale inside the optimizer is a known defect of IRM codes) and both equations give the same penalty. What the
published RMBRec code computes under the two names differs from both and is kept as an option of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mbgraph.regularizers.base import REGULARIZERS, Regularizer
from mbgraph.regularizers.outputs import StepOutputs

__all__ = ["IRMv1", "IRMv2", "gradient_variance", "irm_penalty", "squared_risks"]


def irm_penalty(
    margins: Sequence[Tensor],
    weights: Sequence[Tensor | None] | None = None,
    levels: Sequence[float] | None = None,
) -> Tensor:
    r"""Return :math:`\sum_b (\operatorname{mean}[(1 - \sigma(\Delta_b))\,\Delta_b])^2`.

    Shapes: K tensors (B_b,) or (B_b, n), K weights (B_b,) -> (). The mean is weighted where there are weights. Zero
    margins (padded rows) contribute nothing to the sum inside the mean; no rows at all contribute nothing. With
    ``levels``, K numbers, each behavior's square counts that much.
    """
    slopes, counts = [], []
    for number, margin in enumerate(margins):
        if not margin.numel():
            continue
        counts.append(1.0 if levels is None else levels[number])
        slope = torch.sigmoid(-margin) * margin
        weight = None if weights is None else weights[number]
        if weight is None:
            slopes.append(slope.mean())
        else:
            rows = slope if slope.ndim == 1 else slope.mean(1)  # (B_b,)
            slopes.append((rows * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny))
    if not slopes:
        return torch.zeros(())
    squares = torch.stack(slopes).square()  # (K,)
    return squares.sum() if levels is None else (squares * squares.new_tensor(counts)).sum()


def squared_risks(risks: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`\sum_b R_b^2`, what a scale on the *loss* amounts to: :math:`\partial(wR_b)/\partial w = R_b`.

    Shapes: K tensors () -> ().
    """
    return torch.stack(list(risks)).square().sum() if len(risks) else torch.zeros(())


def gradient_variance(risks: Sequence[Tensor], parameter: Tensor) -> Tensor:
    """Return the mean over entries of the unbiased variance, across behaviors, of each risk's gradient.

    Shapes: K tensors () and one parameter of any shape -> (). Differentiable again: the passes of `mbgraph.nn` derive
    themselves anew when somebody derives their derivative. One behavior has no variance and gives zero.
    """
    if len(risks) < 2:
        return sum((risk * 0.0 for risk in risks), torch.zeros(()))
    gradients = [torch.autograd.grad(risk, parameter, create_graph=True)[0] for risk in risks]
    return torch.stack(gradients).var(dim=0, unbiased=True).mean()


def _penalty(outputs: StepOutputs, name: str, adaptive: bool) -> Tensor:
    margins = outputs.need("margins", name)
    weights = outputs.row_weights
    known = outputs.need("alignment_levels", name) if adaptive else None
    levels = None if known is None else [known[key] for key in margins]
    return irm_penalty(list(margins.values()), [weights.get(key) for key in margins], levels)


@REGULARIZERS.register("irmv1")
class IRMv1(Regularizer):
    """Penalise the slope of every behavior's risk at scale 1 (Arjovsky et al., 2019; RMBRec Eq. 14)."""

    name: ClassVar[str] = "irmv1"

    scale_on: Literal["scores", "loss"] = "scores"
    """``scores`` is IRMv1. ``loss`` is the published RMBRec code: the sum of squared risks, a squared multi-task loss
    rather than an invariance penalty."""
    adaptive: bool = False
    """On scores: count each behavior by how much it says about purchases (`mbgraph.nn.alignment_weights`)."""

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the penalty, a 0-dimensional tensor."""
        if self.scale_on == "loss":
            return squared_risks(list(outputs.need("risks", self.name).values()))
        return _penalty(outputs, self.name, self.adaptive)


@REGULARIZERS.register("irmv2")
class IRMv2(Regularizer):
    """The fixed-classifier form of the penalty (RMBRec Eq. 15)."""

    name: ClassVar[str] = "irmv2"

    of: Literal["scores", "parameters"] = "scores"
    """``scores`` is Eq. 15, equal to `IRMv1` on scores. ``parameters`` is the published RMBRec code: the variance
    across behaviors of the gradients on the user table, averaged over its entries. Its size is about 1e-9, and it costs
    a second backward pass through every behavior."""
    adaptive: bool = False
    """On scores: count each behavior by how much it says about purchases (`mbgraph.nn.alignment_weights`)."""

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the penalty, a 0-dimensional tensor."""
        if self.of == "scores":
            return _penalty(outputs, self.name, self.adaptive)
        tables = outputs.need("tables", self.name)
        return gradient_variance(list(outputs.need("risks", self.name).values()), tables[0])
