"""Attention between the behaviors of a node."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["behavior_attention"]


def behavior_attention(messages: Tensor, hidden: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return what each behavior makes of the messages of all behaviors, and how much it reads of each.

    .. math:: x_b = \sum_c \operatorname{softmax}_c\big(\tanh(m_c S_b)\, s_b\big)\, m_c

    Parameters
    ----------
    messages : Tensor (N, K, D)
    hidden, output : Tensor (K, D, A), (K, A, 1)
        :math:`S_b` and :math:`s_b`.

    Returns
    -------
    (Tensor (N, K, D), Tensor (N, K, K))
        The second one's rows are the behaviors that read.

    References
    ----------
    Xu et al., "Multi-behavior Self-supervised Learning for Recommendation", SIGIR 2023.
    """
    count, _, width = hidden.shape
    joined = hidden.permute(1, 0, 2).reshape(messages.shape[2], -1)  # (D, K A)
    heard = torch.tanh(messages @ joined).view(len(messages), count, count, width)  # (N, from, to, A)
    attention = torch.softmax((heard * output[:, :, 0]).sum(-1), 1).transpose(1, 2)  # (N, to, from)
    return attention @ messages, attention
