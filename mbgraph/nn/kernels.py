"""Compiled row kernels of the hand-written pass; used when numba is installed, replaced by DGL and torch when not.

Each kernel walks destination rows once: it sums the neighbours' rows and finishes the row (scale, add, normalise or
derive the normalisation) while it is still in the cache. Rows are independent, so the sum of a row has one order
whatever the number of threads. Work is cut into chunks of equal edge counts, because popular items would otherwise
leave one core waiting for the other. A source table larger than the core's own cache is read in blocks that fit: all
destinations take what they need of one block before the next is touched.

Rows are float32 (N, D), or packed bfloat16: uint32 (N, D / 2), where word ``d`` holds number ``d`` in its lower and
number ``d + D / 2`` in its upper half, so that unpacking is a shift and a mask. Sums are float32 either way.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

try:
    from llvmlite import ir
    from numba import carray, njit, types
    from numba.core import cgutils
    from numba.extending import intrinsic as numba_intrinsic
    from numba.extending import overload, register_jitable

    intrinsic: Any = numba_intrinsic  # its type says that the compiler's argument is the caller's
    available = True
except ImportError:  # numba is optional
    available = False

__all__ = ["available", "balanced_chunks", "block_pointers", "even_chunks", "unpack_rows", "width_kernels"]

_WORTHWHILE = 4  # neighbours per row and block
_TINY = np.float32(1e-12)
_AHEAD = 16  # edges between asking for a row and adding it
_LINE = 16  # float32 numbers of a cache line
_UPPER = np.uint32(0xFFFF0000)
_HALF = np.uint32(16)


def balanced_chunks(indptr: np.ndarray[Any, Any], chunks: int) -> list[int]:
    """Return row boundaries that cut the rows into pieces of about equal edges + rows: (R + 1,) -> chunks + 1."""
    rows = len(indptr) - 1
    cost = indptr + 2 * np.arange(rows + 1)  # finishing a row costs about as much as two edges
    bounds = np.searchsorted(cost, np.linspace(0, cost[-1], chunks + 1))
    bounds[0], bounds[-1] = 0, rows
    return [int(bound) for bound in bounds]


def even_chunks(count: int, chunks: int) -> list[int]:
    """Return boundaries that cut ``count`` rows evenly."""
    cuts: list[int] = np.linspace(0, count, min(chunks, max(count, 1)) + 1).astype(np.int64).tolist()
    return cuts


def block_pointers(
    indptr: np.ndarray[Any, Any], indices: np.ndarray[Any, Any], columns: int, row_bytes: int
) -> np.ndarray[Any, Any]:
    """Cut every row's sorted neighbours where a new block of the source table begins: -> (blocks + 1, R).

    A block is as large as the core's cache. Where that would leave a row with too few neighbours per block to be worth
    another visit, there is one block.
    """
    blocks = -(-columns * row_bytes // _cache_bytes())
    rows = len(indptr) - 1
    if blocks > 1 and len(indices) >= _WORTHWHILE * rows * blocks:
        keys = np.repeat(np.arange(rows), np.diff(indptr)) * columns + indices
        cuts = np.linspace(0, columns, blocks + 1).astype(np.int64)
        return np.stack([np.searchsorted(keys, np.arange(rows) * columns + cut) for cut in cuts])
    return np.stack([indptr[:-1], indptr[1:]])


@lru_cache(maxsize=1)
def _cache_bytes() -> int:
    """Return the size of a core's own cache, 1 MiB where the system does not tell."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii").strip()
    except OSError:
        text = ""
    number, unit = text[:-1], {"K": 2**10, "M": 2**20}.get(text[-1:], 0)
    return min(max(int(number) * unit, 2**18), 2**22) if unit and number.isdigit() else 2**20


