"""Which format a path holds, told by its content: names of files and their first lines."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from mbgraph import limits
from mbgraph.data.aliases import is_known
from mbgraph.data.formats.content import first_words, repeats_users
from mbgraph.data.formats.events import is_json_lines
from mbgraph.data.formats.mbgcn import SIZES
from mbgraph.data.formats.npz import is_npz
from mbgraph.data.formats.recbole_table import parse_header
from mbgraph.errors import DataError
from mbgraph.files import open_file, reading, user_path

__all__ = ["LOOKED_FOR", "by_hand", "candidates", "check_exists", "detect"]

LOOKED_FOR = {
    "npz": "meta.json",
    "pairs": "count.txt with <behavior>.txt",
    "dicts": "count.txt with <behavior>_dict.txt",
    "ehcf": "<behavior>.train.txt with a header",
    "adjacency": "train.txt and test.txt of numbers",
    "mbcgcn": "folders view, cart, buy or the like with train.txt",
    "csr-pickle": "trn_<behavior> and tst_int",
    "sslrec": "train_mat_<behavior>.pkl and test_mat.pkl",
    "missl": "a file of user, item, behavior and time without a header",
    "recbole": ".inter files",
    "mbgcn": "data_size.txt and train.txt",
    "by-part": "files named <behavior>_train and <behavior>_test or the like",
    "events": "a Parquet file, JSON lines or a CSV with a header",
}
"""Format to what tells it from the others."""

_HEAD = 1 << 16
_COLUMNS = 3  # an event log has at least user, item and behavior


def detect(path: str | os.PathLike[str]) -> str:
    """Return the format of a folder or file.

    Raises
    ------
    DataError
        If there is nothing, nothing known, or the marks of two formats.
    """
    path = user_path(path)
    found = candidates(path)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path} may be {' or '.join(found)}", "say which with format= (--format)")
    check_exists(path)
    line = by_hand(path)
    if line is not None:
        raise DataError(f"{path} is of no known format", f"say what its files are: {line}")
    looked = ", ".join(f"{mark} ({name})" for name, mark in LOOKED_FOR.items())
    raise DataError(f"{path} is of no known format", f"looked for {looked}")


def by_hand(path: Path) -> str | None:
    """Return the command that converts a folder whose files must be named, None where none hold numbers."""
    from mbgraph.data.formats.by_part import suggestion

    with reading(path):
        return suggestion(path) if path.is_dir() else None


def check_exists(path: Path) -> None:
    """Raise `DataError` if nothing is there."""
    if not path.exists():
        raise DataError(f"there is no {path}", "correct the path")


def candidates(path: Path) -> list[str]:
    """Return the formats whose marks a path bears; none for a path that does not exist."""
    path = user_path(path)
    with reading(path):
        if path.is_dir():
            names = frozenset(entry.name for entry in islice(path.iterdir(), limits.current().files + 1))
            limits.check("files", len(names), path)
            found = [name for name, looks_so in _FOLDERS.items() if looks_so(path, names)]
            return found or (["by-part"] if _parts(path) else [])
        return _of_file(path) if path.exists() else []


def _of_file(path: Path) -> list[str]:
    with open_file(path) as file:
        head = file.read(_HEAD)
    if head.startswith(b"PAR1"):
        return ["events"]
    if head.startswith(b"\x1f\x8b") and ".csv" in path.name.lower():
        return ["events"]
    if is_json_lines(head):
        return ["events"]
    try:
        line = head[: head.find(b"\n") + 1 or None].decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    if "\0" in line:
        return []
    if parse_header(line) is not None:
        return ["recbole"]
    words = line.split()
    if len(words) == 4 and words[0].isdigit() and words[1].isdigit() and _is_number(words[3]):
        return ["missl"]
    separator = max(",\t;|", key=line.count)
    fields = [field.strip() for field in next(csv.reader([line.strip("\r\n")], delimiter=separator), [])]
    is_header = len(fields) >= _COLUMNS and all(fields) and not any(_is_number(field) for field in fields)
    return ["events"] if is_header else []


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(file: Path) -> bool:
    words = first_words(file)
    return bool(words) and all(word.isdigit() for word in words[:-1]) and words[0].isdigit()


def _stems(names: frozenset[str], *suffixes: str) -> list[str]:
    return [name for name in names if name.endswith(suffixes) and not name.startswith((".", *suffixes))]


def _pairs(path: Path, names: frozenset[str]) -> bool:
    from mbgraph.data.formats.pairs import pair_files

    return "count.txt" in names and bool(pair_files(path)[0])


def _dicts(path: Path, names: frozenset[str]) -> bool:
    return "count.txt" in names and bool(_stems(names, "_dict.txt")) and not _pairs(path, names)


def _ehcf(path: Path, names: frozenset[str]) -> bool:
    tables = _stems(names, ".train.txt")
    return bool(tables) and not any(_numbers(path / name) for name in tables)


def _adjacency(path: Path, names: frozenset[str]) -> bool:
    if "count.txt" in names or SIZES in names or not {"train.txt", "test.txt"} <= names:
        return False
    return _numbers(path / "train.txt") and not repeats_users(path / "train.txt")


def _mbcgcn(path: Path, names: frozenset[str]) -> bool:
    # folders of other names may be datasets
    files = [path / name / "train.txt" for name in names if is_known(name) and (path / name / "train.txt").is_file()]
    return "train.txt" not in names and bool(files) and not any(map(repeats_users, files))


def _parts(path: Path) -> bool:
    from mbgraph.data.formats.by_part import find_layout

    return find_layout(path) is not None


def _csr_pickle(path: Path, names: frozenset[str]) -> bool:
    from mbgraph.data.formats.csr_pickle import held_out_files

    return any(name.startswith("trn_") for name in names) and bool(held_out_files(path))


def _sslrec(path: Path, names: frozenset[str]) -> bool:
    return "test_mat.pkl" in names and any(name.startswith("train_mat_") for name in _stems(names, ".pkl"))


_FOLDERS: dict[str, Callable[[Path, frozenset[str]], bool]] = {
    "npz": lambda path, names: is_npz(path),
    "pairs": _pairs,
    "dicts": _dicts,
    "ehcf": _ehcf,
    "adjacency": _adjacency,
    "mbcgcn": _mbcgcn,
    "csr-pickle": _csr_pickle,
    "sslrec": _sslrec,
    "recbole": lambda path, names: bool(_stems(names, ".inter")),
    "mbgcn": lambda path, names: {SIZES, "train.txt"} <= names,
}
