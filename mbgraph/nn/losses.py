"""Losses of scores and of score margins: pairs, a softmax among items, single labels, all items at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["bpr", "label_entropies", "mean_of_rows", "non_sampling", "sampled_softmax", "softmax_among"]


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


def label_entropies(positives: Tensor, negatives: Tensor) -> Tensor:
    r"""Binary cross-entropies of scores whose label is 1, and of scores whose label is 0.

    .. math:: -\log \sigma(s^+), \qquad -\log \big(1 - \sigma(s^-)\big)

    Shapes: (..), (.., n) -> (.., 1 + n), the positive first.
    """
    return torch.cat([bpr(positives, gamma=0).unsqueeze(-1), bpr(-negatives, gamma=0)], -1)


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


def non_sampling(users: Tensor, items: Tensor, relation: Tensor, pairs: tuple[Tensor, Tensor], unseen: float) -> Tensor:
    r"""Squared error of the scores of all items, without drawing any: labels are 1 for pairs and 0 for the rest.

    .. math::
        w \sum \big(\textstyle\sum_i x_i x_i^\top\big) \odot \big(\sum_u x_u x_u^\top\big) \odot r r^\top
        + \sum_{(u, i)} (1 - w)\, \hat y^2 - 2 \hat y, \qquad \hat y = \langle x_u \odot x_i, r \rangle

    up to the number of pairs, which is constant.

    Parameters
    ----------
    users, items : Tensor (B, D), (I, D)
        The users whose items are scored; all items.
    relation : Tensor (D,)
        Factor r of the behavior.
    pairs : (int64 tensor (M,), int64 tensor (M,))
        Rows of ``users`` and of ``items``.
    unseen : float
        Weight w of a label 0 where that of a label 1 is 1.

    Returns
    -------
    Tensor ()
        Time is that of the pairs and (B + I) D\ :sup:`2`.

    References
    ----------
    Chen et al., "Efficient Heterogeneous Collaborative Filtering without Negative Sampling", AAAI 2020.
    """
    at, columns = pairs
    everything = (items.T @ items) * (users.T @ users) * torch.outer(relation, relation)  # (D, D)
    scores = (users[at] * items[columns]) @ relation  # (M,)
    return unseen * everything.sum() + ((1 - unseen) * scores.square() - 2 * scores).sum()
