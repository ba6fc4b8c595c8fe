"""numba's decorator, with the machine code kept between runs where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["compiled", "is_kept"]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the interpreter's lock.

    numba keeps machine code beside the source, in the user's cache folder, or where ``NUMBA_CACHE_DIR`` says. Where
    none of them can be written, as for an account without a home, it raises; here the code is compiled at every start.
    """
    from numba import njit

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except (RuntimeError, OSError):  # "cannot cache function: no locator available"
            return njit(nogil=True, **options)(function)

    return decorate


def is_kept() -> bool:
    """Return whether machine code is kept between runs."""
    from numba import njit

    try:
        njit(cache=True)(_probe)
    except (RuntimeError, OSError):
        return False
    return True


def _probe() -> None:
    """Do nothing; numba looks for a place as soon as it is asked to keep a function."""
