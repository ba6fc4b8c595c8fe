"""Randomness: every random act takes ``rng``, a seed or a generator, and depends on nothing else (SPEC 7)."""

from __future__ import annotations

import zlib

import numpy as np

from mbgraph.errors import UsageError

__all__ = ["RNGLike", "as_generator", "stream"]

RNGLike = int | np.integer | np.random.Generator


def as_generator(rng: RNGLike) -> np.random.Generator:
    """Return ``rng`` itself if it is a generator, otherwise a new generator seeded with it.

    Raises
    ------
    UsageError
        If ``rng`` is neither a non-negative integer nor a `numpy.random.Generator`.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(int(rng))
    raise UsageError(f"rng must be a non-negative integer or a numpy Generator, not {rng!r}")


def stream(seed: int, *keys: int | str) -> np.random.Generator:
    """Return the generator of a named stream below ``seed``.

    Streams with different keys are independent, and a stream can be opened again at any time without replaying
    the others: epoch 7 of a resumed run draws what epoch 7 of the uninterrupted run drew.

    Parameters
    ----------
    seed : int
        The seed of the whole run.
    *keys : int or str
        Names of the stream, for example ``("epoch", 7)``. Strings are hashed with CRC-32, which is stable across
        processes (``hash`` is not).
    """
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=tuple(words)))
