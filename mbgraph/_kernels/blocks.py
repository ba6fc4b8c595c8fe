r"""Several relations as one matrix, and the pass over it that a graphics card takes: a kernel per layer, no atomics.

Rows and columns of the matrix are the nodes of every relation, users before items: row ``k N + n`` is node ``n`` of
relation ``k``, with ``N = U + I``. A relation's block is symmetric, as an item lists its users and a user its items, so
the derivative of a layer reads the same lists:

.. math:: x_r = \frac{\sum_c s_c z_c}{\lVert\cdot\rVert}, \qquad
    \frac{\partial}{\partial z_r} = s_r \sum_c \frac{g_c - x_c \langle g_c, x_c \rangle}{\lVert\cdot\rVert_c}

Three functions do the work, and stand twice with the same signatures: in torch, for any device, which the tests hold to
autograd (`Plain`), and as kernels in Triton (`mbgraph._kernels.triton_blocks`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mbgraph._kernels.encode import Operator, flat
from mbgraph.derivatives import TINY, derive_plainly
from mbgraph.errors import UsageError

__all__ = ["BlockKernels", "BlockMatrix", "Plain", "block_kernels", "encode_blocks"]

_MOST = 2**31 - 2**16  # a program counts some places past the end of a row

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class BlockMatrix:
    """K relations over U users and I items as one matrix of R = K (U + I) rows.

    Attributes
    ----------
    pointers : int32 tensor (R + 1,)
    columns : int32 tensor (E,)
        Neighbours of every row, ascending: numbers of nodes, from 0 to N - 1, of the row's own relation.
    order : int32 tensor (R,)
        Rows by their number of neighbours, most first: long rows begin early, and rows of one length run together.
    send, receive : float32 tensor (R,)
        Factors on a row when neighbours read it, and on the sum of what it reads.
    num_users, num_items, count : int
        U, I and K.
    """

    pointers: Tensor
    columns: Tensor
    order: Tensor
    send: Tensor
    receive: Tensor
    num_users: int
    num_items: int
    count: int

    @property
    def num_nodes(self) -> int:
        """N = U + I."""
        return self.num_users + self.num_items

    @property
    def num_rows(self) -> int:
        """R = K N."""
        return self.count * self.num_nodes

    @classmethod
    def of(cls, operators: Sequence[Operator], device: torch.device | str = "cpu") -> BlockMatrix:
        """Return relations over the same nodes as one matrix on a device.

        Raises
        ------
        UsageError
            If there are more pairs than 32-bit numbers can count.
        """
        sizes = [len(side) for side in operators[0].send]
        lists = [side for operator in operators for side in operator.lists]
        total = sum(len(side.indices) for side in lists)
        if total > _MOST or len(operators) * sum(sizes) > _MOST:
            raise UsageError(
                f"{total // 2:,} pairs are more than the kernels of backend=triton number", "use --set backend=torch"
            )
        columns = np.empty(total, np.int32)
        degrees = np.concatenate([np.diff(side.pointers) for side in lists])
        start = 0
        for number, side in enumerate(lists):
            stop = start + len(side.indices)
            columns[start:stop] = side.indices
            columns[start:stop] += 0 if number % 2 else sizes[0]  # users list items, whose numbers come behind theirs
            start = stop
        pointers = np.zeros(len(degrees) + 1, np.int32)
        np.cumsum(degrees, out=pointers[1:])
        order = np.argsort(-degrees, kind="stable").astype(np.int32)
        factors = (
            np.concatenate([side for operator in operators for side in both(operator)]).astype(np.float32)
            for both in (lambda operator: operator.send, lambda operator: operator.receive)
        )
        lists_of, places, by_length, send, receive = (
            torch.from_numpy(part).to(device) for part in (pointers, columns, order, *factors)
        )
        return cls(lists_of, places, by_length, send, receive, sizes[0], sizes[1], len(operators))

    @cached_property
    def ones(self) -> Tensor:
        """The matrix with 1 in every place, as torch multiplies it: sparse (R, R)."""
        lengths = self.pointers.long().diff()
        relation = torch.arange(self.num_rows, device=self.pointers.device) // self.num_nodes
        base = (relation * self.num_nodes).repeat_interleave(lengths, output_size=len(self.columns))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its CSR layout beta on first use
            return torch.sparse_csr_tensor(
                self.pointers.long(), self.columns + base, torch.ones(len(base), device=base.device),
                (self.num_rows, self.num_rows), check_invariants=False,
            )  # fmt: skip

    def dense(self) -> Tensor:
        """Return the matrix with its factors, for tests: ``receive[r] send[c]`` where row r lists c: (R, R)."""
        made: Tensor = self.receive.unsqueeze(1) * self.ones.to_dense() * self.send
        return made


class BlockKernels(Protocol):
    """What one layer takes; ``source`` and all rows are float32 tensors (R, D), contiguous."""

    def forward(
        self,
        matrix: BlockMatrix,
        source: Tensor,
        layer_norm: bool,
        weight: float,
        first: float | None,
        total: Tensor,
        out: Tensor,
        inverse: Tensor,
    ) -> None:
        """Write the next layer to ``out``, one over its norms to ``inverse`` (R,), and add ``weight`` times it.

        In the first layer, where ``first`` is not None, ``source`` is the table (N, D) that all relations read, and
        ``total`` is written: ``first`` times the table, plus. Without ``layer_norm`` nothing is written to ``inverse``.
        """
        ...

    def derive(
        self,
        matrix: BlockMatrix,
        gradient: Tensor,
        weight: float,
        layer_norm: bool,
        rows: Tensor,
        inverse: Tensor,
        out: Tensor,
    ) -> None:
        """Write the gradient of the sums that became ``rows``, given ``weight`` times theirs; ``out`` may be it."""
        ...

    def back(self, matrix: BlockMatrix, sums: Tensor, gradient: Tensor, weight: float, out: Tensor) -> None:
        """Write ``weight`` times a gradient, plus what neighbours' ``sums`` give a row that they read."""
        ...


