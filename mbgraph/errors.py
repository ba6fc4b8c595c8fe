"""Errors a user can meet. Each says in one line what is wrong and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DataError", "MbgraphError", "RunError", "UnknownNameError", "UsageError", "nearest", "one_line"]


class MbgraphError(Exception):
    """Base of every error mbgraph raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong, without a trailing period.
    remedy : str, optional
        What the user can do; joined to the message with a semicolon so that it stays one line.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}" if remedy else message)


class UsageError(MbgraphError):
    """A call or a command line that cannot be understood (exit code 2)."""

    exit_code = 2


class DataError(MbgraphError):
    """Input data that cannot be used as it is (exit code 2)."""

    exit_code = 2


class RunError(MbgraphError):
    """A run that failed or a run directory that cannot be used (exit code 1)."""


class UnknownNameError(UsageError):
    """A name outside a closed list; the message names the nearest one.

    Parameters
    ----------
    kind : str
        What the name should have been, for example ``"behavior"``.
    name : str
        What was given.
    choices : iterable of str
        The names that exist.
    """

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        self.kind, self.name, self.choices = kind, name, sorted(choices)
        close = nearest(name, self.choices)
        remedy = f"did you mean {close!r}?" if close else f"choose from: {', '.join(self.choices) or '(none)'}"
        super().__init__(f"unknown {kind} {name!r}", remedy)


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to ``name``, or None when nothing is close."""
    lowered = {str(choice).lower(): str(choice) for choice in choices}
    found = difflib.get_close_matches(str(name).lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def one_line(error: BaseException, most: int = 160) -> str:
    """Return what an error of somebody else's says in at most so many letters; its type if it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]
