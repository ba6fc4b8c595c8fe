"""All layers of several behaviors, combined, at chosen rows: forward and backward written by hand.

Through autograd every layer costs several table-sized temporaries and every gathered block of rows a dense gradient. By
hand a layer is one neighbour sum and in-place arithmetic. Two passes do the same: `EncodeRows` here, in DGL and torch,
for any device, and `mbgraph.nn.compiled.EncodeRowsCompiled` with compiled kernels, which also computes the last layer
for the chosen rows only, forward and backward. Under layer normalisation the receiver's degree factor cancels, so
neither applies it.

Rows may be kept in bfloat16 (``row_dtype``): what neighbours read is then half as long, layers and gradients alike,
while sums, norms, parameters and the result stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn import kernels
from mbgraph.nn.compiled import EncodeRowsCompiled, Workspace, encode_all_compiled
from mbgraph.nn.propagation import Relation

__all__ = [
    "ROW_DTYPES",
    "EncodeRows",
    "check_row_dtype",
    "encode_all",
    "encode_rows",
]

ROW_DTYPES = ("float32", "bfloat16")
TINY = 1e-12  # rows shorter than this count as zero, as in torch.nn.functional.normalize


def check_row_dtype(name: str, width: int) -> None:
    """Raise for an unknown row type, or a width that cannot be packed."""
    if name not in ROW_DTYPES:
        raise UnknownNameError("row dtype", name, ROW_DTYPES)
    if name == "bfloat16" and width % 2:
        raise UsageError(f"row_dtype=bfloat16 needs an even embedding_dim, got {width}", "choose an even one")


def encode_rows(
    relations: Sequence[Relation],
    users: Tensor,
    items: Tensor,
    user_rows: Sequence[Tensor],
    item_rows: Sequence[Tensor],
    num_layers: int,
    layer_norm: bool,
    weight: float,
    row_dtype: str = "float32",
    workspace: Workspace | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return ``weight * (layer 0 + ... + layer L)`` at rows of both sides per relation, differentiable once.

    Shapes: (U, D), (I, D) tables, K x (N,), K x (M,) rows -> K x ((N, D), (M, D)). Rows may repeat.
    """
    if _is_compiled(relations, users, num_layers):
        space = Workspace() if workspace is None else workspace
        flat = EncodeRowsCompiled.apply(
            users, items, user_rows, item_rows, relations, num_layers, layer_norm, weight, row_dtype, space
        )
        return list(zip(flat[::2], flat[1::2], strict=True))
    return [
        EncodeRows.apply(users, items, *rows, relation, num_layers, layer_norm, weight, row_dtype)
        for relation, *rows in zip(relations, user_rows, item_rows, strict=True)
    ]


@torch.no_grad()
def encode_all(
    relations: Sequence[Relation],
    users: Tensor,
    items: Tensor,
    num_layers: int,
    layer_norm: bool,
    weight: float,
    workspace: Workspace | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return ``weight * (layer 0 + ... + layer L)`` of all rows per relation, in float32, for nobody to derive.

    Shapes: (U, D), (I, D) tables -> K x ((U, D), (I, D)).
    """
    if _is_compiled(relations, users, num_layers):
        space = Workspace() if workspace is None else workspace
        return encode_all_compiled(relations, users, items, num_layers, layer_norm, weight, space)
    every = [torch.arange(len(table), device=table.device) for table in (users, items)]
    options = (num_layers, layer_norm, weight, "float32")
    return [EncodeRows.apply(users, items, *every, relation, *options) for relation in relations]


def _is_compiled(relations: Sequence[Relation], users: Tensor, num_layers: int) -> bool:
    return (
        kernels.available
        and all(relation.backend == "auto" for relation in relations)
        and users.device.type == "cpu"
        and users.dtype == torch.float32
        and num_layers > 0
    )


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
        row_dtype: str,
    ) -> tuple[Tensor, Tensor]:
        """See `encode_rows`."""
        rounded = _rounding(row_dtype)
        user_scale, item_scale = relation.user_scale.to(users), relation.item_scale.to(items)
        user_sum, item_sum = users.index_select(0, user_rows), items.index_select(0, item_rows)
        kept: list[Tensor] = []
        for layer in range(1, num_layers + 1):
            next_users = relation.to_users(rounded(items) * item_scale)  # (U, D)
            next_items = relation.to_items(rounded(users) * user_scale)  # (I, D)
            if layer_norm:
                kept += [next_users, _normalize_(next_users), next_items, _normalize_(next_items)]
            else:
                next_users.mul_(user_scale)
                next_items.mul_(item_scale)
            if layer < num_layers:  # neighbours do not read the last layer
                next_users, next_items = rounded(next_users), rounded(next_items)
            users, items = next_users, next_items
            user_sum += users.index_select(0, user_rows)
            item_sum += items.index_select(0, item_rows)
        ctx.save_for_backward(user_rows, item_rows, *kept)
        ctx.relation, ctx.num_layers, ctx.layer_norm, ctx.weight = relation, num_layers, layer_norm, weight
        ctx.rounded = rounded
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
            users, items = ctx.rounded(users), ctx.rounded(items)
            below_items = relation.to_items(users).mul_(item_scale).add_(out_items)
            below_users = relation.to_users(items).mul_(user_scale).add_(out_users)
            users, items = below_users, below_items
        return users, items, None, None, None, None, None, None, None


def _rounding(row_dtype: str) -> Any:
    """Return what storing rows in a type does to their numbers."""
    return (lambda rows: rows.bfloat16().float()) if row_dtype == "bfloat16" else (lambda rows: rows)


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
