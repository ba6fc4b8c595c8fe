"""From per-behavior embeddings to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["mean_fusion", "weighted_fusion"]


def mean_fusion(embeddings: Iterable[Tensor]) -> Tensor:
    r"""Average over behaviors with equal weights (RMBRec, Eq. 8).

    .. math:: z = \tfrac{1}{K} \sum_b p^{(b)}

    Shapes: K tensors (N, D) -> (N, D). A user without an edge in ``b`` still counts with the layer-0 row.
    """
    tensors = list(embeddings)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors) if len(tensors) > 1 else torch.clone(total)


def weighted_fusion(embeddings: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Add embeddings of behaviors up, by a weight per node and behavior: K x (N, D), (N, K) -> (N, D)."""
    total = weights[:, :1] * embeddings[0]
    for k, rows in enumerate(embeddings[1:], start=1):
        total = total + weights[:, k : k + 1] * rows
    return total
