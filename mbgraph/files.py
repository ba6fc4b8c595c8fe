"""Files: written to a temporary name and renamed, read without ever leaving their folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mbgraph.errors import DataError, RunError, UsageError

__all__ = ["atomic_write", "check_folder", "inside", "read_json", "safe_name", "shipped", "write_json"]

_LONGEST_NAME = 80  # bytes; what is put around a name still has to fit into the 255 that file systems take
_TAKEN = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # no file can be called so on Windows


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
    held = sorted(entry.name for entry in path.iterdir())
    if held and not overwrite:
        raise UsageError(f"{path} already exists and is not empty", remedy)
    if held and objection is not None:
        objection(held)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; a missing or broken one raises `DataError` naming the path."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


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
    return f"_{name}" if _TAKEN.fullmatch(name) else name or default


def shipped(name: str) -> Path:
    """Return a folder of the project that holds data, ``"datasets"`` or ``"benchmarks"``.

    An installed package has it inside; a source tree has it beside the package.
    """
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name
