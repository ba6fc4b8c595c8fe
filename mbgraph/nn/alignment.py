r"""How much an auxiliary behavior says about what a user buys: a weight per user and behavior.

With :math:`n_u` target pairs of user u, :math:`a_{ub}` of them also pairs of behavior b, and :math:`\mathrm{BAR}_b` the
share over all users (RMBRec Eq. 12, over train pairs),

.. math::
    w_{ub} = [u \text{ has a pair of } b]\; \frac{a_{ub} + c\,\mathrm{BAR}_b}{n_u + c}, \qquad
    \ell_b = \operatorname{mean}_u w_{ub},

coverage times reliability: 0 for users who lack the behavior. Of the target all weights are 1. The level :math:`\ell_b`
is what the behavior is worth as a whole; a cart that one user in a hundred has comes to almost nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mbgraph.keys import contains
from mbgraph.nn.relations import Relations

__all__ = ["alignment_weights"]


def alignment_weights(relations: Relations, smoothing: float = 5.0) -> dict[str, Tensor]:
    """Return the weights of every behavior: float32 (U,) each.

    Parameters
    ----------
    relations : Relations
        With a target.
    smoothing : float
        The c of the formula: how many pairs of the overall rate every user starts with.
    """
    target = relations[relations.target or ""]
    bought, count = target.keys(), target.degree("user").double()  # (E,), (U,)
    made = {}
    for name, relation in relations.items():
        if name == relations.target:
            made[name] = torch.ones(relations.num_users)
            continue
        both = bought[contains(bought, relation.keys())] // relations.num_items
        aligned = torch.from_numpy(np.bincount(both, minlength=relations.num_users)).double()
        rate = aligned.sum() / max(1, len(bought))
        weights = (aligned + smoothing * rate) / (count + smoothing)
        made[name] = torch.where(relation.degree("user") > 0, weights, 0.0).float()
    return made
