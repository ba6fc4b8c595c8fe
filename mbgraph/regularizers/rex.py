r"""Risk extrapolation: the variance of the behaviors' risks (RMBRec's ORM, Eq. 7 and 16).

.. math::
    \frac{1}{K} \sum_b (R_b - \bar R)^2 \quad\text{(Eq. 7)}, \qquad
    \frac{1}{K-1} \sum_b (R_b - \bar R)^2 \quad\text{(published code)}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mbgraph.regularizers.base import REGULARIZERS, Regularizer
from mbgraph.regularizers.outputs import StepOutputs

__all__ = ["REx", "risk_variance"]


def risk_variance(risks: Sequence[Tensor], unbiased: bool = True, weights: Sequence[float] | None = None) -> Tensor:
    r"""Return the variance of K risks; fewer than two have none and give zero.

    With weights :math:`\sum_b w_b (R_b - \sum_c w_c R_c / \sum_c w_c)^2`, divided by K - 1 or K as without: a behavior
    of weight 0 adds nothing, and where all but one come to nothing, so does the term.

    Shapes: K tensors () -> ().
    """
    if len(risks) < 2:
        return sum((risk * 0.0 for risk in risks), torch.zeros(()))
    values = torch.stack(list(risks))
    if weights is None:
        return values.var(unbiased=unbiased)
    counts = torch.tensor(list(weights), dtype=values.dtype, device=values.device)  # (K,)
    mean = (counts * values).sum() / counts.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return (counts * (values - mean).square()).sum() / (len(values) - int(unbiased))


@REGULARIZERS.register("rex")
class REx(Regularizer):
    """Pull the behaviors' risks together (Krueger et al., ICML 2021)."""

    name: ClassVar[str] = "rex"

    unbiased: bool = True
    """Divide by K - 1 (published RMBRec code) instead of K (Eq. 7)."""
    adaptive: bool = False
    """Count each behavior by how much it says about purchases (`mbgraph.nn.alignment_weights`), the target as 1."""

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the variance over the environments present in the batch, a 0-dimensional tensor."""
        risks = outputs.need("risks", self.name)
        levels = outputs.need("alignment_levels", self.name) if self.adaptive else None
        weights = None if levels is None else [levels[name] for name in risks]
        return risk_variance(list(risks.values()), self.unbiased, weights)
