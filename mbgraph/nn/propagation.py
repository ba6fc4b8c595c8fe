r"""Message passing over relations: one function, whatever computes it.

.. math:: X^{(l+1)} = \hat A X^{(l)}, \qquad Z = \sum_{l=0}^{L} w_l X^{(l)}

with the relation's normalised adjacency :math:`\hat A`. Compiled kernels do it for float32 tables on the CPU where
numba is installed, and on CUDA where relations have ``backend="triton"`` (`mbgraph._kernels`); otherwise, inside
``torch.compile`` and where somebody derives a derivative, torch does it through `Relation.neighbor_sum`. All give the
same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbgraph import _kernels, processes
from mbgraph._kernels import Workspace
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.nn.blocks import in_block, read_in_block
from mbgraph.nn.relation import Relation

__all__ = [
    "ROW_DTYPES",
    "Between",
    "Rows",
    "check_row_dtype",
    "hop",
    "propagate",
    "propagate_each",
    "rows_added",
    "rows_at",
]

ROW_DTYPES = ("float32", "bfloat16")

Rows = tuple[Tensor, Tensor]
"""User rows and item rows: two tables (U, D), (I, D), or row numbers (N,), (M,)."""

Between = Callable[[int, Tensor, Tensor], Rows]
"""``between(layer, users, items)`` returns what takes the place of a layer (from 1): (U, D), (I, D) -> the same. Of the
last layer it is given the wanted rows only, (N, D), (M, D), where rows are chosen."""


def propagate(
    relation: Relation,
    users: Tensor,
    items: Tensor,
    num_layers: int,
    *,
    layer_norm: bool = False,
    weights: Sequence[float] | None = None,
    residual: bool = False,
    between: Between | None = None,
    at: Rows | None = None,
    row_dtype: str = "float32",
    space: Workspace | None = None,
) -> Rows:
    """Return the weighted sum of layers 0..L of both sides, at all rows or at chosen ones.

    Parameters
    ----------
    relation : Relation
    users, items : Tensor (U, D), (I, D)
        Layer 0.
    num_layers : int
        L.
    layer_norm : bool
        Divide every propagated row by its Euclidean norm; the normalised row is what the next layer reads.
    weights : sequence of float, optional
        L + 1 factors of layers 0..L; their mean by default.
    residual : bool
        Add each layer to the next: ``X + A X`` instead of ``A X`` (before ``layer_norm`` nothing is added).
    between : callable, optional
        ``between(layer, users, items)`` replaces a propagated layer before it is read again: noise, a bias. With ``at``
        it is given the last layer at those rows.
    at : (int64 tensor (N,), int64 tensor (M,)), optional
        Rows wanted; they may repeat. The last layer is then computed there only, where nothing stands against it.
    row_dtype : {"float32", "bfloat16"}
        What neighbours read: with bfloat16 half the bytes move, while sums, norms and results are float32. A layer that
        neighbours read is kept as they read it.
    space : Workspace, optional
        Memory that one call gives back and the next takes again.

    Returns
    -------
    (Tensor, Tensor)
        (U, D), (I, D), or (N, D), (M, D) with ``at``. A node without an edge has zero rows in layers 1..L.

    Raises
    ------
    UsageError
        If ``weights`` are not L + 1, a row of ``at`` is negative or beyond its table, or tables do not fit the
        relation.

    References
    ----------
    He et al., "LightGCN", SIGIR 2020, Eq. 3-4 (the mean); RMBRec's code (``layer_norm``, all weights 1).
    """
    factors = _weights(num_layers, weights)
    if residual and layer_norm:
        raise UsageError("propagate knows no residual with layer_norm", "leave one of them out")
    if between is None and not residual:
        (pair,) = propagate_each(
            [relation], users, items, num_layers, layer_norm=layer_norm, weights=factors,
            at=None if at is None else [at], row_dtype=row_dtype, space=space,
        )  # fmt: skip
        return pair
    _check([relation], users, items, None if at is None else [at], row_dtype)
    space = Workspace() if space is None else space
    steps = (1.0, 1.0) if residual else (0.0, 1.0)
    total: Rows | None = None
    layer = (users, items)
    for number, factor in enumerate(factors):
        if number:
            layer = propagate(
                relation, *layer, 1, layer_norm=layer_norm, weights=steps, at=at if number == num_layers else None,
                row_dtype=row_dtype, space=space,
            )  # fmt: skip
            if between is not None:
                layer = between(number, *layer)
        if factor:
            here = layer if number and number == num_layers else rows_at(layer, at)
            scaled = here if factor == 1 else (factor * here[0], factor * here[1])
            total = scaled if total is None else rows_added(total, scaled)
    return total if total is not None else rows_at((users * 0.0, items * 0.0), at)


def propagate_each(
    relations: Sequence[Relation],
    users: Tensor,
    items: Tensor,
    num_layers: int,
    *,
    layer_norm: bool = False,
    weights: Sequence[float] | None = None,
    at: Sequence[Rows] | None = None,
    row_dtype: str = "float32",
    space: Workspace | None = None,
) -> list[Rows]:
    """Like `propagate` for several relations that share layer 0, in one round of work; ``at`` has rows per relation.

    Shapes: (U, D), (I, D) -> K x ((U, D), (I, D)), or K x ((N, D), (M, D)) with ``at``.
    """
    relations = read_in_block(relations)
    _check(relations, users, items, at, row_dtype)
    factors = _weights(num_layers, weights)
    while len(factors) > 1 and factors[-1] == 0:
        factors = factors[:-1]  # a layer that nobody reads
    plain = partial(_plain, relations, factors, layer_norm, at, row_dtype)
    kernels = None if len(factors) == 1 else _block_kernels(relations, users, items, row_dtype)
    if kernels is not None:
        matrix = relations[0].joined(relations, users.device)
        return _kernels.encode_blocks(matrix, users, items, at, factors, layer_norm, kernels, plain)
    if len(factors) == 1 or not _is_compiled(relations, users, items):
        return plain(users, items)
    recorded = torch.is_grad_enabled() and (users.requires_grad or items.requires_grad)
    if at is None and recorded:
        everyone = (torch.arange(len(users)), torch.arange(len(items)))
        at = [everyone] * len(relations)
    operators = [relation.operator() for relation in relations]
    space = Workspace() if space is None else space
    return _kernels.encode(operators, users, items, at, factors, layer_norm, row_dtype, space, plain)


def hop(
    relation: Relation, users: Tensor, items: Tensor, *, row_dtype: str = "float32", space: Workspace | None = None
) -> Rows:
    """Return layer 1 alone, what every node reads of its neighbours: (U, D), (I, D) -> the same; see `propagate`."""
    return propagate(relation, users, items, 1, weights=(0.0, 1.0), row_dtype=row_dtype, space=space)


def _is_compiled(relations: Sequence[Relation], users: Tensor, items: Tensor) -> bool:
    return (
        _kernels.available
        and users.shape[1] <= _kernels.WIDEST
        and not torch.compiler.is_compiling()
        and all(relation.backend in ("auto", "triton") for relation in relations)
        and all(table.device.type == "cpu" and table.dtype == torch.float32 for table in (users, items))
    )


def _block_kernels(
    relations: Sequence[Relation], users: Tensor, items: Tensor, row_dtype: str
) -> _kernels.BlockKernels | None:
    """Return the kernels of a graphics card where somebody asked for them and they can do it, None otherwise."""
    if (
        any(relation.backend != "triton" for relation in relations)
        or {users.dtype, items.dtype} != {torch.float32}
        or row_dtype != "float32"
        or users.shape[1] > _kernels.WIDEST
        or torch.compiler.is_compiling()
        or processes.count() > 1
        or in_block()
    ):
        return None
    return _kernels.block_kernels(users.device)


def _plain(
    relations: Sequence[Relation],
    weights: Sequence[float],
    layer_norm: bool,
    at: Sequence[Rows] | None,
    row_dtype: str,
    users: Tensor,
    items: Tensor,
) -> list[Rows]:
    """Return what `propagate_each` does, by operations that torch records and derives any number of times."""
    made = []
    for number, relation in enumerate(relations):
        layer: Rows = (users, items)
        total = (weights[0] * users, weights[0] * items)
        for depth, weight in enumerate(weights[1:], start=1):
            layer = _next_layer(relation, layer, layer_norm, row_dtype)
            if row_dtype != "float32" and depth < len(weights) - 1:  # stored as neighbours read it
                layer = (_Round.apply(layer[0], True, False), _Round.apply(layer[1], True, False))
            if weight:
                total = (total[0] + weight * layer[0], total[1] + weight * layer[1])
        made.append(rows_at(total, None if at is None else at[number]))
    return made


def _next_layer(relation: Relation, layer: Rows, layer_norm: bool, row_dtype: str) -> Rows:
    made = []
    for to, source_side, source in (("user", "item", layer[1]), ("item", "user", layer[0])):
        device, dtype = source.device, source.dtype
        read = source if row_dtype == "float32" else _Round.apply(source, True, False)
        summed = relation.neighbor_sum(relation.send(source_side, device, dtype) * read, to)
        if row_dtype != "float32":
            summed = _Round.apply(summed, False, True)  # neighbours read gradients in the same type
        if layer_norm:
            made.append(torch.nn.functional.normalize(summed))
        else:
            made.append(relation.receive(to, device, dtype) * summed)
    return made[0], made[1]


class _Round(torch.autograd.Function):
    """What storing rows in bfloat16 does to their numbers, or to those of their gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, values: bool, gradients: bool) -> Tensor:
        ctx.gradients = gradients
        return rows.bfloat16().to(rows.dtype) if values else rows.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient.bfloat16().to(gradient.dtype) if ctx.gradients else gradient, None, None


