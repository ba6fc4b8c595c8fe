"""Standard output and error as they may be: closed, full, of an encoding that lacks letters, or with nobody to read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["prepare_streams", "whole_output"]

_BROKEN_PIPE = 141  # what a shell says of a program that a closed pipe ended


def prepare_streams() -> None:
    """Open what is closed, so that no file of ours becomes standard output.

    Letters that the encoding of a stream lacks are written as escapes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open until the process ends)
        else:
            with contextlib.suppress(AttributeError, OSError):  # what a test puts there may be no text of a system
                stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def whole_output() -> Iterator[None]:
    """End with an error if what was said could not be written, and quietly if nobody reads on."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere()
        sys.exit(_BROKEN_PIPE)
    except OSError as error:
        _to_nowhere()
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: cannot write to standard output: {error.strerror or error}\n")
        sys.exit(1)


def _to_nowhere() -> None:
    """Let what is still held back go where it can be written; Python would complain about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
