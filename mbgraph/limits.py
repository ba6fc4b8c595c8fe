"""What a file may claim: one budget that every reader asks before it takes memory for what a file says.

The defaults leave room for a million users and fifty million pairs. A file beyond them is refused in one line that
names the limit and how to raise it: ``mbgraph --limit users=20000000 COMMAND ..``, `raised` in Python, or
``MBGRAPH_LIMITS`` in the environment, by which processes of our own inherit what their parent was told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field

from mbgraph.errors import DataError
from mbgraph.schema import Section, parse_assignments

__all__ = ["ENVIRONMENT", "Limits", "check", "current", "environment", "parse", "raised", "refusal", "use"]

ENVIRONMENT = "MBGRAPH_LIMITS"

_MOST = 2**31 - 1  # numbers of users and items fit into 32 bits in every format
_MIB = Annotated[int, Field(ge=1, le=2**24)]
_COUNT = Annotated[int, Field(ge=1, le=_MOST)]


class Limits(Section):
    """How much a file may claim.

    Examples
    --------
    >>> Limits(behaviors=7).allowed_bytes(10) == 512 << 20
    True
    """

    called = "the limits"

    users: _COUNT = 10_000_000
    """Users of a dataset."""
    items: _COUNT = 10_000_000
    """Items of a dataset."""
    behaviors: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Behaviors of a dataset, and labels in a log's column of them."""
    columns: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Columns of a log."""
    files: _COUNT = 100_000
    """Files of a folder."""
    objects: _COUNT = 10_000_000
    """Values in a JSON file or a pickle, each of which becomes an object of Python."""
    line_mib: _MIB = 16
    """Length of a line of text."""
    whole_mib: _MIB = 1024
    """Size of a file that is read as a whole: JSON, original ids, pickles."""
    unpacked_mib: _MIB = 512
    """What a packed file (npz, zip, gzip, Parquet) may unpack to, however small it is."""
    unpacked_ratio: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """How many times its size a packed file may unpack to beyond that."""

    def allowed_bytes(self, size: int) -> int:
        """Return how many bytes a packed file of ``size`` bytes may unpack to."""
        return max(self.unpacked_mib << 20, self.unpacked_ratio * size)


_in_force: Limits | None = None


def current() -> Limits:
    """Return the limits in force."""
    if _in_force is not None:
        return _in_force
    return parse((os.environ.get(ENVIRONMENT) or "").split())


def parse(texts: Iterable[str]) -> Limits:
    """Return the limits with some of them set, each as ``name=number``.

    Raises
    ------
    UsageError
        For an unknown name or a number out of range.
    """
    return Limits.from_text(parse_assignments(texts))


def use(limits: Limits | None) -> None:
    """Put limits in force from here on; None stands for those of the environment."""
    global _in_force
    _in_force = limits


@contextlib.contextmanager
def raised(**changes: int) -> Iterator[Limits]:
    """Put other limits in force while the block runs, in every thread.

    Examples
    --------
    >>> with raised(users=20_000_000):
    ...     current().users
    20000000
    """
    before, changed = _in_force, current().replace(**changes)
    use(changed)
    try:
        yield changed
    finally:
        use(before)


def environment() -> dict[str, str]:
    """Return the variable that a process of ours needs to have the same limits; nothing where they are the defaults."""
    usual = Limits()
    told = [f"{name}={value}" for name, value in current().values().items() if value != getattr(usual, name)]
    return {ENVIRONMENT: " ".join(told)} if told else {}


def check(name: str, count: int, where: object) -> None:
    """Raise `DataError` if there are more of what limit ``name`` counts than it allows; ``where`` is the file."""
    if count > getattr(current(), name):
        raise refusal(name, f"{where}: {count:,} {_NOUNS.get(name, name)}", count)


def refusal(name: str, what: str, needed: int | None = None) -> DataError:
    """Return the error that says what is too much, the limit, and the option that raises it.

    Parameters
    ----------
    name : str
        The limit.
    what : str
        Where, and what was found there: the message goes on with "are more than the limit of ..".
    needed : int, optional
        The number that would do; by default twice the limit.
    """
    limit = getattr(current(), name)
    needed = 2 * limit if needed is None else needed
    most = next(bound.le for bound in Limits.model_fields[name].metadata if hasattr(bound, "le"))
    return DataError(
        f"{what} are more than the limit of {limit:,} ({name})",
        f"if the file is to be trusted, raise it: mbgraph --limit {name}={needed} COMMAND .."
        if needed <= most
        else f"no limit goes beyond {most:,}",
    )


_NOUNS = {"objects": "values"}
