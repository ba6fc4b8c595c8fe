"""What is done to files of the corpus: a mutation is a value that can be printed and repeated."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

__all__ = ["Mutation", "apply", "copy", "draw"]

NUMBERS = (
    b"0",
    b"-1",
    b"1e9",
    b"2000000000",
    b"2147483648",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"NaN",
    b"1.0",
    b"1e400",
    b"9" * 400,
    b"0x10",
    b"1_0",
    b"\xd9\xa1",
)
WORDS = (
    "",
    "..",
    "../../../EVIL",
    "/tmp/EVIL",
    "a\0b",
    "\ud800",
    "x" * 300,
    "[/b]",
    "[red]",
    "\x1b[31m",
    "con",
    "\u202e",
    "valid",
    "test",
    "rev_buy",
    "a/b",
    ":",
    "-o",
    "$(touch EVIL)",
    "__import__('os')",
    "%s%n",
    "{0}",
    "~root",
    "\n",
)
JSON = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"0",
    b"-1",
    b"2e9",
    b"2000000000",
    b"1e400",
    b'""',
    b'"[/b]"',
    b'["view"]',
    b"[1]",
    b'{"a": 1}',
    b"[" * 5000,
    b'"\\ud800"',
    b'"../../../EVIL"',
    b"9" * 5000,
)
CHUNKS = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b",",
    b'"',
    b"\t",
    b"{",
    b"PK\x03\x04",
    b"PAR1",
    b"\x1f\x8b\x08",
    b"cos\nsystem\n(S'touch EVIL'\ntR.",
    b"\x80\x04\x95",
    b"cposix\nsystem\n",
    b"\x93NUMPY\x01\x00",
    b"x" * 70_000,
)
TRANSFORMS = ("upper", "utf-16", "cr", "crlf", "reverse", "double", "gzip", "blank", "sorted")
PLACES = ("empty", "gone", "pipe", "folder", "loop", "outside", "locked", "dangling")


@dataclass(frozen=True)
class Mutation:
    """One change of one file: ``file`` and ``at`` are shares of what there is, ``value`` belongs to the kind."""

    kind: str
    file: float
    at: float = 0.0
    value: object = None


def _word(rng: Random) -> str:
    return rng.choice([word for word in WORDS if word and "\0" not in word and "\n" not in word])


KINDS: dict[str, Callable[[Random], object]] = {
    "flip": lambda rng: rng.randrange(8),
    "cut": lambda rng: rng.randrange(64),
    "truncate": lambda rng: None,
    "number": lambda rng: rng.choice(NUMBERS),
    "json": lambda rng: rng.choice(JSON),
    "word": lambda rng: rng.choice(WORDS),
    "insert": lambda rng: rng.choice([*CHUNKS, rng.randbytes(1 + rng.randrange(16))]),
    "transform": lambda rng: rng.choice(TRANSFORMS),
    "place": lambda rng: rng.choice(PLACES),
    "rename": _word,
    "other": Random.random,
}


def draw(rng: Random) -> Mutation:
    """Return something that may be done to a file."""
    kind = rng.choice(list(KINDS))
    return Mutation(kind, rng.random(), rng.random(), KINDS[kind](rng))


def apply(mutation: Mutation, root: Path) -> None:
    """Change a file below a folder, or the file itself."""
    entries = sorted(root.rglob("*")) if root.is_dir() else [root]
    files = [path for path in entries if path.is_file() and not path.is_symlink()]  # a pipe would wait, a link lead out
    if not files:
        return
    path = files[int(mutation.file * len(files))]
    if mutation.kind == "place":
        _replace(path, str(mutation.value))
    elif mutation.kind == "rename":
        name = str(mutation.value).replace("/", "_")[:200].encode("utf-8", "ignore")
        path.rename(path.with_name((name.decode() or "x") + (path.suffix if mutation.at < 0.5 else "")))
    elif mutation.kind == "other":
        assert isinstance(mutation.value, float)
        path.write_bytes(files[int(mutation.value * len(files))].read_bytes())
    else:
        path.write_bytes(_changed(path.read_bytes(), mutation))


def _changed(content: bytes, mutation: Mutation) -> bytes:
    at, value = int(mutation.at * len(content)), mutation.value
    if mutation.kind == "flip":
        if not content:
            return content
        return content[:at] + bytes([content[at] ^ (1 << int(str(value)))]) + content[at + 1 :]
    if mutation.kind == "cut":
        return content[:at] + content[at + int(str(value)) :]
    if mutation.kind == "truncate":
        return content[:at]
    if mutation.kind in ("number", "word", "json"):
        pattern = {"number": rb"\d+", "word": rb"[A-Za-z_]+", "json": rb'"[^"]*"|\d+|\[[^\[\]]*\]|true|null'}[
            mutation.kind
        ]
        found = list(re.finditer(pattern, content))
        new = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        if not found:
            return content + new
        hit = found[int(mutation.at * len(found))]
        return content[: hit.start()] + new + content[hit.end() :]
    if mutation.kind == "insert":
        assert isinstance(value, bytes)
        return content[:at] + value + content[at:]
    return _transformed(content, str(value))


def _transformed(content: bytes, how: str) -> bytes:
    if how == "utf-16":
        return content.decode("latin-1").encode("utf-16")
    changes = {
        "upper": content.upper,
        "cr": lambda: content.replace(b"\n", b"\r"),
        "crlf": lambda: content.replace(b"\n", b"\r\n"),
        "reverse": lambda: content[::-1],
        "double": lambda: content + content,
        "gzip": lambda: gzip.compress(content, mtime=0),
        "blank": lambda: content.replace(b",", b" ,, "),
        "sorted": lambda: b"\n".join(sorted(content.split(b"\n"))),
    }
    return changes[how]()


def _replace(path: Path, what: str) -> None:
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "pipe" and hasattr(os, "mkfifo"):
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "outside":
        path.symlink_to(root_of_outside(path))
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "locked":
        path.touch(mode=0)


def root_of_outside(path: Path) -> Path:
    """Return a file outside of an input, which a link may lead to and nothing may change."""
    outside = next(parent for parent in path.parents if parent.name == "work").parent / "outside"
    outside.write_bytes(b"1 1\n2 2\n")
    return outside


def copy(source: Path, place: Path) -> Path:
    """Copy a file or folder of the corpus."""
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copyfile(source, place)
    return place