class Plain(BlockKernels):
    """The kernels in torch."""

    def forward(
        self,
        matrix: BlockMatrix,
        source: Tensor,
        layer_norm: bool,
        weight: float,
        first: float | None,
        total: Tensor,
        out: Tensor,
        inverse: Tensor,
    ) -> None:
        """See `BlockKernels.forward`."""
        shared = source if first is None else source.repeat(matrix.count, 1)  # (R, D)
        torch.mm(matrix.ones, matrix.send.unsqueeze(1) * shared, out=out)
        if layer_norm:
            torch.reciprocal(torch.linalg.vector_norm(out, dim=1).clamp_min_(TINY), out=inverse)
            out *= inverse.unsqueeze(1)
        else:
            out *= matrix.receive.unsqueeze(1)
        if first is not None:
            torch.mul(shared, first, out=total)
        total.add_(out, alpha=weight)

    def derive(
        self,
        matrix: BlockMatrix,
        gradient: Tensor,
        weight: float,
        layer_norm: bool,
        rows: Tensor,
        inverse: Tensor,
        out: Tensor,
    ) -> None:
        """See `BlockKernels.derive`."""
        if not layer_norm:
            torch.mul(gradient, weight * matrix.receive.unsqueeze(1), out=out)
            return
        scaled = weight * gradient
        along = torch.linalg.vecdot(scaled, rows).masked_fill(inverse >= 1 / TINY, 0.0)  # a clamped norm is a constant
        torch.mul(scaled - rows * along.unsqueeze(1), inverse.unsqueeze(1), out=out)

    def back(self, matrix: BlockMatrix, sums: Tensor, gradient: Tensor, weight: float, out: Tensor) -> None:
        """See `BlockKernels.back`."""
        torch.mm(matrix.ones, sums, out=out)
        out.mul_(matrix.send.unsqueeze(1)).add_(gradient, alpha=weight)


