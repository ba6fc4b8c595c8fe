"""Compiled row kernels of the hand-written pass; used when numba is installed, replaced by DGL and torch when not.

Each kernel walks destination rows once: it sums the neighbours' rows and finishes the row (scale, add, normalise or
derive the normalisation) while it is still in the cache. Rows are independent, so the sum of a row has one order
whatever the number of threads. Work is cut into chunks of equal edge counts, because popular items would otherwise
leave one core waiting for the other. A source table larger than the core's own cache is read in blocks that fit: all
destinations take what they need of one block before the next is touched.

Rows are float32 (N, D), or packed bfloat16, uint32 (N, D / 2): see `mbgraph._kernels.vectors`. Sums are float32 either
way.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbgraph._kernels.compiled import compiled
from mbgraph.derivatives import TINY

try:
    from numba import carray

    from mbgraph._kernels.vectors import BUILD, add_rows, dot, get_row, prefetch, put_row, stack_floats, wide

    available = True
except ImportError:  # numba is optional
    available = False

__all__ = ["available", "balanced_chunks", "block_pointers", "unpack_rows", "width_kernels"]

_WORTHWHILE = 4  # neighbours per row and block
_TINY = np.float32(TINY)
_AHEAD = 64  # edges between asking for a row and adding it
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UPPER = np.uint32(0xFFFF0000)
_HALF = np.uint32(16)


def balanced_chunks(indptr: np.ndarray[Any, Any], chunks: int) -> list[int]:
    """Return row boundaries that cut the rows into pieces of about equal edges + rows: (R + 1,) -> chunks + 1."""
    rows = len(indptr) - 1
    cost = indptr + 2 * np.arange(rows + 1)  # finishing a row costs about as much as two edges
    bounds = np.searchsorted(cost, np.linspace(0, cost[-1], chunks + 1))
    bounds[0], bounds[-1] = 0, rows
    return [int(bound) for bound in bounds]


def block_pointers(
    indptr: np.ndarray[Any, Any], indices: np.ndarray[Any, Any], columns: int, row_bytes: int
) -> np.ndarray[Any, Any]:
    """Cut every row's sorted neighbours where a new block of the source table begins: -> (blocks + 1, R).

    A table that does not fit the core's cache is cut into blocks of half of it, as indices and results pass through it
    too. Where that would leave a row with too few neighbours per block to be worth another visit, blocks are as large
    as the cache; where those are too many as well, there is one block.
    """
    size, cache = columns * row_bytes, _cache_bytes()
    rows = len(indptr) - 1
    for block_bytes in (cache / 2, cache) if size > cache else ():
        blocks = math.ceil(size / block_bytes)
        if len(indices) >= _WORTHWHILE * rows * blocks:
            keys = np.repeat(np.arange(rows), np.diff(indptr)) * columns + indices
            cuts = np.linspace(0, columns, blocks + 1).astype(np.int64)
            return np.stack([np.searchsorted(keys, np.arange(rows) * columns + cut) for cut in cuts])
    return np.stack([indptr[:-1], indptr[1:]])


@lru_cache(maxsize=1)
def _cache_bytes() -> int:
    """Return how much cache rows should come from: 1 MiB where the system does not tell.

    It is a core's second level. On AMD's processors it is half of the third: rows asked for ahead arrive from there as
    fast as they are added, smaller blocks only cost, and the other half belongs to the cores beside ours.
    """
    level, parts, most = (3, 2, 2**25) if _is_amd() else (2, 1, 2**22)
    try:
        text = (_CACHES / f"index{level}" / "size").read_text(encoding="ascii").strip()
    except OSError:
        text = ""
    number, unit = text[:-1], {"K": 2**10, "M": 2**20}.get(text[-1:], 0)
    return min(max(int(number) * unit // parts, 2**18), most) if unit and number.isdigit() else 2**20


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False


def unpack_rows(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return float32 rows of packed ones: uint32 (N, D / 2) -> (N, D)."""
    return np.concatenate([rows << _HALF, rows & _UPPER], axis=1).view(np.float32)


class Kernels(NamedTuple):
    """Compiled row loops, see `width_kernels`."""

    forward: Any
    back: Any
    pack: Any
    gather: Any
    collect: Any