def unpack_rows(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return float32 rows of packed ones: uint32 (N, D / 2) -> (N, D)."""
    return np.concatenate([rows << _HALF, rows & _UPPER], axis=1).view(np.float32)


if available:

    @intrinsic
    def _float_of(context, bits):
        """Read a word's bits as float32."""

        def generate(target, builder, signature, arguments):
            return builder.bitcast(arguments[0], ir.FloatType())

        return types.float32(types.uint32), generate

    @intrinsic
    def _bits_of(context, number):
        """Read a float32's bits as a word."""

        def generate(target, builder, signature, arguments):
            return builder.bitcast(arguments[0], ir.IntType(32))

        return types.uint32(types.float32), generate

    @numba_intrinsic(prefer_literal=True)
    def _stack_floats(context, count):
        """Return a pointer to ``count`` float32 numbers on the stack, ``count`` a constant.

        The compiler knows that nothing else points there, so sums stay in registers; of a numpy array it must fear that
        it is also the source.
        """
        if not isinstance(count, types.IntegerLiteral):
            return None

        def generate(target, builder, signature, arguments):
            memory = cgutils.alloca_once(builder, ir.ArrayType(ir.FloatType(), count.literal_value))
            memory.align = 4 * _LINE
            return builder.bitcast(memory, ir.FloatType().as_pointer())

        return types.CPointer(types.float32)(count), generate

    stack_floats: Any = _stack_floats

    @intrinsic
    def _wide(context):
        """Let the function that calls this use vectors of 512 bits where the processor has them.

        LLVM avoids them on processors whose clock they lower; sums of long rows gain a fifth by them all the same.
        """

        def generate(target, builder, signature, arguments):
            # llvmlite's list of attributes does not know this one of LLVM's; its set takes it
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
            return target.get_dummy_value()

        return types.void(), generate

    @intrinsic
    def _prefetch(context, rows, row, column):
        """Ask for the cache line of ``rows[row, column]``."""

        def generate(target, builder, signature, arguments):
            kind = signature.args[0]
            array = target.make_array(kind)(target, builder, arguments[0])
            places = [
                target.cast(builder, arguments[n], signature.args[n], types.intp)
                for n in (1, 2)  # row, column
            ]
            pointer = cgutils.get_item_pointer(target, builder, kind, array, places, wraparound=False)
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch"
            )
            read, near, data = word(0), word(3), word(1)
            builder.call(function, [builder.bitcast(pointer, byte), read, near, data])
            return target.get_dummy_value()

        return types.void(rows, row, column), generate

    def _add_rows(total, beside, source, columns, start, stop, last, scale, width, ahead):
        """Add ``scale[c] * source[c]`` over ``c`` in ``columns[start:stop]`` to ``total``, four rows at a time.

        ``beside`` is room for a second sum: two that take turns wait half as long for themselves.

        ``ahead`` asks for the rows that many edges before they are added; 0 where the source is in the cache anyway.
        """

    @overload(_add_rows, jit_options={"fastmath": True}, inline="always")
    def _add_rows_of(total, beside, source, columns, start, stop, last, scale, width, ahead):
        def add_floats(total, beside, source, columns, start, stop, last, scale, width, ahead):
            fours = start + (stop - start) // 4 * 4
            for d in range(width):
                beside[d] = np.float32(0)
            for edge in range(start, fours, 4):
                if ahead > 0:
                    for later in range(edge + ahead, edge + ahead + 4):
                        coming = columns[min(later, last)]
                        for d in range(0, width, _LINE):
                            _prefetch(source, coming, d)
                a, b, c, e = columns[edge], columns[edge + 1], columns[edge + 2], columns[edge + 3]
                by_a, by_b, by_c, by_e = scale[a], scale[b], scale[c], scale[e]
                for d in range(width):
                    value, second = total[d], beside[d]
                    value += by_a * source[a, d]
                    second += by_b * source[b, d]
                    value += by_c * source[c, d]
                    second += by_e * source[e, d]
                    total[d], beside[d] = value, second
            for edge in range(fours, stop):
                a = columns[edge]
                by_a = scale[a]
                for d in range(width):
                    total[d] += by_a * source[a, d]
            for d in range(width):
                total[d] += beside[d]

        def add_packed(total, beside, source, columns, start, stop, last, scale, width, ahead):
            half = width // 2
            fours = start + (stop - start) // 4 * 4
            for d in range(width):
                beside[d] = np.float32(0)
            for edge in range(start, fours, 4):
                if ahead > 0:
                    for later in range(edge + ahead, edge + ahead + 4):
                        coming = columns[min(later, last)]
                        for d in range(0, half, _LINE):
                            _prefetch(source, coming, d)
                a, b, c, e = columns[edge], columns[edge + 1], columns[edge + 2], columns[edge + 3]
                by_a, by_b, by_c, by_e = scale[a], scale[b], scale[c], scale[e]
                for d in range(half):
                    in_a, in_b, in_c, in_e = source[a, d], source[b, d], source[c, d], source[e, d]
                    low, high = total[d], total[d + half]
                    low_beside, high_beside = beside[d], beside[d + half]
                    low += by_a * _float_of(in_a << _HALF)
                    high += by_a * _float_of(in_a & _UPPER)
                    low_beside += by_b * _float_of(in_b << _HALF)
                    high_beside += by_b * _float_of(in_b & _UPPER)
                    low += by_c * _float_of(in_c << _HALF)
                    high += by_c * _float_of(in_c & _UPPER)
                    low_beside += by_e * _float_of(in_e << _HALF)
                    high_beside += by_e * _float_of(in_e & _UPPER)
                    beside[d] = low_beside
                    beside[d + half] = high_beside
                    total[d] = low
                    total[d + half] = high
            for edge in range(fours, stop):
                a = columns[edge]
                by_a = scale[a]
                for d in range(half):
                    in_a = source[a, d]
                    total[d] += by_a * _float_of(in_a << _HALF)
                    total[d + half] += by_a * _float_of(in_a & _UPPER)
            for d in range(width):
                total[d] += beside[d]

        return add_packed if source.dtype == types.uint32 else add_floats

    def _put_row(out, row, values, factor, width):
        """Write ``factor * values`` to a row, rounded to nearest even where rows are packed."""

    @overload(_put_row, jit_options={"fastmath": True}, inline="always")
    def _put_row_of(out, row, values, factor, width):
        def put_floats(out, row, values, factor, width):
            for d in range(width):
                out[row, d] = values[d] * factor

        def put_packed(out, row, values, factor, width):
            half = width // 2
            below, one = np.uint32(0x7FFF), np.uint32(1)
            for d in range(half):
                low, high = _bits_of(values[d] * factor), _bits_of(values[d + half] * factor)
                low = (low + below + ((low >> _HALF) & one)) >> _HALF
                high = (high + below + ((high >> _HALF) & one)) & _UPPER
                out[row, d] = low | high

        return put_packed if out.dtype == types.uint32 else put_floats

    def _get_row(values, rows, row, width):
        """Read a row as float32 numbers."""

    @overload(_get_row, jit_options={"fastmath": True}, inline="always")
    def _get_row_of(values, rows, row, width):
        def get_floats(values, rows, row, width):
            for d in range(width):
                values[d] = rows[row, d]

        def get_packed(values, rows, row, width):
            half = width // 2
            for d in range(half):
                values[d] = _float_of(rows[row, d] << _HALF)
                values[d + half] = _float_of(rows[row, d] & _UPPER)

        return get_packed if rows.dtype == types.uint32 else get_floats

    @register_jitable(fastmath=True)
    def _dot(a, b, width):
        """Return the inner product: eight sums side by side, as one would wait for itself every time."""
        s = t = u = v = w = x = y = z = np.float32(0)
        eights = width // 8 * 8
        for d in range(0, eights, 8):
            s += a[d] * b[d]
            t += a[d + 1] * b[d + 1]
            u += a[d + 2] * b[d + 2]
            v += a[d + 3] * b[d + 3]
            w += a[d + 4] * b[d + 4]
            x += a[d + 5] * b[d + 5]
            y += a[d + 6] * b[d + 6]
            z += a[d + 7] * b[d + 7]
        for d in range(eights, width):
            s += a[d] * b[d]
        return ((s + w) + (t + x)) + ((u + y) + (v + z))


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

    ``back(start, stop, cuts, indices, source, ones, position, scale_out, base, base_position, unit, inverse, norm,
    scale_self, most, add, sums, out)`` writes ``base[r] + scale_out[r] * sum over c in N(r) of source[c]`` and
    takes it back through the layer below: its normalisation (``norm``), its receiver's scale (``scale_self``), or
    nothing (both off); ``add`` adds to ``out`` instead of replacing it. ``position`` maps a node to its row
    in a compact ``source``, -1 where the gradient is zero; empty means all rows. ``most`` is the largest number of
    neighbours.

    ``pack(start, stop, source, out)`` writes float32 rows packed.

    ``gather(start, stop, source, rows, add, into)`` writes ``source[rows[k]]`` to ``into[k]``, or adds it.

    ``collect(start, stop, gradient, places, weight, scale, unit, inverse, norm, into, out)`` sums
    ``weight * gradient[k]`` at ``into[places[k]]`` and writes to ``out`` what that is before the row was finished:
    before its normalisation (``norm``) or its ``scale``.
    """

    @njit(fastmath=True, nogil=True, cache=True)
    def forward(start, stop, cuts, indices, scale_in, source, rows, whole, scale_out, norm, sums, out, inverse):
        _wide()
        total = carray(stack_floats(width), width)
        beside = carray(stack_floats(width), width)
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
                    _get_row(total, sums, k, width)
                _add_rows(
                    total, beside, source, indices, cuts[block, row], cuts[block + 1, row], last, scale_in, width, ahead
                )
                if block < blocks - 1:
                    _put_row(sums, k, total, np.float32(1), width)
                    continue
                if norm:
                    length = np.sqrt(_dot(total, total, width))
                    factor = np.float32(1) / length if length > _TINY else np.float32(0)
                    inverse[k] = factor
                else:
                    factor = scale_out[row]
                _put_row(out, k, total, factor, width)

    @njit(fastmath=True, nogil=True, cache=True)
    def back(
        start,
        stop,
        cuts,
        indices,
        source,
        ones,
        position,
        scale_out,
        base,
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
        _wide()
        total = carray(stack_floats(width), width)
        own = carray(stack_floats(width), width)
        beside = carray(stack_floats(width), width)
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
                    _get_row(total, sums, row, width)
                if compact:
                    count = 0  # keep the neighbours that have a gradient; without a branch, as half of them may
                    for edge in range(cuts[0, row], cuts[final, row]):
                        place = position[indices[edge]]
                        picked[count] = np.uint32(place)
                        count += 1 if place >= 0 else 0
                    _add_rows(total, beside, source, picked, 0, count, count - 1, ones, width, 0)
                else:
                    _add_rows(
                        total, beside, source, indices, cuts[block, row], cuts[block + 1, row], last, ones, width, ahead
                    )
                if block < blocks - 1:
                    _put_row(sums, row, total, one, width)
                    continue
                factor = scale_out[row]
                where = base_position[row]
                if where >= 0:
                    for d in range(width):
                        total[d] = factor * total[d] + base[where, d]
                    factor = one
                if norm:
                    _get_row(own, unit, row, width)
                    along = _dot(total, own, width)
                    factor *= inverse[row]
                    for d in range(width):
                        total[d] -= along * own[d]
                elif scale_self.shape[0] > 0:
                    factor *= scale_self[row]
                if add:
                    _get_row(own, out, row, width)
                    for d in range(width):
                        total[d] = factor * total[d] + own[d]
                    factor = one
                _put_row(out, row, total, factor, width)

    @njit(fastmath=True, nogil=True, cache=True)
    def pack(start, stop, source, out):
        _wide()
        values = carray(stack_floats(width), width)
        for row in range(start, stop):
            _get_row(values, source, row, width)
            _put_row(out, row, values, np.float32(1), width)

    @njit(fastmath=True, nogil=True, cache=True)
    def gather(start, stop, source, rows, add, into):
        _wide()
        values = carray(stack_floats(width), width)
        last = len(rows) - 1
        for k in range(start, stop):
            coming = rows[min(k + _AHEAD, last)]
            for d in range(0, source.shape[1], _LINE):
                _prefetch(source, coming, d)
            _get_row(values, source, rows[k], width)
            if add:
                for d in range(width):
                    into[k, d] += values[d]
            else:
                for d in range(width):
                    into[k, d] = values[d]

    @njit(fastmath=True, nogil=True, cache=True)
    def collect(start, stop, gradient, places, weight, scale, unit, inverse, norm, into, out):
        _wide()
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
            _get_row(total, into, row, width)
            if norm:
                _get_row(own, unit, row, width)
                along = _dot(total, own, width)
                for d in range(width):
                    total[d] -= along * own[d]
                factor = inverse[row]
            else:
                factor = scale[row]
            _put_row(out, row, total, factor, width)

    return Kernels(forward, back, pack, gather, collect)
