"""All layers of one behavior, combined, at chosen rows: forward and backward written by hand.

Through autograd every layer costs several table-sized temporaries and every gathered block of rows a dense gradient. By
hand a layer is one neighbour sum and in-place arithmetic. Two passes do the same: `EncodeRows` in DGL and torch, for
any device, and `EncodeRowsCompiled` with the kernels of `mbgraph.nn.kernels`, which also computes the last layer for
the chosen rows only, forward and backward. Under layer normalisation the receiver's degree factor cancels, so neither
applies it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbgraph.nn import kernels
from mbgraph.nn.propagation import Relation

__all__ = ["EncodeRows", "EncodeRowsCompiled", "encode_rows"]

TINY = 1e-12  # rows shorter than this count as zero, as in torch.nn.functional.normalize
_NONE = np.empty(0, np.int32)
_NO_SCALE = np.empty(0, np.float32)


def encode_rows(
    relation: Relation,
    users: Tensor,
    items: Tensor,
    user_rows: Tensor,
    item_rows: Tensor,
    num_layers: int,
    layer_norm: bool,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Return ``weight * (layer 0 + ... + layer L)`` at rows of both sides, differentiable once.

    Shapes: (U, D), (I, D) tables, (N,), (M,) rows -> (N, D), (M, D). Rows may repeat.
    """
    compiled = (
        kernels.available
        and relation.backend == "auto"
        and users.device.type == "cpu"
        and users.dtype == torch.float32
        and num_layers > 0
    )
    function = EncodeRowsCompiled if compiled else EncodeRows
    return function.apply(users, items, user_rows, item_rows, relation, num_layers, layer_norm, weight)


class EncodeRows(torch.autograd.Function):
    """The pass in DGL (or torch.sparse) and in-place torch arithmetic."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        user_rows: Tensor,
        item_rows: Tensor,
        relation: Relation,
        num_layers: int,
        layer_norm: bool,
        weight: float,
    ) -> tuple[Tensor, Tensor]:
        """See `encode_rows`."""
        user_scale, item_scale = relation.user_scale.to(users), relation.item_scale.to(items)
        user_sum, item_sum = users.index_select(0, user_rows), items.index_select(0, item_rows)
        kept: list[Tensor] = []
        for _ in range(num_layers):
            next_users = relation.to_users(items * item_scale)  # (U, D)
            next_items = relation.to_items(users * user_scale)  # (I, D)
            if layer_norm:
                kept += [next_users, _normalize_(next_users), next_items, _normalize_(next_items)]
            else:
                next_users.mul_(user_scale)
                next_items.mul_(item_scale)
            users, items = next_users, next_items
            user_sum += users.index_select(0, user_rows)
            item_sum += items.index_select(0, item_rows)
        ctx.save_for_backward(user_rows, item_rows, *kept)
        ctx.relation, ctx.num_layers, ctx.layer_norm, ctx.weight = relation, num_layers, layer_norm, weight
        return user_sum.mul_(weight), item_sum.mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        user_rows, item_rows, *kept = ctx.saved_tensors
        relation = ctx.relation
        user_gradient, item_gradient = gradients
        user_scale, item_scale = relation.user_scale.to(user_gradient), relation.item_scale.to(item_gradient)
        width = user_gradient.shape[1]
        # The combined output reaches every layer with the same gradient.
        out_users = user_gradient.new_zeros((relation.num_users, width))
        out_items = item_gradient.new_zeros((relation.num_items, width))
        out_users.index_add_(0, user_rows, user_gradient * ctx.weight)
        out_items.index_add_(0, item_rows, item_gradient * ctx.weight)
        users, items = out_users, out_items  # gradient at the layer in hand
        for layer in reversed(range(ctx.num_layers)):
            if ctx.layer_norm:
                user_unit, user_inverse, item_unit, item_inverse = kept[4 * layer : 4 * layer + 4]
                users = _normalize_backward(users, user_unit, user_inverse)
                items = _normalize_backward(items, item_unit, item_inverse)
            else:
                users, items = users * user_scale, items * item_scale
            below_items = relation.to_items(users).mul_(item_scale).add_(out_items)
            below_users = relation.to_users(items).mul_(user_scale).add_(out_users)
            users, items = below_users, below_items
        return users, items, None, None, None, None, None, None


def _normalize_(rows: Tensor) -> Tensor:
    """Normalise rows in place and return the inverse norms (N, 1), 0 for zero rows."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    inverse = torch.where(norms > TINY, norms.reciprocal(), torch.zeros_like(norms))
    rows.mul_(inverse)
    return inverse


