r"""Risk extrapolation: the variance of the behaviors' risks (RMBRec's ORM, Eq. 7 and 16).

.. math::
    \frac{1}{K} \sum_b (R_b - \bar R)^2 \quad\text{(Eq. 7)}, \qquad
    \frac{1}{K-1} \sum_b (R_b - \bar R)^2 \quad\text{(published code)}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mbgraph.regularizers.base import REGULARIZERS, Regularizer, Schedule, StepOutputs

__all__ = ["REx", "risk_variance"]


def risk_variance(risks: Sequence[Tensor], unbiased: bool = True) -> Tensor:
    """Return the variance of K risks; fewer than two have none and give zero.

    Shapes: K tensors () -> ().
    """
    stacked = torch.stack(list(risks))  # (K,)
    if len(stacked) < 2:
        return stacked.sum() * 0.0
    return stacked.var(unbiased=unbiased)


@REGULARIZERS.register("rex")
class REx(Regularizer):
    """Pull the behaviors' risks together (Krueger et al., ICML 2021).

    Parameters
    ----------
    weight, schedule
        See `Regularizer`.
    unbiased : bool
        Divide by K - 1 (published RMBRec code) instead of K (Eq. 7).
    """

    name = "rex"

    def __init__(self, weight: float = 1.0, unbiased: bool = True, schedule: Schedule | None = None) -> None:
        super().__init__(weight, schedule)
        self.unbiased = unbiased

    def __call__(self, outputs: StepOutputs) -> Tensor:
        """Return the variance over the behaviors present in the batch."""
        return risk_variance(list(outputs.need("risks", self.name).values()), self.unbiased)
