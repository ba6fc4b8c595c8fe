"""Dataset folders: written whole or not at all, under a temporary name beside their place."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mbgraph.errors import RunError
from mbgraph.locks import beside, claimed

__all__ = ["claimed_folder", "new_folder"]

_LEFT_BEHIND = re.compile(r"\.[a-z0-9_]{8}\.(tmp|old)")


@contextmanager
def claimed_folder(path: Path) -> Iterator[None]:
    """Be the only one who makes a dataset folder while the block runs, reading before included.

    What a killed one left beside the place is cleared away; an old folder that it had moved aside comes back.

    Raises
    ------
    RunError
        If another process is at it, named with its host.
    """
    place = path.resolve()
    lock = beside(place)
    with claimed(lock, path):
        for left in place.parent.glob(f".{glob.escape(place.name)}.*"):
            if _LEFT_BEHIND.fullmatch(left.name.removeprefix(f".{place.name}")) and left.is_dir():
                if left.suffix == ".old" and not place.exists() and (left / place.name).is_dir():
                    os.replace(left / place.name, place)
                shutil.rmtree(left, ignore_errors=True)
        try:
            yield
        finally:
            # Whoever opened the file in this very moment may hold a lock that nobody else sees. That costs nothing:
            # every writer has a scratch folder of its own, and looks at the place again once it has the lock.
            with suppress(OSError):
                lock.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a scratch folder to write into and put it in the place of ``path`` when the block ends well.

    Whoever looks sees the old folder, the new one or none, and after an error the old one.

    Raises
    ------
    RunError
        If the disk is full or the place cannot be written.
    """
    place = path.resolve()  # a link to a folder: the folder is replaced, not the link
    scratch: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
        yield scratch
        _publish(scratch, place)
    except (OSError, RunError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or str(error)
        raise RunError(f"cannot write {path}: {reason}", "free some space or choose another folder") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, place: Path) -> None:
    """Rename the finished folder into its place; an old one is moved aside first and comes back if that fails."""
    umask = os.umask(0)
    os.umask(umask)
    scratch.chmod(0o777 & ~umask)  # mkdtemp makes folders that only their owner can read
    if not place.exists():
        os.replace(scratch, place)
        return
    attic = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
    aside = attic / place.name  # a folder cannot take the place of another one on Windows, not even of an empty one
    try:
        os.replace(place, aside)
        try:
            os.replace(scratch, place)
        except OSError:
            os.replace(aside, place)
            raise
    finally:
        shutil.rmtree(attic, ignore_errors=True)
