"""Score margins of triples and pairwise ranking losses on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["bpr", "mean_of_rows", "sampled_softmax", "softmax_among", "triple_margin"]


def triple_margin(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Return the score of the positive item minus the score of the negative one, as inner products.

    Shapes: (B, D), (B, D), (B, D) -> (B,); with n negatives (B, n, D) -> (B, n). The items are subtracted first, so
    that one product is derived and not two.
    """
    if negatives.ndim == 3:
        return torch.linalg.vecdot(users.unsqueeze(1), positives.unsqueeze(1) - negatives)
    return torch.linalg.vecdot(users, positives - negatives)


def mean_of_rows(values: Tensor) -> Tensor:
    """Return the mean of a batch's values, 0 where there are none: a term without rows contributes nothing.

    Shapes: (B,) or (B, n) -> ().
    """
    return values.mean() if values.numel() else values.sum()


def bpr(margin: Tensor, gamma: float = 1e-10) -> Tensor:
    r"""Bayesian personalised ranking, one value per margin.

    .. math:: \ell(\Delta) = -\log(\gamma + \sigma(\Delta)), \qquad \Delta = s(u, i) - s(u, j)

    Parameters
    ----------
    margin : Tensor of any shape
        Score of the positive item minus score of the negative item.
    gamma : float
        The published RMBRec code adds 1e-10 inside the logarithm, which only matters below a margin of about -23
        (there the gradient vanishes). ``0`` gives the exact ``softplus(-margin)``, whose gradient never does.

    Returns
    -------
    Tensor
        Of the same shape.

    References
    ----------
    Rendle et al., UAI 2009; RMBRec Eq. 2 and 10.
    """
    if gamma == 0:
        return torch.nn.functional.softplus(-margin)
    return -torch.log(gamma + torch.sigmoid(margin))


def sampled_softmax(margin: Tensor) -> Tensor:
    r"""Cross-entropy of the positive among itself and its negatives, one value per row.

    .. math:: \log \Big(1 + \sum_{k=1}^{n} \exp(-\Delta_k)\Big), \qquad \Delta_k = s(u, i) - s(u, j_k)

    It is `bpr` for one negative. No exponential of a large number is taken, so nothing overflows.

    Shapes: (B,) or (B, n) -> (B,).
    """
    if margin.ndim == 1:
        return torch.nn.functional.softplus(-margin)
    return torch.logsumexp(torch.nn.functional.pad(-margin, (1, 0)), dim=1)


def softmax_among(
    rows: Tensor, table: Tensor, numbers: Tensor, bias: Tensor | None = None, *, block: int = 1024
) -> Tensor:
    r"""Cross-entropy of the softmax over all rows of a table, a block of rows at a time.

    .. math:: -\log \frac{\exp(x_n \cdot c_{y_n} + b_{y_n})}{\sum_m \exp(x_n \cdot c_m + b_m)}

    Parameters
    ----------
    rows, table : Tensor (N, D), (M, D)
    numbers : int64 tensor (N,)
        Row of the table that is right.
    bias : Tensor (M,), optional
    block : int
        Rows per block. Memory is block x M; where there are several, they are computed again for the derivative.

    Returns
    -------
    Tensor (N,)
    """

    def denominators(part: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
        scores = part @ table.T if bias is None else torch.addmm(bias, part, table.T)  # (B, M)
        return torch.logsumexp(scores, 1)

    if len(rows) <= block:
        total = denominators(rows, table, bias)
    else:
        total = torch.cat(
            [checkpoint(denominators, part, table, bias, use_reentrant=False) for part in rows.split(block)]
        )
    right = torch.linalg.vecdot(rows, table[numbers])
    return total - (right if bias is None else right + bias[numbers])
