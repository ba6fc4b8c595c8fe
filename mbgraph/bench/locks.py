"""One worker per run: a lock is a file that says who holds it, so that a dead holder's can be told and taken over."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from mbgraph.errors import RunError

__all__ = ["hold", "holder"]

BEAT = 20.0
"""Seconds after which a holder touches its lock."""
SILENCE = 600.0
"""Seconds without a touch after which the lock of another host counts as left behind."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs; yields whether it was free.

    The file names host, process and when that process began. A lock is stale if its process on this host is gone, or
    if another host has not touched it for ten minutes; it is then taken over.
    """
    if not _take(path):
        yield False
        return
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        path.unlink(missing_ok=True)


def holder(path: Path) -> dict[str, Any] | None:
    """Return who holds a lock, None if nobody does or the holder is dead."""
    try:
        text, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        host, pid, began = str(found["host"]), int(found["pid"]), float(found["began"])
    except (ValueError, KeyError, TypeError):
        # its writer was killed between making and filling it, or is about to fill it
        return {"host": "?", "pid": 0} if time.time() - touched < BEAT else None
    if host != socket.gethostname():
        return found if time.time() - touched < SILENCE else None
    try:
        alive = abs(psutil.Process(pid).create_time() - began) < 2  # a number may be given to a later process
    except psutil.NoSuchProcess:
        return None
    return found if alive else None


def _take(path: Path) -> bool:
    text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": psutil.Process().create_time()})
    for _ in range(100):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            if holder(path) is not None:
                return False
            _remove_stale(path)
            continue
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}", "choose another --store") from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return True
    return False


def _remove_stale(path: Path) -> None:
    """Remove the lock of a dead holder, one remover at a time: so what is looked at is what is removed.

    Whoever takes a lock makes the file, which fails while it is there; only here is another's removed.
    """
    guard = path.with_name(f"{path.name}.removing")
    try:
        guard.mkdir()
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - guard.stat().st_mtime > BEAT:  # its maker died in the few lines below
                guard.rmdir()
        time.sleep(0.01)
        return
    try:
        if holder(path) is None:
            path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):
            guard.rmdir()


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
