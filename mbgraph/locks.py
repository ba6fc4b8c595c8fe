"""One writer at a time: a lock of the operating system, which frees it however its holder ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mbgraph.errors import RunError
from mbgraph.files import write_json

__all__ = ["beside", "claimed", "hold", "holder"]


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs; yields whether it was free.

    The lock is the system's, on the file at ``path``: nobody has to find out whether a holder is dead. Beside it, in
    ``path`` with ``.holder`` at its end, stand the host and the process that hold it, for those who are refused.

    Raises
    ------
    RunError
        If the file cannot be written, or its file system knows no locks.
    """
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunError(f"cannot lock {path}: {why}", "choose another folder") from error
    name = _name_of_holder(path)
    try:
        write_json(name, {"host": socket.gethostname(), "pid": os.getpid()})
        yield True
    finally:
        name.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def claimed(lock: Path, what: object) -> Iterator[None]:
    """Hold a lock while the block runs, or say who is at it.

    Parameters
    ----------
    lock : Path
    what : path
        What the lock is for, for the message.

    Raises
    ------
    RunError
        If somebody else holds it, with process and host.
    """
    with hold(lock) as free:
        if not free:
            who = holder(lock) or {}
            by = f"process {who['pid']} on {who['host']}" if {"pid", "host"} <= who.keys() else "another process"
            raise RunError(f"{by} is writing {what}", "wait until it ends, or choose another folder")
        yield


def beside(place: Path) -> Path:
    """Return the lock of a folder that is replaced as a whole, so that none can be in it."""
    place = place.resolve()
    return place.with_name(f".{place.name}.lock")


def holder(path: Path) -> dict[str, Any] | None:
    """Return host and process that hold a lock, None if they are not known.

    What a killed holder left is told until the next one comes: this is for messages, `hold` is what decides.
    """
    try:
        found = json.loads(_name_of_holder(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _name_of_holder(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")
