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

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.regularizers.base import REGULARIZERS, Regularizer, Schedule, StepOutputs

__all__ = ["IRMv1", "IRMv2", "gradient_variance", "irm_penalty", "squared_risks"]


def irm_penalty(margins: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`\sum_b (\operatorname{mean}[(1 - \sigma(\Delta_b))\,\Delta_b])^2`.

    Shapes: K tensors (B_b,) -> (). Zero margins (padded rows) contribute nothing to the sum inside the mean.
    """
    slopes = [(torch.sigmoid(-margin) * margin).mean() for margin in margins if margin.numel()]
    if not slopes:
        raise UsageError("the IRM penalty needs at least one behavior with rows")
    return torch.stack(slopes).square().sum()


def squared_risks(risks: Sequence[Tensor]) -> Tensor:
    r"""Return :math:`\sum_b R_b^2`, what a scale on the *loss* amounts to: :math:`\partial(wR_b)/\partial w = R_b`.

    Shapes: K tensors () -> ().
    """
    return torch.stack(list(risks)).square().sum()


def gradient_variance(risks: Sequence[Tensor], parameter: Tensor) -> Tensor:
    """Return the mean over entries of the unbiased variance, across behaviors, of each risk's gradient.

    Shapes: K tensors () and one parameter of any shape -> (). Differentiable again, so the risks must come from a
    pass that can be derived twice. One behavior has no variance and gives zero.
    """
    if len(risks) < 2:
        return torch.stack(list(risks)).sum() * 0.0
    gradients = [torch.autograd.grad(risk, parameter, create_graph=True)[0] for risk in risks]
    return torch.stack(gradients).var(dim=0, unbiased=True).mean()


@REGULARIZERS.register("irmv1")
class IRMv1(Regularizer):
    """Penalise the slope of every behavior's risk at scale 1 (Arjovsky et al., 2019; RMBRec Eq. 14).

    Parameters
    ----------
    weight, schedule
        See `Regularizer`.
    scale_on : {"scores", "loss"}
        ``"scores"`` is IRMv1. ``"loss"`` is the published RMBRec code: the sum of squared risks, a squared multi-task
        loss rather than an invariance penalty.
    """

    name = "irmv1"

    def __init__(self, weight: float = 1.0, scale_on: str = "scores", schedule: Schedule | None = None) -> None:
        super().__init__(weight, schedule)
        if scale_on not in ("scores", "loss"):
            raise UnknownNameError("scale position", scale_on, ("scores", "loss"))
        self.scale_on = scale_on

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the penalty, a 0-dimensional tensor."""
        if self.scale_on == "loss":
            return squared_risks(list(outputs.need("risks", self.name).values()))
        return irm_penalty(list(outputs.need("margins", self.name).values()))


@REGULARIZERS.register("irmv2")
class IRMv2(Regularizer):
    """The fixed-classifier form of the penalty (RMBRec Eq. 15).

    Parameters
    ----------
    weight, schedule
        See `Regularizer`.
    of : {"scores", "parameters"}
        ``"scores"`` is Eq. 15, equal to `IRMv1` on scores. ``"parameters"`` is the published RMBRec code: the variance
        across behaviors of the gradients on the user table, averaged over its entries. Its size is about 1e-9, and it
        costs a second backward pass through every behavior.
    """

    name = "irmv2"

    def __init__(self, weight: float = 1.0, of: str = "scores", schedule: Schedule | None = None) -> None:
        super().__init__(weight, schedule)
        if of not in ("scores", "parameters"):
            raise UnknownNameError("subject of IRMv2", of, ("scores", "parameters"))
        self.of = of
        self.double_backward = of == "parameters"

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the penalty, a 0-dimensional tensor."""
        if self.of == "scores":
            return irm_penalty(list(outputs.need("margins", self.name).values()))
        if not outputs.tables:
            raise UsageError("irmv2 on parameters needs the user table, which this model does not give")
        return gradient_variance(list(outputs.need("risks", self.name).values()), outputs.tables[0])
