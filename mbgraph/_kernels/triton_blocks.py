"""The kernels of `mbgraph._kernels.blocks` in Triton: a program per row, neighbours in a fixed order, nothing atomic.

Nothing imports this module where Triton or a CUDA device is missing; with ``TRITON_INTERPRET=1`` Triton itself runs it
on CPU tensors, which is how the tests do.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mbgraph._kernels.blocks import BlockKernels, BlockMatrix
from mbgraph.derivatives import TINY

__all__ = ["Triton"]

_TINY = tl.constexpr(TINY)
_LOADS = 4096  # of a program at a time, at most


@triton.jit
def _forward(
    pointers, columns, order, send, receive, source, total, out, inverse, nodes, width, weight, first,
    FIRST: tl.constexpr, NORM: tl.constexpr, EDGES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.load(order + tl.program_id(0)).to(tl.int64)
    base = (row // nodes) * nodes
    numbers = tl.arange(0, WIDTH)
    inside = numbers < width
    start, stop = tl.load(pointers + row), tl.load(pointers + row + 1)
    summed = tl.zeros((WIDTH,), tl.float32)
    for edge in range(start, stop, EDGES):
        places = edge + tl.arange(0, EDGES)
        valid = places < stop
        column = tl.load(columns + places, mask=valid, other=0).to(tl.int64)
        factor = tl.load(send + base + column, mask=valid, other=0.0)
        read = column if FIRST else base + column
        rows = tl.load(
            source + read[:, None] * width + numbers[None, :], mask=valid[:, None] & inside[None, :], other=0.0
        )
        summed += tl.sum(rows * factor[:, None], axis=0)
    if NORM:
        # rounded as torch rounds them: the quick ones of a card are off by a few units of the last place
        length = tl.sqrt_rn(tl.sum(summed * summed, axis=0))
        scale = tl.div_rn(1.0, tl.maximum(length, _TINY))
        tl.store(inverse + row, scale)
    else:
        scale = tl.load(receive + row)
    made = summed * scale
    own = row * width + numbers
    tl.store(out + own, made, mask=inside)
    if FIRST:
        known = first * tl.load(source + (row - base) * width + numbers, mask=inside, other=0.0)
    else:
        known = tl.load(total + own, mask=inside, other=0.0)
    tl.store(total + own, known + weight * made, mask=inside)


@triton.jit
def _derive(gradient, rows, inverse, receive, out, width, weight, NORM: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    numbers = tl.arange(0, WIDTH)
    inside = numbers < width
    own = row * width + numbers
    given = weight * tl.load(gradient + own, mask=inside, other=0.0)
    if NORM:
        scale = tl.load(inverse + row)
        unit = tl.load(rows + own, mask=inside, other=0.0)
        along = tl.where(scale >= 1.0 / _TINY, 0.0, tl.sum(given * unit, axis=0))
        given = (given - unit * along) * scale
    else:
        given = given * tl.load(receive + row)
    tl.store(out + own, given, mask=inside)


@triton.jit
def _back(
    pointers, columns, order, send, sums, gradient, out, nodes, width, weight, EDGES: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.load(order + tl.program_id(0)).to(tl.int64)
    base = (row // nodes) * nodes
    numbers = tl.arange(0, WIDTH)
    inside = numbers < width
    start, stop = tl.load(pointers + row), tl.load(pointers + row + 1)
    summed = tl.zeros((WIDTH,), tl.float32)
    for edge in range(start, stop, EDGES):
        places = edge + tl.arange(0, EDGES)
        valid = places < stop
        column = base + tl.load(columns + places, mask=valid, other=0).to(tl.int64)
        rows = tl.load(
            sums + column[:, None] * width + numbers[None, :], mask=valid[:, None] & inside[None, :], other=0.0
        )
        summed += tl.sum(rows, axis=0)
    own = row * width + numbers
    given = weight * tl.load(gradient + own, mask=inside, other=0.0)
    tl.store(out + own, given + tl.load(send + row) * summed, mask=inside)


class Triton(BlockKernels):
    """The kernels; see `mbgraph._kernels.blocks.BlockKernels`.

    Parameters
    ----------
    edges, warps : int
        Neighbours that a program reads at a time, and warps of a program. A row of 64 numbers and 16 neighbours are
        1,024 loads in flight.
    """

    def __init__(self, edges: int = 16, warps: int = 2) -> None:
        self.edges, self.warps = edges, warps

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
        width = source.shape[1]
        _forward[(matrix.num_rows,)](
            matrix.pointers, matrix.columns, matrix.order, matrix.send, matrix.receive, source, total, out, inverse,
            matrix.num_nodes, width, weight, 0.0 if first is None else first,
            FIRST=first is not None, NORM=layer_norm, **self._tile(width),
        )  # fmt: skip

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
        width = gradient.shape[1]
        _derive[(matrix.num_rows,)](
            gradient, rows, inverse, matrix.receive, out, width, weight,
            NORM=layer_norm, WIDTH=triton.next_power_of_2(width), num_warps=self.warps,
        )  # fmt: skip

    def back(self, matrix: BlockMatrix, sums: Tensor, gradient: Tensor, weight: float, out: Tensor) -> None:
        """See `BlockKernels.back`."""
        width = sums.shape[1]
        _back[(matrix.num_rows,)](
            matrix.pointers, matrix.columns, matrix.order, matrix.send, sums, gradient, out,
            matrix.num_nodes, width, weight,
            **self._tile(width),
        )  # fmt: skip

    def _tile(self, width: int) -> dict[str, int]:
        """Return how much a program reads at a time: fewer neighbours where rows are long, for want of registers."""
        padded = triton.next_power_of_2(width)
        return {"EDGES": max(1, min(self.edges, _LOADS // padded)), "WIDTH": padded, "num_warps": self.warps}