def rows_at(pair: Rows, at: Rows | None) -> Rows:
    """Return chosen rows of both sides, all for None: (U, D), (I, D) -> (N, D), (M, D)."""
    return pair if at is None else (pair[0].index_select(0, at[0]), pair[1].index_select(0, at[1]))


def rows_added(first: Rows, *others: Rows) -> Rows:
    """Return the sum of several pairs, side by side, in their order: (U, D), (I, D) each -> (U, D), (I, D)."""
    users, items = first
    for more_users, more_items in others:
        users, items = users + more_users, items + more_items
    return users, items


def _weights(num_layers: int, weights: Sequence[float] | None) -> tuple[float, ...]:
    if num_layers < 0:
        raise UsageError(f"num_layers must not be negative, got {num_layers}")
    if weights is None:
        return (1.0 / (num_layers + 1),) * (num_layers + 1)
    if len(weights) != num_layers + 1:
        raise UsageError(f"{num_layers} layers need {num_layers + 1} weights, one for layer 0 too, not {len(weights)}")
    return tuple(float(weight) for weight in weights)


def _check(
    relations: Sequence[Relation], users: Tensor, items: Tensor, at: Sequence[Rows] | None, row_dtype: str
) -> None:
    """Raise for tables or rows that do not fit the relations."""
    for relation in relations:
        for kind, table, count in (("user", users, relation.num_users), ("item", items, relation.num_items)):
            if table.ndim != 2 or len(table) != count:
                raise UsageError(f"the relation has {count} {kind}s, the {kind} table is {tuple(table.shape)}")
    check_row_dtype(row_dtype, users.shape[1])
    if at is not None and not torch.compiler.is_compiling():
        for pair in at:
            _check_rows("user", pair[0], len(users))
            _check_rows("item", pair[1], len(items))


def _check_rows(kind: str, rows: Tensor, count: int) -> None:
    """Raise for a row outside the table: compiled kernels check no index.

    Elsewhere than on the CPU torch picks rows, which checks them on the device; to ask for the extremes here would wait
    for everything that the device still has to do.
    """
    if rows.ndim != 1 or rows.dtype not in (torch.int64, torch.int32):
        raise UsageError(f"{kind} rows must be whole numbers (N,), not {rows.dtype} {tuple(rows.shape)}")
    if len(rows) and rows.device.type == "cpu":
        low, high = (int(bound) for bound in torch.aminmax(rows))
        if low < 0 or high >= count:
            raise UsageError(
                f"{kind} row {low if low < 0 else high} is outside the table of {count} rows",
                "leave rows of -1 out: they stand for a behavior that a user lacks" if low < 0 else None,
            )


def check_row_dtype(name: str, width: int) -> None:
    """Raise `UsageError` unless rows of a width can be read in a type."""
    if name not in ROW_DTYPES:
        raise UnknownNameError("row dtype", name, ROW_DTYPES)
    if name == "bfloat16" and width % 2:
        raise UsageError(f"row_dtype=bfloat16 needs an even embedding_dim, got {width}", "choose an even one")