@lru_cache(maxsize=8)
def width_kernels(width: int) -> Kernels:
    """Return the kernels compiled for rows of ``width`` numbers.

    The width is a constant of the compiled code: only then do the inner loops become a few vector instructions. All
    take ``start, stop`` first, the rows to do, and release the interpreter lock. Sources and results may be packed.
    ``cuts`` (blocks + 1, R) are `block_pointers`, ``sums`` float32 memory for a row per result where there are several
    blocks (``out`` itself if that is float32 and replaced); otherwise it is not touched.

    ``forward(start, stop, cuts, indices, scale_in, source, rows, whole, scale_out, norm, sums, out, inverse)`` writes
    ``out[k] = finish(sum over c in N(rows[k]) of scale_in[c] * source[c])``; ``whole`` means rows are 0, 1, 2, ...;
    finish divides by the norm (kept in ``inverse``) or multiplies by ``scale_out``.

    ``back(start, stop, cuts, indices, source, position, scale_out, base, base_weight, base_position, unit, inverse,
    norm, scale_self, most, add, sums, out)`` writes ``base_weight * base[r] + scale_out[r] * sum over c in N(r) of
    source[c]`` and takes it back through the layer below: its normalisation (``norm``), its receiver's scale
    (``scale_self``), or nothing (both off); ``add`` adds to ``out`` instead of replacing it. ``position`` maps a node
    to its row in a compact ``source``, -1 where the gradient is zero; empty means all rows. ``most`` is the largest
    number of neighbours.

    ``pack(start, stop, source, out)`` writes float32 rows packed.

    ``gather(start, stop, source, rows, weight, add, into)`` writes ``weight * source[rows[k]]`` to ``into[k]``, or adds
    it.

    ``collect(start, stop, gradient, places, weight, scale, unit, inverse, norm, into, out)`` sums
    ``weight * gradient[k]`` at ``into[places[k]]`` and writes to ``out`` what that is before the row was finished:
    before its normalisation (``norm``) or its ``scale``.
    """
    build = BUILD  # a variable of this function, which numba's cache sees; it does not see those of the module

    @compiled(fastmath=True)
    def forward(start, stop, cuts, indices, scale_in, source, rows, whole, scale_out, norm, sums, out, inverse):
        wide(build)
        total = carray(stack_floats(width), width)
        blocks = cuts.shape[0] - 1
        last = len(indices) - 1
        ahead = _AHEAD if blocks == 1 else 0
        for block in range(blocks):
            for k in range(start, stop):
                row = k if whole else rows[k]
                if block == 0:
                    for d in range(width):
                        total[d] = np.float32(0)
                else:
                    get_row(total, sums, k, width)
                add_rows(total, source, indices, cuts[block, row], cuts[block + 1, row], scale_in, width, ahead, last)
                if block < blocks - 1:
                    put_row(sums, k, total, np.float32(1), width)
                    continue
                if norm:
                    length = np.sqrt(dot(total, total, width))
                    factor = np.float32(1) / length if length > _TINY else np.float32(0)
                    inverse[k] = factor
                else:
                    factor = scale_out[row]
                put_row(out, k, total, factor, width)

    @compiled(fastmath=True)
    def back(
        start,
        stop,
        cuts,
        indices,
        source,
        position,
        scale_out,
        base,
        base_weight,
        base_position,
        unit,
        inverse,
        norm,
        scale_self,
        most,
        add,
        sums,
        out,
    ):
        wide(build)
        total = carray(stack_floats(width), width)
        own = carray(stack_floats(width), width)
        compact = position.shape[0] > 0
        picked = np.empty(most if compact else 0, np.uint32)
        one = np.float32(1)
        final = cuts.shape[0] - 1
        blocks = 1 if compact else final
        last = len(indices) - 1
        ahead = _AHEAD if blocks == 1 else 0
        for block in range(blocks):
            for row in range(start, stop):
                if block == 0:
                    for d in range(width):
                        total[d] = np.float32(0)
                else:
                    get_row(total, sums, row, width)
                if compact:
                    count = 0  # keep the neighbours that have a gradient; without a branch, as half of them may
                    for edge in range(cuts[0, row], cuts[final, row]):
                        place = position[indices[edge]]
                        picked[count] = np.uint32(place)
                        count += 1 if place >= 0 else 0
                    add_rows(total, source, picked, 0, count, None, width, 0, 0)
                else:
                    add_rows(total, source, indices, cuts[block, row], cuts[block + 1, row], None, width, ahead, last)
                if block < blocks - 1:
                    put_row(sums, row, total, one, width)
                    continue
                factor = scale_out[row]
                where = base_position[row]
                if where >= 0:
                    for d in range(width):
                        total[d] = factor * total[d] + base_weight * base[where, d]
                    factor = one
                if norm:
                    get_row(own, unit, row, width)
                    along = dot(total, own, width)
                    factor *= inverse[row]
                    for d in range(width):
                        total[d] -= along * own[d]
                elif scale_self.shape[0] > 0:
                    factor *= scale_self[row]
                if add:
                    get_row(own, out, row, width)
                    for d in range(width):
                        total[d] = factor * total[d] + own[d]
                    factor = one
                put_row(out, row, total, factor, width)

    @compiled(fastmath=True)
    def pack(start, stop, source, out):
        wide(build)
        values = carray(stack_floats(width), width)
        for row in range(start, stop):
            get_row(values, source, row, width)
            put_row(out, row, values, np.float32(1), width)

    @compiled(fastmath=True)
    def gather(start, stop, source, rows, weight, add, into):
        wide(build)
        values = carray(stack_floats(width), width)
        last = len(rows) - 1
        for k in range(start, stop):
            coming = rows[min(k + _AHEAD, last)]
            prefetch(source, coming, width)
            get_row(values, source, rows[k], width)
            if add:
                for d in range(width):
                    into[k, d] += weight * values[d]
            else:
                for d in range(width):
                    into[k, d] = weight * values[d]

    @compiled(fastmath=True)
    def collect(start, stop, gradient, places, weight, scale, unit, inverse, norm, into, out):
        wide(build)
        total = carray(stack_floats(width), width)
        own = carray(stack_floats(width), width)
        for row in range(start, stop):
            for d in range(width):
                into[row, d] = np.float32(0)
        for k in range(len(places)):
            row = places[k]
            if start <= row < stop:
                for d in range(width):
                    into[row, d] += weight * gradient[k, d]
        for row in range(start, stop):
            get_row(total, into, row, width)
            if norm:
                get_row(own, unit, row, width)
                along = dot(total, own, width)
                for d in range(width):
                    total[d] -= along * own[d]
                factor = inverse[row]
            else:
                factor = scale[row]
            put_row(out, row, total, factor, width)

    return Kernels(forward, back, pack, gather, collect)
