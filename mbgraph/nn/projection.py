"""Projections of rows on other rows, one by one."""

from __future__ import annotations

from torch import Tensor

__all__ = ["along", "projected", "rejected"]

_TINY = 1e-12  # added to squared norms


def along(rows: Tensor, other: Tensor) -> Tensor:
    r"""Return how far rows point along others, in lengths of the others.

    .. math:: \frac{\langle x, y \rangle}{\lVert y \rVert^2}

    Shapes: (N, D), (N, D) -> (N, 1).
    """
    return (rows * other).sum(1, keepdim=True) / (other.square().sum(1, keepdim=True) + _TINY)


def projected(rows: Tensor, other: Tensor, scale: float = 1.0) -> Tensor:
    """Return the part of rows that points along others, times a factor: (N, D), (N, D) -> (N, D)."""
    return scale * along(rows, other) * other


def rejected(rows: Tensor, other: Tensor) -> Tensor:
    """Return what the projection on others leaves of rows, orthogonal to them: (N, D), (N, D) -> (N, D)."""
    return rows - along(rows, other) * other
