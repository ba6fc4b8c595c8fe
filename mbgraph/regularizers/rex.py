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


def risk_variance(risks: Sequence[Tensor], unbiased: bool = True) -> Tensor:
    """Return the variance of K risks; fewer than two have none and give zero.

    Shapes: K tensors () -> ().
    """
    if len(risks) < 2:
        return sum((risk * 0.0 for risk in risks), torch.zeros(()))
    return torch.stack(list(risks)).var(unbiased=unbiased)


@REGULARIZERS.register("rex")
class REx(Regularizer):
    """Pull the behaviors' risks together (Krueger et al., ICML 2021)."""

    name: ClassVar[str] = "rex"

    unbiased: bool = True
    """Divide by K - 1 (published RMBRec code) instead of K (Eq. 7)."""

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the variance over the environments present in the batch, a 0-dimensional tensor."""
        return risk_variance(list(outputs.need("risks", self.name).values()), self.unbiased)
