"""Rows of numbers as vectors of the processor: the inner loops of the compiled kernels, for numba.

Written in LLVM's own vectors, because the compiler makes vectors of loops over the numbers of a row only sometimes: it
read packed rows number by number, rounded them in words twice as long and counted references to arrays in every row,
which together took as long as the sums.

A row is ``width`` float32 numbers, or packed bfloat16: ``width / 2`` uint32 words, where word ``d`` holds number ``d``
in its lower and number ``d + width / 2`` in its upper half, so that unpacking is a shift and a mask. ``width`` is a
constant of the compiled code everywhere. No index is checked.

A kernel calls these and no compiled function of its own: in numba's cache such a function has one name for all widths,
and of two that are read into one process the first would serve both.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

__all__ = [
    "BUILD",
    "Processor",
    "add_rows",
    "count_above",
    "dot",
    "get_row",
    "inner",
    "multiply",
    "prefetch",
    "processor",
    "product",
    "put_row",
    "stack_floats",
    "wide",
]

BUILD = zlib.crc32(Path(__file__).read_bytes())
"""A number of this file. A kernel that holds it is compiled anew when the file has changed: numba's cache of compiled
kernels looks at the kernel's own file and at the constants around it, but not at the intrinsics that it calls."""

_LINE = 16  # float32 numbers of a cache line, and of the longest vectors
_UPPER = 0xFFFF0000
_HALF = 16
_FAST = ("fast",)  # as numba's fastmath: additions may change their order
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


