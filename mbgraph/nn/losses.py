"""Score margins of triples and pairwise ranking losses on them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bpr", "triple_margin"]


def triple_margin(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the score of the positive item minus the score of the negative one, as inner products.

    Shapes: three (B, D) -> (B,). The items are subtracted first, so that one product is derived and not two.
    """
    return torch.linalg.vecdot(users, positives - negatives)


def bpr(margin: Tensor, gamma: float = 1e-10) -> Tensor:
    r"""Bayesian personalised ranking, one value per triple.

    .. math:: \ell(\Delta) = -\log(\gamma + \sigma(\Delta)), \qquad \Delta = s(u, i) - s(u, j)

    Parameters
    ----------
    margin : Tensor (B,)
        Score of the positive item minus score of the negative item.
    gamma : float
        The published RMBRec code adds 1e-10 inside the logarithm, which only matters below a margin of about -23
        (there the gradient vanishes). ``0`` gives the exact ``softplus(-margin)``, whose gradient never does.

    Returns
    -------
    Tensor (B,)

    References
    ----------
    Rendle et al., UAI 2009; RMBRec Eq. 2 and 10.
    """
    if gamma == 0:
        return torch.nn.functional.softplus(-margin)
    return -torch.log(gamma + torch.sigmoid(margin))
