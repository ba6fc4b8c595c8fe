"""Files: written to a temporary name and renamed, read without ever leaving their folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from mbgraph.errors import DataError, MbgraphError, RunError, UsageError

__all__ = [
    "append_line",
    "atomic_write",
    "check_folder",
    "inside",
    "is_taken",
    "open_file",
    "parse_json",
    "read_json",
    "read_whole",
    "reading",
    "safe_name",
    "shipped",
    "sweep",
    "user_path",
    "write_json",
]

LOCK_FILES = (".lock", ".lock.holder")
"""What a lock on a folder leaves in it; see `mbgraph.locks`."""

_LONGEST_NAME = 80  # bytes; what is put around a name still has to fit into the 255 that file systems take
_LEFT_BEHIND = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
_TAKEN = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` and rename it over ``path`` when the block ends well.

    A reader sees the old file or the new one, never a part; a block that raises leaves the old file alone.

    Raises
    ------
    RunError
        If the folder cannot be written or the disk is full. The message names the path.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        # newline="": lines end as they are written, so a file has the same bytes on every system
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with os.fdopen(descriptor, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {reason}", "free some space or choose another folder") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line to a text file; `RunError` if it cannot be written."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise RunError(f"cannot write {path}: {_told(error)}", "free some space or choose another folder") from error


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what a killed `atomic_write` left in a folder; nobody else may be writing there."""
    for entry in Path(folder).iterdir():
        if _LEFT_BEHIND.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
            with contextlib.suppress(OSError):
                entry.unlink()


def check_folder(
    path: str | os.PathLike[str],
    overwrite: bool = False,
    objection: Callable[[list[str]], None] | None = None,
    remedy: str = "choose another folder or overwrite it (--force)",
) -> None:
    """Raise `UsageError` unless a folder may be written: where there is none, it is empty, or it may be replaced.

    Parameters
    ----------
    path : path
    overwrite : bool
        Whether a folder that holds something may be replaced at all.
    objection : callable, optional
        Is given the names in such a folder, sorted, and raises if they are not the caller's to replace.
    remedy : str
        What to do about a folder that holds something.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"{path} is a file", "choose another folder")
    held = sorted(entry.name for entry in path.iterdir() if entry.name not in LOCK_FILES)
    if held and not overwrite:
        raise UsageError(f"{path} already exists and is not empty", remedy)
    if held and objection is not None:
        objection(held)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], remedy: str = "restore the file", problem: str | None = None
) -> Iterator[None]:
    """Turn whatever a reader did not expect into one line that names the file; the cause stays for ``--debug``.

    Parameters
    ----------
    path : path
    remedy : str
        What to do about it.
    problem : str, optional
        What is wrong, with the file's name; the message puts the cause in brackets behind it. By default that the file
        cannot be read.

    Raises
    ------
    DataError
        For any exception but those of `mbgraph.errors`, which say already what is wrong.
    """
    try:
        yield
    except MbgraphError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is", remedy) from error
    except Exception as error:
        raise DataError(f"{problem or f'cannot read {path}'} ({_told(error)})", remedy) from error


def _told(error: Exception) -> str:
    """Say in a few words what happened: system and parsers speak for themselves, others need their type."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
    if isinstance(error, KeyError):
        return f"no {text}"
    plain = isinstance(error, OSError | ValueError) and text
    return text if plain else f"{type(error).__name__}{f': {text}' if text else ''}"


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading; a pipe, a device or a folder is refused without waiting for it.

    Raises
    ------
    DataError
        If it is missing, locked, or no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {_told(error)}", "restore the file or correct the path") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
    raise DataError(
        f"cannot read {path}: it is {kind}, not a file", "give a file; save first what comes through a pipe"
    )


def read_whole(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Return the content of a file.

    Parameters
    ----------
    path : path
    most : int, optional
        A file of more bytes is refused; by default the limit ``whole_mib``.

    Raises
    ------
    DataError
        If it cannot be read or is larger.
    """
    from mbgraph import limits

    with open_file(path) as file:
        if most is None:
            held = os.fstat(file.fileno()).st_size >> 20
            if held >= limits.current().whole_mib:
                raise limits.refusal("whole_mib", f"{path}: {held:,} MiB", held + 1)
        try:
            content = file.read(-1 if most is None else most + 1)
        except OSError as error:
            raise DataError(f"cannot read {path}: {_told(error)}", "restore the file") from error
    if most is not None and len(content) > most:
        raise DataError(f"{path} has more than {most:,} bytes", "give another file")
    return content


def read_json(path: str | os.PathLike[str], hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file; one that is missing, broken, nested too deeply or beyond the limits raises `DataError`."""
    return parse_json(path, read_whole(path), hook)


def parse_json(
    path: str | os.PathLike[str], content: bytes, hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Return what JSON says; `DataError` names ``path``, and ``hook`` makes something of each object's entries."""
    from mbgraph import limits

    limits.check("objects", sum(map(content.count, (b",", b"[", b"{", b":"))), path)
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=hook)
    except RecursionError as error:
        raise DataError(f"{path} is not valid JSON: it is nested too deeply", "restore the file") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {_told(error)}", "restore the file") from error


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return a path that somebody gave, ``~`` expanded; what no path can be is refused once for all.

    Nothing has to be there yet. What is refused: a NUL, a name too long, a loop of links, a folder that lets nobody
    look, the home of a user that does not exist.

    Raises
    ------
    UsageError
        In one line.
    """
    try:
        path = Path(text).expanduser()
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:
        told = os.fspath(text)
        told = told if len(told) <= 80 else f"{told[:77]}..."
        raise UsageError(f"cannot use the path {told}: {_told(error)}", "correct it") from error
    return path


def inside(folder: str | os.PathLike[str], name: str) -> Path:
    """Return ``folder/name`` after checking that it stays inside ``folder``.

    Raises
    ------
    DataError
        If ``name`` is absolute, contains ``..`` that escapes, or resolves through a link to another place.
    """
    root = Path(folder).resolve()
    path = (root / name).resolve()
    if path == root or not path.is_relative_to(root):
        raise DataError(f"{name!r} would leave the folder {root}")
    return path


def safe_name(text: str, default: str = "data") -> str:
    """Return a name that any file can have, made of any text: nothing else that data say ever becomes part of a path.

    Letters and digits of any script, ``.``, ``_``, ``+`` and ``-`` stay; everything else, separators of folders among
    it, becomes ``_``. The name begins with neither a dot nor a dash, and is at most 80 bytes long.

    Examples
    --------
    >>> safe_name("taobao-15k"), safe_name("../../etc/passwd"), safe_name("..")
    ('taobao-15k', 'etc_passwd', 'data')
    """
    name = re.sub(r"[^\w.+-]+", "_", text).lstrip("._-")
    name = name.encode(errors="ignore")[:_LONGEST_NAME].decode(errors="ignore").rstrip("._")
    return f"_{name}" if is_taken(name) else name or default


def is_taken(name: str) -> bool:
    """Return whether no file can be called so on Windows."""
    return _TAKEN.fullmatch(name) is not None


def shipped(name: str) -> Path:
    """Return a folder of the project that holds data, ``"datasets"`` or ``"benchmarks"``.

    An installed package has it inside; a source tree has it beside the package.
    """
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name
