"""What a call does: an audit hook of the interpreter records every path written and every program started."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Deeds", "watched"]

_WRITES = {
    "os.mkdir": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
    "os.chmod": 0,
    "shutil.rmtree": 0,
    "shutil.move": 1,
}
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "ctypes.dlopen.x")


@dataclass
class Deeds:
    """What was done."""

    written: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)

    def outside(self, *folders: Path) -> set[str]:
        """Return what was written elsewhere than below some folders; machine code and devices do not count."""
        allowed = [os.path.realpath(folder) + os.sep for folder in folders]
        own = os.path.realpath(Path(__file__).parents[2] / "mbgraph") + os.sep
        return {
            path
            for path in self.written
            if not (os.path.realpath(path) + os.sep).startswith(tuple(allowed))
            and path not in ("/dev/null", "/dev/tty")
            and not path.startswith("/proc/self/")
            and "__pycache__" not in path
            and not (path.startswith(own) and path.endswith((".nbi", ".nbc")))
        }


_deeds: list[Deeds] = []


def _hook(event: str, arguments: tuple) -> None:
    if not _deeds:
        return
    deeds = _deeds[-1]
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            deeds.written.add(os.path.abspath(os.fsdecode(path)))
    elif event in _WRITES:
        path = arguments[_WRITES[event]]
        if isinstance(path, str | bytes | os.PathLike):
            deeds.written.add(os.path.abspath(os.fsdecode(path)))
    elif event in _STARTS and not str(arguments[0]).endswith("uname"):  # so Python asks which processor this is
        deeds.started.add(f"{event} {arguments!r}"[:200])


sys.addaudithook(_hook)  # for as long as the process lives; it looks at nothing outside `watched`


@contextmanager
def watched() -> Iterator[Deeds]:
    """Record what the block does."""
    deeds = Deeds()
    _deeds.append(deeds)
    try:
        yield deeds
    finally:
        _deeds.remove(deeds)


def loaded_from(folder: Path) -> list[str]:
    """Return the modules that were loaded from a folder."""
    place = os.path.realpath(folder)
    return [
        name for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", None) or "").startswith(place)
    ]  # fmt: skip


def temporary() -> Path:
    """Return the system's folder of temporary files."""
    return Path(tempfile.gettempdir())