def _normalize_backward(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient before ``y / |y|``: project out the direction of the row, divide by its norm."""
    along = torch.linalg.vecdot(gradient, unit).unsqueeze(1)  # (N, 1)
    return torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)


class _Side:
    """One side (users or items) of a compiled pass: its adjacency, its chosen rows and its layers."""

    def __init__(self, relation: Relation, side: str, table: Tensor, rows: Tensor) -> None:
        self.bounds, self.indptr, self.indices = relation.compiled(side)
        scale = relation.user_scale if side == "user" else relation.item_scale
        self.scale = scale.numpy().reshape(-1)
        self.layer = table.detach().contiguous().numpy()
        self.chosen, self.expand = torch.unique(rows, return_inverse=True)
        self.rows = self.chosen.numpy()
        self.position = np.full(len(self.scale), -1, np.int32)
        self.position[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        self.total = self.layer[self.rows]  # (n, D)
        self.units: list[np.ndarray[Any, Any]] = []
        self.inverses: list[np.ndarray[Any, Any]] = []

    def advance(self, other: _Side, source: np.ndarray[Any, Any], last: bool, layer_norm: bool) -> None:
        """Compute the next layer from the other side's ``source``; the last one for the chosen rows only."""
        forward_layer, _ = kernels.width_kernels(source.shape[1])
        count = len(self.rows) if last else len(self.scale)
        out = np.empty((count, source.shape[1]), np.float32)
        inverse = np.empty(count if layer_norm else 0, np.float32)
        bounds = kernels.even_chunks(count) if last else self.bounds
        forward_layer(
            bounds,
            self.indptr,
            self.indices,
            other.scale,
            source,
            self.rows,
            not last,
            self.scale,
            layer_norm,
            out,
            inverse,
        )
        self.layer = out
        self.total += out if last else out[self.rows]
        self.units.append(out if layer_norm else _NO_UNIT)
        self.inverses.append(inverse)


_NO_UNIT = np.empty((0, 0), np.float32)


class EncodeRowsCompiled(torch.autograd.Function):
    """The pass in compiled kernels, for float32 on the CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        user_rows: Tensor,
        item_rows: Tensor,
        relation: Relation,
        num_layers: int,
        layer_norm: bool,
        weight: float,
    ) -> tuple[Tensor, Tensor]:
        """See `encode_rows`."""
        kernels.set_threads(torch.get_num_threads())
        user, item = _Side(relation, "user", users, user_rows), _Side(relation, "item", items, item_rows)
        for layer in range(1, num_layers + 1):
            user_source, item_source = user.layer, item.layer
            user.advance(item, item_source, layer == num_layers, layer_norm)
            item.advance(user, user_source, layer == num_layers, layer_norm)
        ctx.sides, ctx.num_layers, ctx.layer_norm, ctx.weight = (user, item), num_layers, layer_norm, weight
        user_total, item_total = (
            torch.from_numpy(user.total).mul_(weight),
            torch.from_numpy(item.total).mul_(weight),
        )
        return user_total.index_select(0, user.expand), item_total.index_select(0, item.expand)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        kernels.set_threads(torch.get_num_threads())
        base, source = [], []
        for side, gradient in zip(ctx.sides, gradients, strict=True):
            compact = gradient.new_zeros((len(side.rows), gradient.shape[1]))
            compact.index_add_(0, side.expand, gradient * ctx.weight)  # (n, D)
            base.append(compact.numpy())
            if ctx.layer_norm:
                unit, inverse = (
                    torch.from_numpy(side.units[-1]),
                    torch.from_numpy(side.inverses[-1]).unsqueeze(1),
                )
                source.append(_normalize_backward(compact, unit, inverse).numpy())
            else:
                source.append(base[-1] * side.scale[side.rows, None])
        positions = [side.position for side in ctx.sides]
        for layer in reversed(range(ctx.num_layers)):
            made = [
                _back(side, source[1 - number], positions[1 - number], base[number], layer, ctx.layer_norm)
                for number, side in enumerate(ctx.sides)
            ]
            source, positions = made, [_NONE, _NONE]
        return torch.from_numpy(source[0]), torch.from_numpy(source[1]), None, None, None, None, None, None


def _back(
    side: _Side,
    source: np.ndarray[Any, Any],
    position: np.ndarray[Any, Any],
    base: np.ndarray[Any, Any],
    layer: int,
    layer_norm: bool,
) -> np.ndarray[Any, Any]:
    """Return the gradient of one side before layer ``layer`` was finished; layer 0 is the table itself."""
    _, gather_back = kernels.width_kernels(source.shape[1])
    out = np.empty((len(side.scale), source.shape[1]), np.float32)
    norm = layer_norm and layer > 0
    unit = side.units[layer - 1] if norm else _NO_UNIT
    inverse = side.inverses[layer - 1] if norm else _NO_SCALE
    scale_self = side.scale if layer > 0 and not layer_norm else _NO_SCALE
    gather_back(
        side.bounds, side.indptr, side.indices, source, position, side.scale, base, side.position, unit, inverse, norm,
        scale_self, out,
    )  # fmt: skip
    return out
