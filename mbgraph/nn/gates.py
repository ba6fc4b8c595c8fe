"""Gates: what lets a row pass by how it meets other rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["context_gate"]


def context_gate(users: Tensor, items: Tensor, contexts: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
    r"""Return what a gated recurrent unit without carry makes of items that users meet in a context.

    .. math::
        [r, z] = \sigma(W_{rz} [u; i; v]), \qquad \varphi(u, i, v) = z \odot \tanh(W_h [r \odot u; i; v])

    Parameters
    ----------
    users, items, contexts : Tensor (.., D), (.., D), (.., K)
        They broadcast.
    gates, candidate : Tensor (2 D, 2 D + K), (D, 2 D + K)
        :math:`W_{rz}` and :math:`W_h`.

    Returns
    -------
    Tensor (.., D)

    References
    ----------
    Yan et al., "Behavior-Contextualized Item Preference Modeling for Multi-Behavior Recommendation", SIGIR 2024.
    """
    # a product per part instead of one of all parts together: what a row's items share is computed once
    parts = [users.shape[-1], items.shape[-1], contexts.shape[-1]]
    of_user, of_item, of_context = gates.split(parts, 1)
    both = linear(users, of_user) + linear(contexts, of_context) + linear(items, of_item)  # (.., 2 D)
    reset, update = torch.sigmoid(both).chunk(2, -1)
    of_user, of_item, of_context = candidate.split(parts, 1)
    kept = linear(reset * users, of_user) + linear(items, of_item) + linear(contexts, of_context)
    return update * torch.tanh(kept)
