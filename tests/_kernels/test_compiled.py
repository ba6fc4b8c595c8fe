"""Kernels where machine code cannot be kept: for an account without a home, with the package in a locked folder."""

import subprocess
import sys

import pytest

from mbgraph import doctor
from mbgraph._kernels.compiled import compiled, is_kept

numba = pytest.importorskip("numba")


@pytest.fixture
def nowhere(monkeypatch):
    """numba as it is without a folder that it can write."""
    real = numba.njit

    def njit(*arguments, **options):
        if options.get("cache"):

            def refuse(function):
                raise RuntimeError(f"cannot cache function {function.__name__!r}: no locator available for file 'x.py'")

            return refuse
        return real(*arguments, **options)

    monkeypatch.setattr(numba, "njit", njit)


def add(a, b):
    return a + b


def test_without_a_place_code_is_compiled_all_the_same(nowhere):
    assert compiled(fastmath=True)(add)(1, 2) == 3
    assert not is_kept()
    assert "compiled at every start" in doctor._kernels()
    assert "NUMBA_CACHE_DIR" in doctor._kernels()


def test_with_one_it_is_kept():
    assert compiled()(add).stats is not None
    assert is_kept()
    assert doctor._kernels() == "kept between runs"


def test_every_kernel_loads_without_a_place():
    """numba's own refusal, for all modules of the package at once."""
    code = (
        "import numba.core.caching as caching; caching.CacheImpl._locator_classes = []; "
        "from mbgraph import _kernels, doctor; assert _kernels.available; print(doctor._kernels())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("compiled at every start")