class _EncodeBlocks(torch.autograd.Function):
    """All layers of all relations: two tables -> (R, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        matrix: BlockMatrix,
        weights: Sequence[float],
        layer_norm: bool,
        kernels: BlockKernels,
        plain: Callable[[Tensor, Tensor], Pairs],
    ) -> Tensor:
        table = torch.cat([users, items])  # (N, D)
        total = table.new_empty(matrix.num_rows, table.shape[1])
        layers: list[Tensor] = []
        inverses: list[Tensor] = []
        source = table
        for number, weight in enumerate(weights[1:]):
            out, inverse = torch.empty_like(total), total.new_empty(matrix.num_rows if layer_norm else 0)
            first = None if number else weights[0]
            kernels.forward(matrix, source, layer_norm, weight, first, total, out, inverse)
            if layer_norm and any(ctx.needs_input_grad):  # otherwise the derivative does not look at rows
                layers.append(out)
                inverses.append(inverse)
            source = out
        ctx.save_for_backward(users, items, *layers, *inverses)
        ctx.matrix, ctx.weights, ctx.layer_norm, ctx.kernels, ctx.plain = matrix, weights, layer_norm, kernels, plain
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both tables."""
        matrix: BlockMatrix = ctx.matrix
        users, items, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody derives the derivative: let autograd write it down
            parts = flat(_parted(gradients[0], matrix))
            made = derive_plainly(lambda *tables: flat(ctx.plain(*tables)), (users, items), parts)
            return *made, None, None, None, None, None
        gradient, depth = gradients[0].contiguous(), len(ctx.weights) - 1
        layers, inverses = kept[:depth], kept[depth:]
        nothing = gradient.new_empty(0)
        below, sums = gradient, torch.empty_like(gradient)
        weight = ctx.weights[depth]
        for layer in reversed(range(depth)):
            own = (layers[layer], inverses[layer]) if ctx.layer_norm else (nothing, nothing)
            ctx.kernels.derive(matrix, below, weight, ctx.layer_norm, *own, sums)
            below = torch.empty_like(gradient) if below is gradient else below
            ctx.kernels.back(matrix, sums, gradient, ctx.weights[layer], below)
            weight = 1.0
        table = below.view(matrix.count, matrix.num_nodes, -1).sum(0)  # (N, D)
        return table[: matrix.num_users], table[matrix.num_users :], None, None, None, None, None


def _parted(rows: Tensor, matrix: BlockMatrix) -> Pairs:
    """Return the rows of every relation: (R, D) -> K x ((U, D), (I, D))."""
    parts = rows.split([matrix.num_users, matrix.num_items] * matrix.count)
    return list(zip(parts[::2], parts[1::2], strict=True))


def encode_blocks(
    matrix: BlockMatrix,
    users: Tensor,
    items: Tensor,
    at: Sequence[tuple[Tensor, Tensor]] | None,
    weights: Sequence[float],
    layer_norm: bool,
    kernels: BlockKernels,
    plain: Callable[[Tensor, Tensor], Pairs],
) -> Pairs:
    """Return ``sum over l of weights[l] * layer l`` of every relation, at all rows or at chosen ones.

    Parameters
    ----------
    matrix : BlockMatrix
    users, items : float32 tensor (U, D), (I, D)
        Layer 0, where the matrix is.
    at : sequence of (int64 tensor (N,), int64 tensor (M,)), optional
        Rows per relation; they may repeat.
    weights, layer_norm, plain
        See `mbgraph._kernels.encode`.
    kernels : BlockKernels

    Returns
    -------
    list of (Tensor (N, D), Tensor (M, D))
    """
    total = _EncodeBlocks.apply(users, items, matrix, tuple(weights), layer_norm, kernels, plain)  # (R, D)
    if at is None:
        return _parted(total, matrix)
    # one pick for all: the derivative of each pick would be a table of its own
    places = []
    for number, (own_users, own_items) in enumerate(at):
        start = number * matrix.num_nodes
        places += [own_users + start, own_items + start + matrix.num_users]
    parts = total.index_select(0, torch.cat(places)).split([len(part) for part in places])
    return list(zip(parts[::2], parts[1::2], strict=True))


def block_kernels(device: torch.device) -> BlockKernels | None:
    """Return the kernels for a device: those in Triton on CUDA where it is installed, otherwise None."""
    if device.type != "cuda":
        return None
    try:
        from mbgraph._kernels.triton_blocks import Triton
    except ImportError:
        return None
    return Triton()