class Processor(NamedTuple):
    """What numba compiles for."""

    registers: int
    """Vectors that it holds."""
    lanes: int
    """float32 numbers of a vector."""
    has_fused: bool
    """Whether it multiplies and adds in one operation, rounded once."""

    def holds(self, vectors: Sequence[int]) -> bool:
        """Tell whether vectors of so many numbers each stay in registers, beside a few that are at work."""
        return sum(-(-count // self.lanes) for count in vectors) <= self.registers - 4


@lru_cache(maxsize=1)
def processor() -> Processor:
    """Return the processor that numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return _processor(triple, frozenset(features.split(",")))


def _processor(triple: str, features: frozenset[str]) -> Processor:
    if "+avx512f" in features:
        return Processor(32, 16, True)
    if "+avx" in features:
        return Processor(16, 8, "+fma" in features)
    is_arm = triple.startswith(("aarch64", "arm64"))
    return Processor(32 if is_arm else 16, 4, is_arm)


def _lines(count: int) -> list[tuple[int, int]]:
    """Return where the vectors of ``count`` numbers start and how long they are."""
    return [(start, min(_LINE, count - start)) for start in range(0, count, _LINE)]


def _parts(width: int, packed: bool) -> list[tuple[int, int]]:
    """Return the vectors of a row in the order in which `_numbers` gives them."""
    if not packed:
        return _lines(width)
    return [(start + shift, lanes) for start, lanes in _lines(width // 2) for shift in (0, width // 2)]


def _words(width: int, packed: bool) -> int:
    """Return how many words of memory a row takes."""
    return width // 2 if packed else width


def _data(target: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    """Return the pointer of an array among the arguments."""
    return target.make_array(signature.args[number])(target, builder, arguments[number]).data


def _index(target: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    return target.cast(builder, arguments[number], signature.args[number], types.intp)


def _row(builder: Any, data: Any, row: Any, words: int) -> Any:
    """Return the pointer of a row."""
    return builder.gep(data, [builder.mul(row, _I64(words))])


def _two_rows(target: Any, builder: Any, signature: Any, arguments: Any, words: int) -> list[Any]:
    """Return the pointers of two rows, whose arrays and numbers are the first four arguments."""
    given = (target, builder, signature, arguments)
    return [_row(builder, _data(*given, n), _index(*given, n + 1), words) for n in (0, 2)]


def _load(builder: Any, pointer: Any, start: int, lanes: int) -> Any:
    kind = ir.VectorType(pointer.type.pointee, lanes)
    vector = builder.load(builder.bitcast(builder.gep(pointer, [_I64(start)]), kind.as_pointer()))
    vector.align = 4
    return vector


def _store(builder: Any, pointer: Any, start: int, vector: Any) -> None:
    place = builder.bitcast(builder.gep(pointer, [_I64(start)]), vector.type.as_pointer())
    builder.store(vector, place).align = 4


def _numbers(builder: Any, pointer: Any, width: int, packed: bool) -> list[Any]:
    """Return a row as vectors of float32, those of `_parts`."""
    if not packed:
        return [_load(builder, pointer, start, lanes) for start, lanes in _lines(width)]
    made = []
    for start, lanes in _lines(width // 2):
        words = _load(builder, pointer, start, lanes)
        for bits in (
            builder.shl(words, words.type([_HALF] * lanes)),
            builder.and_(words, words.type([_UPPER] * lanes)),
        ):
            made.append(builder.bitcast(bits, ir.VectorType(_F32, lanes)))
    return made


def _spread(builder: Any, number: Any, lanes: int) -> Any:
    """Return a vector of ``lanes`` times the same number."""
    kind = ir.VectorType(number.type, lanes)
    first = builder.insert_element(kind(ir.Undefined), number, _I32(0))
    return builder.shuffle_vector(first, first, ir.VectorType(_I32, lanes)([0] * lanes))


def _rounded(builder: Any, floats: Any) -> Any:
    """Return the bits of floats after adding what carries into the upper half where they round up."""
    lanes = floats.type.count
    kind = ir.VectorType(_I32, lanes)
    bits = builder.bitcast(floats, kind)
    odd = builder.and_(builder.lshr(bits, kind([_HALF] * lanes)), kind([1] * lanes))
    return builder.add(builder.add(bits, kind([0x7FFF] * lanes)), odd)


def _total(builder: Any, vector: Any, start: Any) -> Any:
    kind = ir.FunctionType(_F32, [_F32, vector.type])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{vector.type.count}f32")
    return builder.call(function, [start, vector], fastmath=_FAST)


@intrinsic(prefer_literal=True)
def _stack_floats(context, count):
    """Return a pointer to ``count`` float32 numbers on the stack.

    The compiler knows that nothing else points there; of a numpy array it must fear that it is also the source.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory = cgutils.alloca_once(builder, ir.ArrayType(_F32, count.literal_value))
        memory.align = 4 * _LINE
        return builder.bitcast(memory, _F32.as_pointer())

    return types.CPointer(types.float32)(count), generate


@intrinsic
def _wide(context, build):
    """Let the function that calls this, compiled for `BUILD`, use vectors of 512 bits where the processor has them.

    LLVM avoids them on processors whose clock they lower; sums of long rows gain a fifth by them all the same.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite's list of attributes does not know this one of LLVM's; its set takes it
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return target.get_dummy_value()

    return types.void(build), generate


def _ask(builder: Any, pointer: Any, words: int) -> None:
    """Ask for the cache lines of a row."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    read, near, data = _I32(0), _I32(3), _I32(1)
    for start, _ in _lines(words):
        builder.call(function, [builder.bitcast(builder.gep(pointer, [_I64(start)]), byte), read, near, data])


@intrinsic(prefer_literal=True)
def _prefetch(context, rows, row, width):
    """Ask for the cache lines of ``rows[row]``."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = _words(width.literal_value, rows.dtype == types.uint32)
        data = _data(target, builder, signature, arguments, 0)
        _ask(builder, _row(builder, data, _index(target, builder, signature, arguments, 1), words), words)
        return target.get_dummy_value()

    return types.void(rows, row, width), generate


@intrinsic(prefer_literal=True)
def _get_row(context, values, rows, row, width):
    """Read ``rows[row]`` to ``values``, float32 (width,)."""
    packed = rows.dtype == types.uint32

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = width.literal_value
        into, source = (_data(target, builder, signature, arguments, n) for n in (0, 1))
        source = _row(builder, source, _index(target, builder, signature, arguments, 2), _words(count, packed))
        numbers = _numbers(builder, source, count, packed)
        for (start, _), vector in zip(_parts(count, packed), numbers, strict=True):
            _store(builder, into, start, vector)
        return target.get_dummy_value()

    return types.void(values, rows, row, width), generate


@intrinsic(prefer_literal=True)
def _put_row(context, out, row, values, factor, width):
    """Write ``factor * values`` to ``out[row]``, rounded to nearest even where rows are packed."""
    packed = out.dtype == types.uint32

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = width.literal_value
        into, numbers = (_data(target, builder, signature, arguments, n) for n in (0, 2))
        into = _row(builder, into, _index(target, builder, signature, arguments, 1), _words(count, packed))
        scale = target.cast(builder, arguments[3], signature.args[3], types.float32)

        def scaled(start: int, lanes: int) -> Any:
            return builder.fmul(_load(builder, numbers, start, lanes), _spread(builder, scale, lanes), flags=_FAST)

        if not packed:
            for start, lanes in _lines(count):
                _store(builder, into, start, scaled(start, lanes))
            return target.get_dummy_value()
        for start, lanes in _lines(count // 2):
            low, high = (_rounded(builder, scaled(start + shift, lanes)) for shift in (0, count // 2))
            low = builder.lshr(low, low.type([_HALF] * lanes))
            high = builder.and_(high, high.type([_UPPER] * lanes))
            _store(builder, into, start, builder.or_(low, high))
        return target.get_dummy_value()

    return types.void(out, row, values, factor, width), generate


def _inner_product(builder: Any, left: Any, right: Any, width: int) -> Any:
    """Return the inner product of float32 numbers from two pointers on."""
    sums, result = None, _F32(0.0)
    for start, lanes in _lines(width):
        product = builder.fmul(_load(builder, left, start, lanes), _load(builder, right, start, lanes), flags=_FAST)
        if lanes < _LINE:
            result = _total(builder, product, result)
        else:
            sums = product if sums is None else builder.fadd(sums, product, flags=_FAST)
    return result if sums is None else _total(builder, sums, result)


@intrinsic(prefer_literal=True)
def _dot(context, a, b, width):
    """Return the inner product of two float32 (width,)."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (_data(target, builder, signature, arguments, n) for n in (0, 1))
        return _inner_product(builder, left, right, width.literal_value)

    return types.float32(a, b, width), generate


@intrinsic(prefer_literal=True)
def _inner(context, a, row, b, other, width):
    """Return the inner product of ``a[row]`` and ``b[other]``, float32 (.., width)."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = width.literal_value
        left, right = _two_rows(target, builder, signature, arguments, count)
        return _inner_product(builder, left, right, count)

    return types.float32(a, row, b, other, width), generate


@intrinsic(prefer_literal=True)
def _add_rows(context, total, source, columns, start, stop, scale, width, ahead, last):
    """Add ``scale[c] * source[c]`` over ``c`` in ``columns[start:stop]`` to ``total``; ``scale`` None stands for ones.

    ``ahead`` asks for rows that many edges before they are added, up to edge ``last``; 0 does not ask.
    """
    packed = source.dtype == types.uint32
    scaled = not isinstance(scale, types.NoneType)

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = width.literal_value
        words = _words(count, packed)
        into, rows, neighbors = (_data(target, builder, signature, arguments, n) for n in (0, 1, 2))
        factors = _data(target, builder, signature, arguments, 5) if scaled else None
        first, end, far, final = (_index(target, builder, signature, arguments, n) for n in (3, 4, 7, 8))
        parts = _parts(count, packed)
        # two sums that take turns wait half as long for themselves, if registers hold both
        turns = 2 if processor().holds([lanes for _, lanes in parts] * 2) else 1
        sums = [[cgutils.alloca_once(builder, ir.VectorType(_F32, lanes)) for _, lanes in parts] for _ in range(turns)]
        for (offset, lanes), total_part, *beside in zip(parts, *sums, strict=True):
            builder.store(_load(builder, into, offset, lanes), total_part)
            for part in beside:
                builder.store(part.type.pointee([0.0] * lanes), part)

        def column(edge: Any) -> Any:
            return builder.zext(builder.load(builder.gep(neighbors, [edge])), _I64)

        def add(edge: Any, to: list[Any]) -> None:
            where = column(edge)
            factor = builder.load(builder.gep(factors, [where])) if scaled else None
            vectors = _numbers(builder, _row(builder, rows, where, words), count, packed)
            for vector, part in zip(vectors, to, strict=True):
                if scaled:
                    vector = builder.fmul(vector, _spread(builder, factor, vector.type.count), flags=_FAST)
                builder.store(builder.fadd(builder.load(part), vector, flags=_FAST), part)

        left = builder.and_(builder.sub(end, first), _I64(3))
        fours = builder.sub(end, left)
        is_asking = builder.icmp_signed(">", far, _I64(0))
        with cgutils.for_range_slice(builder, first, fours, _I64(4)) as (edge, _):
            with builder.if_then(is_asking):
                for k in range(4):
                    later = builder.add(edge, builder.add(far, _I64(k)))
                    is_inside = builder.icmp_signed("<", later, final)
                    _ask(builder, _row(builder, rows, column(builder.select(is_inside, later, final)), words), words)
            for k in range(4):
                add(builder.add(edge, _I64(k)), sums[k % turns])
        with builder.if_then(builder.icmp_signed(">=", left, _I64(2))):
            add(fours, sums[0])
            add(builder.add(fours, _I64(1)), sums[-1])
        with builder.if_then(builder.trunc(left, ir.IntType(1))):
            add(builder.sub(end, _I64(1)), sums[0])
        for (offset, _), total_part, *beside in zip(parts, *sums, strict=True):
            whole = builder.load(total_part)
            for part in beside:
                whole = builder.fadd(whole, builder.load(part), flags=_FAST)
            _store(builder, into, offset, whole)
        return target.get_dummy_value()

    return types.void(total, source, columns, start, stop, scale, width, ahead, last), generate


def _fuse(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``, in the one way that all who call this on one processor share."""
    if not processor().has_fused:  # LLVM would call a function of the C library for every number
        return builder.fadd(builder.fmul(a, b), c)
    name = f"llvm.fma.v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "llvm.fma.f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


@intrinsic(prefer_literal=True)
def _product(context, users, user, items, item, width):
    """Return the product of ``users[user]`` and ``items[item]``, float32 (.., width), as `multiply` computes it."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = width.literal_value
        left, right = _two_rows(target, builder, signature, arguments, count)
        total = cgutils.alloca_once_value(builder, _F32(0.0))
        with cgutils.for_range_slice(builder, _I64(0), _I64(count), _I64(1)) as (k, _):
            a, b = (builder.load(builder.gep(row, [k])) for row in (left, right))
            builder.store(_fuse(builder, a, b, builder.load(total)), total)
        return builder.load(total)

    return types.float32(users, user, items, item, width), generate


@intrinsic(prefer_literal=True)
def _multiply(context, items, item, users, group, scores, row, width, lanes, tile):
    """Write products of ``tile`` items with ``lanes`` users to ``scores[row:row + tile, :lanes]``.

    Items are rows of float32 (I, width) from ``item`` on, users packed by lanes, ``users[group]`` of (G, width,
    lanes). Every product is summed from its first number to its last, as `product` does it.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers, count, high = (signature.args[n].literal_value for n in (6, 7, 8))
        table, packed = (_data(target, builder, signature, arguments, n) for n in (0, 2))
        first, which, place = (_index(target, builder, signature, arguments, n) for n in (1, 3, 5))
        out = target.make_array(signature.args[4])(target, builder, arguments[4])
        stride = cgutils.unpack_tuple(builder, out.shape, 2)[1]
        kind = ir.VectorType(_F32, count)
        sums = [cgutils.alloca_once(builder, kind) for _ in range(high)]
        for part in sums:
            builder.store(kind([0.0] * count), part)
        item_rows, user_rows = _row(builder, table, first, numbers), _row(builder, packed, which, numbers * count)
        step = next(size for size in (4, 2, 1) if numbers % size == 0)
        with cgutils.for_range_slice(builder, _I64(0), _I64(numbers), _I64(step)) as (start, _):
            for k in (builder.add(start, _I64(n)) for n in range(step)):
                vector = _load(builder, _row(builder, user_rows, k, count), 0, count)
                for n, part in enumerate(sums):
                    number = builder.load(builder.gep(item_rows, [builder.add(k, _I64(n * numbers))]))
                    made = _fuse(builder, vector, _spread(builder, number, count), builder.load(part))
                    builder.store(made, part)
        for n, part in enumerate(sums):
            line = builder.gep(out.data, [builder.mul(builder.add(place, _I64(n)), stride)])
            _store(builder, line, 0, builder.load(part))
        return target.get_dummy_value()

    return types.void(items, item, users, group, scores, row, width, lanes, tile), generate


@intrinsic(prefer_literal=True)
def _count_above(context, scores, start, stop, column, lanes, own, place, above, same):
    """Count what exceeds a number in each of ``lanes`` columns, and what equals it.

    For ``l`` below ``lanes``, adds to ``above[place + l]`` how many of ``scores[start:stop, column + l]`` are greater
    than ``own[place + l]``, and to ``same[place + l]`` how many are equal. Scores are floats (R, C), counts int32.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = lanes.literal_value
        table = target.make_array(signature.args[0])(target, builder, arguments[0])
        width = cgutils.unpack_tuple(builder, table.shape, 2)[1]
        low, high, left, where = (_index(target, builder, signature, arguments, n) for n in (1, 2, 3, 6))
        numbers, greater, equal = (
            builder.gep(_data(target, builder, signature, arguments, n), [where]) for n in (5, 7, 8)
        )
        parts = _lines(count)
        bounds = [_load(builder, numbers, begin, size) for begin, size in parts]
        sums = [
            [cgutils.alloca_once_value(builder, _load(builder, data, begin, size)) for begin, size in parts]
            for data in (greater, equal)
        ]
        with cgutils.for_range_slice(builder, low, high, _I64(1)) as (row, _):
            scored = builder.gep(table.data, [builder.add(builder.mul(row, width), left)])
            for (begin, size), bound, *own_sums in zip(parts, bounds, *sums, strict=True):
                vector = _load(builder, scored, begin, size)
                for kind, part in zip((">", "=="), own_sums, strict=True):
                    hit = builder.sext(builder.fcmp_ordered(kind, vector, bound), part.type.pointee)  # -1 where true
                    builder.store(builder.sub(builder.load(part), hit), part)
        for data, made in zip((greater, equal), sums, strict=True):
            for (begin, _), part in zip(parts, made, strict=True):
                _store(builder, data, begin, builder.load(part))
        return target.get_dummy_value()

    return types.void(scores, start, stop, column, lanes, own, place, above, same), generate


# numba's type of an intrinsic says that the compiler's argument is the caller's
stack_floats: Any = _stack_floats
wide: Any = _wide
prefetch: Any = _prefetch
get_row: Any = _get_row
inner: Any = _inner
put_row: Any = _put_row
dot: Any = _dot
count_above: Any = _count_above
multiply: Any = _multiply
product: Any = _product
add_rows: Any = _add_rows
