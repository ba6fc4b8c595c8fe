"""Every row operation of the compiled kernels against numpy, for widths that fill vectors and widths that do not."""

import inspect
import itertools

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")
carray, njit = numba.carray, numba.njit

from mbgraph._kernels import counts, vectors  # noqa: E402
from mbgraph._kernels import rows as row_kernels  # noqa: E402
from mbgraph._kernels.rows import unpack_rows  # noqa: E402

WIDTHS = (1, 6, 16, 20, 64, 100)
ROWS = 7


def table(width, packed, seed=0):
    """Return rows as the kernels read them, and their numbers."""
    numbers = torch.from_numpy(np.random.default_rng(seed).standard_normal((ROWS, width)).astype(np.float32))
    if not packed:
        return numbers.numpy(), numbers.numpy()
    bits = numbers.bfloat16().view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    half = width // 2
    return bits[:, :half] | bits[:, half:] << np.uint32(16), numbers.bfloat16().float().numpy()


@pytest.fixture(
    params=[(width, packed) for width in WIDTHS for packed in (False, True) if not (packed and width % 2)],
    ids=lambda case: f"{case[0]}-{'packed' if case[1] else 'float'}",
)
def case(request):
    width, packed = request.param
    return width, packed, *table(width, packed)


def test_a_packed_table_is_what_unpack_rows_reads():
    packed, numbers = table(6, True)
    assert (unpack_rows(packed) == numbers).all()


def test_get_row(case):
    width, _, rows, numbers = case

    @njit
    def run(rows, row):
        values = carray(vectors.stack_floats(width), width)
        vectors.get_row(values, rows, row, width)
        return values.copy()

    for row in (0, ROWS - 1):
        assert (run(rows, row) == numbers[row]).all()


def test_put_row_scales_and_rounds_to_nearest_even(case):
    width, packed, rows, _ = case

    @njit
    def run(out, row, values, factor):
        vectors.put_row(out, row, values, factor, width)

    values = np.random.default_rng(1).standard_normal(width).astype(np.float32)
    values[0] = np.float32(1 + 2**-8)  # half way between two bfloat16 numbers, times one below
    for factor in (np.float32(1), np.float32(0.3)):
        out = np.zeros_like(rows)
        run(out, 2, values, factor)
        expected = torch.from_numpy(values * factor)
        expected = expected.bfloat16().float() if packed else expected
        written = unpack_rows(out) if packed else out
        assert (written[2] == expected.numpy()).all()
        assert not written[[0, 1, *range(3, ROWS)]].any()


