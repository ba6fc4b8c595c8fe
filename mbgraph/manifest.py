"""Hashes of the files of a run directory: whoever reads one of them can tell that it is what was written.

A manifest says nothing about who wrote it. It is there for flipped bits, files of another run and edits by hand, which
would otherwise be evaluated as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from mbgraph.errors import DataError, RunError
from mbgraph.files import atomic_write, open_file, read_json, write_json

__all__ = ["MANIFEST", "check", "check_complete", "note", "recorded"]

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


@contextlib.contextmanager
def recorded(folder: Path, names: Sequence[str]) -> Iterator[list[IO[bytes]]]:
    """Open files of a folder for writing; they take their places in order when the block ends well.

    Their hashes are in the manifest before, beside those of the files that they replace: a kill at any moment leaves
    files that `check` takes.

    Raises
    ------
    RunError
        If one cannot be written.
    """
    with contextlib.ExitStack() as stack:
        # the last that is opened is the first to be renamed
        files = [stack.enter_context(atomic_write(folder / name, "w+b")) for name in reversed(names)][::-1]
        yield files
        _announce(folder, {name: _digest(file) for name, file in zip(names, files, strict=True)})


def note(folder: Path, names: Sequence[str]) -> None:
    """Put the hashes of files that are there into the manifest."""
    hashes = {}
    for name in names:
        with open_file(folder / name) as file:
            hashes[name] = _digest(file)
    _announce(folder, hashes)


def check(folder: Path, names: Sequence[str]) -> None:
    """Raise `RunError` unless files of a folder are what was written; `DataError` if one is not there."""
    if not (folder / MANIFEST).is_file():
        raise RunError(
            f"{folder} has no {MANIFEST}, so nothing says that its files are those that were written",
            "restore it, or fit the model again",
        )
    known = _read(folder)
    for name in names:
        with open_file(folder / name) as file:
            found = _digest(file)
        if name not in known:
            raise RunError(
                f"{MANIFEST} of {folder} knows no {name}", f"continue it with: mbgraph fit --resume {folder}"
            )
        if found not in known[name]:
            raise RunError(
                f"{folder / name} is not the file that was written there: it was changed, damaged or replaced",
                "restore it, or fit the model again",
            )


def check_complete(folder: Path, names: Sequence[str]) -> None:
    """Raise `RunError` unless a run directory is there and has files of these names."""
    if not folder.is_dir():
        raise RunError(f"no run directory at {folder}", "make one with: mbgraph fit --out DIR")
    for name in names:
        if not (folder / name).is_file():
            raise RunError(f"{folder} is not a complete run directory: {name} is missing", "fit the model again")


def _announce(folder: Path, hashes: Mapping[str, str]) -> None:
    known = _read(folder) if (folder / MANIFEST).is_file() else {}
    for name, new in hashes.items():
        old = known.get(name, [])[:1]
        known[name] = [new, *(each for each in old if each != new)]
    write_json(folder / MANIFEST, known)


def _read(folder: Path) -> dict[str, list[str]]:
    """Return by name the hash of a file and of the one that it replaced."""
    try:
        found = read_json(folder / MANIFEST)
    except DataError as error:
        raise RunError(error.message, "restore it, or fit the model again") from error
    if not isinstance(found, dict) or not all(isinstance(hashes, list) for hashes in found.values()):
        raise RunError(f"{folder / MANIFEST} holds no hashes", "restore it, or fit the model again")
    return found


def _digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of all that a file holds; what was written to it is flushed first."""
    if file.writable():
        file.flush()
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