@pytest.mark.parametrize("width", WIDTHS)
def test_dot(width):
    @njit
    def run(a, b):
        return vectors.dot(a, b, width)

    a, b = np.random.default_rng(2).standard_normal((2, width)).astype(np.float32)
    assert run(a, b) == pytest.approx(float(a.astype(np.float64) @ b.astype(np.float64)), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("has_scale", [True, False])
@pytest.mark.parametrize("registers", [0, 1000], ids=["one sum", "two sums"])
def test_add_rows_of_every_count(case, has_scale, registers, monkeypatch):
    """Four rows at a time and what is left of them: all counts from none to nine, from any start."""
    monkeypatch.setattr(vectors, "processor", lambda: vectors.Processor(registers, 16, True))
    width, _, rows, numbers = case
    rng = np.random.default_rng(3)
    columns = rng.integers(0, ROWS, 12).astype(np.uint32)
    scale = rng.random(ROWS).astype(np.float32) if has_scale else None

    @njit
    def run(rows, columns, start, stop, scale, ahead, total):
        vectors.add_rows(total, rows, columns, start, stop, scale, width, ahead, len(columns) - 1)

    for start, count, ahead in itertools.product((0, 3), range(10), (0, 5)):
        total = np.arange(width, dtype=np.float32)
        run(rows, columns, start, start + count, scale, ahead, total)
        chosen = columns[start : start + count]
        weights = np.ones(count) if scale is None else scale[chosen]
        expected = np.arange(width) + (numbers[chosen].astype(np.float64) * weights[:, None]).sum(0)
        assert total == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("row", [0, ROWS - 1])
def test_prefetch_changes_nothing(case, row):
    width, _, rows, _ = case

    @njit
    def run(rows, row):
        vectors.wide(0)
        vectors.prefetch(rows, row, width)

    before = rows.copy()
    run(rows, row)
    assert (rows == before).all()


def test_a_change_of_the_vectors_compiles_every_kernel_anew():
    """numba's cache knows a kernel by its code and the variables around it."""
    for kernel in (*row_kernels.width_kernels(6), counts._counter(), *counts._product_kernels(6)):
        assert inspect.getclosurevars(kernel.py_func).nonlocals["build"] == vectors.BUILD


@pytest.mark.parametrize(
    ("triple", "features", "expected"),
    [
        ("x86_64-unknown-linux-gnu", "+avx,+avx2,+avx512f,+fma", (32, 16, True)),
        ("x86_64-unknown-linux-gnu", "+avx,+avx2,-avx512f,+fma", (16, 8, True)),
        ("x86_64-unknown-linux-gnu", "+avx,-fma", (16, 8, False)),
        ("x86_64-unknown-linux-gnu", "+sse2,-avx", (16, 4, False)),
        ("aarch64-unknown-linux-gnu", "+neon", (32, 4, True)),
        ("arm64-apple-darwin", "+neon", (32, 4, True)),
    ],
)
def test_a_processor_by_what_it_can_do(triple, features, expected):
    assert vectors._processor(triple, frozenset(features.split(","))) == expected


def test_what_registers_hold():
    processor = vectors.Processor(16, 8, True)
    assert processor.holds([16] * 6)
    assert not processor.holds([16] * 6 + [1])  # twelve of them, beside four at work
    assert not vectors.processor().holds([vectors.processor().lanes] * vectors.processor().registers)


@pytest.mark.parametrize("has_fused", [True, False])
@pytest.mark.parametrize("lanes", [1, 8, 32])
@pytest.mark.parametrize("tile", [1, 6])
@pytest.mark.parametrize("width", [1, 20, 64])  # less than a vector, one and a part, several
def test_multiply_sums_as_product_does(width, tile, lanes, has_fused, monkeypatch):
    monkeypatch.setattr(vectors, "processor", lambda: vectors.Processor(16, 8, has_fused))
    rng = np.random.default_rng(5)
    items = rng.standard_normal((9, width)).astype(np.float32)
    users = rng.standard_normal((3, width, lanes)).astype(np.float32)
    rows = np.ascontiguousarray(users[1].T)

    @njit
    def run(item, group, row, scores):
        vectors.multiply(items, item, users, group, scores, row, width, lanes, tile)

    @njit
    def alone(item, lane):
        return vectors.product(rows, lane, items, item, width)

    scores = np.zeros((10, lanes), np.float32)
    run(2, 1, 3, scores)
    expected = items[2 : 2 + tile].astype(np.float64) @ users[1].astype(np.float64)
    assert scores[3 : 3 + tile] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert not scores[[*range(3), *range(3 + tile, 10)]].any()
    for row in range(tile):
        assert scores[3 + row].tolist() == [alone(2 + row, lane) for lane in range(lanes)]


@pytest.mark.parametrize("lanes", [1, 4, 32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_count_above_counts_a_window_of_columns(lanes, dtype):
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 5, (9, 40)).astype(dtype)  # small integers: many are equal
    own = rng.integers(0, 5, 50).astype(dtype)
    own[7] = np.inf

    @njit
    def run(scores, start, stop, column, own, place, above, same):
        vectors.count_above(scores, start, stop, column, lanes, own, place, above, same)

    for start, stop, column, place in ((0, 9, 0, 0), (2, 7, 8, 6), (3, 3, 1, 0)):
        above, same = np.full(50, 3, np.int32), np.full(50, 8, np.int32)
        run(scores, start, stop, column, own, place, above, same)
        expected_above, expected_same = np.full(50, 3), np.full(50, 8)
        window = slice(place, place + lanes)
        expected_above[window] += (scores[start:stop, column : column + lanes] > own[window]).sum(0)
        expected_same[window] += (scores[start:stop, column : column + lanes] == own[window]).sum(0)
        assert (above == expected_above).all()
        assert (same == expected_same).all()
