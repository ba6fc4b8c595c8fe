"""A file per behavior and split, in whatever each file holds: pairs, lists of items or a pickled matrix.

This is the general way in. The files are named by hand (``behaviors={"click": "click_train", "buy": "target_train"}``),
or told by their names where these say it: ``click_train`` and ``buy_test``, ``behavior_1/train.txt``, ``view.txt``
beside ``train.txt`` and ``test.txt``. Ids count from 0 if one of them is 0, and otherwise from 1.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mbgraph.data.aliases import canonical_behavior, canonical_split, is_known
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.formats.assemble import Origin, assemble, find_target
from mbgraph.data.formats.content import Survey, has_header, is_pickle, second_line, survey
from mbgraph.data.formats.matrices import Matrix, read_held_out, read_matrix
from mbgraph.data.formats.matrix_folder import check_shapes
from mbgraph.data.formats.text import read_adjacency, read_pairs
from mbgraph.data.interactions import Pairs
from mbgraph.errors import DataError, UsageError, nearest
from mbgraph.files import inside

__all__ = ["Layout", "find_layout", "read", "suggestion"]

_SUFFIX = re.compile(r"\.(txt|csv|tsv|dat|pkl|pickle)$", re.IGNORECASE)
_NUMBERED = re.compile(r"beh(avior|aviour)?[_-]?\d+", re.IGNORECASE)
_TARGET = "target"
_SHOWN = 9  # behaviors in a line that is to be read


@dataclass
class Layout:
    """Which file of a folder holds what.

    Attributes
    ----------
    behaviors : dict of str to Path
        Train pairs of each behavior.
    target : str or None
        The behavior that held-out pairs are of, where the names tell it.
    splits : dict of str to Path
    left_out : dict of str to str
        Other files, with the reason.
    """

    behaviors: dict[str, Path] = field(default_factory=dict)
    target: str | None = None
    splits: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def _part(stem: str) -> str | None:
    return "train" if stem.lower() == "train" else canonical_split(stem)


def _named(path: Path) -> Iterator[tuple[Path, str, str | None]]:
    """Yield every file that holds numbers or a pickle with the behavior (``""``: the target) and part its name says."""
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if is_known(entry.name) or _NUMBERED.fullmatch(entry.name):
                for file in sorted(entry.iterdir()):
                    part = _part(_SUFFIX.sub("", file.name))
                    if file.is_file() and part and _may_hold(file):
                        yield file, entry.name, part
            continue
        stem = _SUFFIX.sub("", entry.name)
        if not entry.is_file() or not _may_hold(entry):
            continue
        words = re.split(r"[_.-]", stem)
        if _part(stem) or is_known(stem):
            yield entry, "" if _part(stem) else stem, _part(stem) or "train"
        elif len(words) > 1 and _part(words[-1]):
            yield entry, stem[: -len(words[-1]) - 1], _part(words[-1])
        elif len(words) > 1 and _part(words[0]):
            yield entry, stem[len(words[0]) + 1 :], _part(words[0])
        elif not _is_log(entry):
            yield entry, stem, None


def _may_hold(file: Path) -> bool:
    try:
        return is_pickle(file) or has_header(file) is not None
    except DataError:
        return False


def _is_log(file: Path) -> bool:
    """Return whether a file has three columns or more between commas: what its name calls nothing is an event log."""
    return second_line(file).count(b",") > 1


def find_layout(path: Path, target: str | None = None) -> Layout | None:
    """Return what the names of a folder's files say, None if they do not make a dataset."""
    layout = Layout()
    trains: dict[str, Path] = {}
    held_out: dict[str, dict[str, Path]] = {}
    for file, behavior, part in _named(path):
        name = str(file.relative_to(path))
        if part is None:
            layout.left_out[name] = "its name says neither a behavior nor a split"
        elif part == "train":
            if behavior in trains:
                layout.left_out[name] = f"{trains[behavior].name} holds {behavior} too"
            else:
                trains[behavior] = file
        elif part in held_out.setdefault(behavior, {}):
            layout.left_out[name] = f"{held_out[behavior][part].name} holds the {part} pairs too"
        else:
            held_out[behavior][part] = file
    if "" in trains:  # train.txt: the target under whatever name
        called = target or "buy"
        if called in trains:
            layout.left_out[str(trains[called].relative_to(path))] = f"{trains[''].name} holds {called} too"
        trains[called] = trains.pop("")
        layout.target = called
    layout.behaviors = trains
    of = [behavior for behavior in held_out if behavior in trains]
    if layout.target is None and target is None and len(of) == 1 and "" not in held_out:
        layout.target = of[0]
    elif layout.target is None:
        buys = [name for name in trains if canonical_behavior(name) == "buy" or name == _TARGET]
        layout.target = target or (buys[0] if len(buys) == 1 else None)
    for behavior, files in held_out.items():
        for split, file in files.items():
            name = str(file.relative_to(path))
            if behavior not in ("", layout.target):
                layout.left_out[name] = "held-out pairs of an auxiliary behavior"
            elif split in layout.splits:
                layout.left_out[name] = f"{layout.splits[split].name} holds the {split} pairs too"
            else:
                layout.splits[split] = file
    return layout if trains and (layout.splits or len(trains) > 1) else None


def suggestion(path: Path) -> str | None:
    """Return the command that converts a folder by hand, filled in with what its files seem to hold, if any."""
    layout = find_layout(path)
    if layout is None:
        files = [(file, behavior or "buy") for file, behavior, part in _named(path) if part in (None, "train")]
        if not files:
            return None
        layout = Layout({behavior: file for file, behavior in files})
        layout.splits = {part: file for file, _, part in _named(path) if part in ("valid", "test")}
    target = layout.target or next(
        (name for name in layout.behaviors if canonical_behavior(name) == "buy"), list(layout.behaviors)[-1]
    )
    words = ["mbgraph", "data", "convert", str(path)]
    for behavior, file in list(layout.behaviors.items())[:_SHOWN]:
        words += ["--behavior", f"{behavior}={file.relative_to(path)}"]
    words += [".."] * (len(layout.behaviors) > _SHOWN)
    words += ["--target", target]
    for split, file in layout.splits.items():
        words += [f"--{split}", str(file.relative_to(path))]
    return " ".join(map(shlex.quote, [*words, "-o", "OUT"]))


def read(
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    behaviors: Mapping[str, str] | None = None,
    valid: str | None = None,
    test: str | None = None,
    base: int | None = None,
    users: int | None = None,
    items: int | None = None,
) -> MultiBehaviorDataset:
    """Read files of which each holds one behavior's train pairs or one split.

    Parameters
    ----------
    path : Path
        The folder.
    target : str, optional
        The behavior that held-out pairs are of; by default what the names tell.
    name : str, optional
    behaviors : mapping of str to str, optional
        Files, relative to the folder, with the train pairs of each behavior; by default what their names tell.
    valid, test : str, optional
        Files with held-out pairs.
    base : {0, 1}, optional
        What ids in text count from; by default 0 if one is 0 and 1 otherwise. Matrices count from 0.
    users, items : int, optional
        Numbers of them; by default the shape of matrices, or the largest id.

    Raises
    ------
    DataError
        If a file is missing, holds none of the three, or is broken (with line).
    UsageError
        If held-out pairs are named and no behavior, the target cannot be guessed, or ``base`` is neither 0 nor 1.
    """
    if base not in (None, 0, 1):
        raise UsageError(f"ids count from 0 or 1, not from {base}", "pass base=0 or base=1 (--base)")
    layout = _layout(path, target, behaviors, {"valid": valid, "test": test})
    target = find_target(path, layout.behaviors, layout.target)
    files = {**layout.behaviors, **layout.splits}
    surveys = {part: _survey(file) for part, file in files.items()}
    numbers = [found.lowest for found in surveys.values() if found.lowest is not None]
    matrices = {
        part: read_matrix(file)
        for part, file in files.items()
        if surveys[part].kind == "matrix" and (part in layout.behaviors or not _is_list(file))
    }
    if matrices:
        users, items = check_shapes({files[part]: matrix for part, matrix in matrices.items()}, users, items)
    if base is None:
        base = 0 if matrices or not numbers or min(numbers) == 0 else 1
    most = 0
    parts: dict[str, Pairs] = {}
    source = Origin(path, "by-part", base, [str(file.relative_to(path)) for file in files.values()], layout.left_out)
    for part, file in files.items():
        parts[part], seen = _read_part(file, surveys[part], matrices.get(part), base, users, items)
        most = max(most, seen)
        source.notes[part] = _told(surveys[part], matrices.get(part))
    edges, splits = ({part: parts[part] for part in names} for names in (layout.behaviors, layout.splits))
    most = max([most, *(int(pairs.user.max()) + 1 for pairs in parts.values() if len(pairs))])
    return assemble(source, edges, target, splits, name=name, users=most if users is None else users, items=items)


def _layout(
    path: Path, target: str | None, behaviors: Mapping[str, str] | None, splits: Mapping[str, str | None]
) -> Layout:
    if behaviors:
        return Layout(
            {behavior: _file(path, file) for behavior, file in behaviors.items()},
            target,
            {split: _file(path, file) for split, file in splits.items() if file is not None},
        )
    if any(splits.values()):
        raise UsageError("held-out files are named, but no behavior", "name the others too (--behavior NAME=FILE)")
    found = find_layout(path, target)
    if found is None:
        raise DataError(f"{path} holds no files of behaviors and splits", _remedy(path))
    return found


def _remedy(path: Path) -> str:
    line = suggestion(path)
    return f"say what they are: {line}" if line else "name them: mbgraph data convert DIR --behavior NAME=FILE .."


def _file(path: Path, name: str) -> Path:
    file = inside(path, name)
    if not file.is_file():
        held = [str(entry.relative_to(path)) for entry in path.rglob("*") if entry.is_file()]
        close = nearest(name, held)
        raise DataError(
            f"{path} has no file {name!r}", f"did you mean {close!r}?" if close else "name it relative to the folder"
        )
    return path / name


def _survey(file: Path) -> Survey:
    found = survey(file)
    if found is None:
        raise DataError(
            f"{file} holds neither pairs nor lists of items nor a matrix", "give text of numbers or a pickled matrix"
        )
    return found


def _is_list(file: Path) -> bool:
    try:
        read_held_out(file)
    except DataError:
        return False
    return True


def _read_part(
    file: Path, found: Survey, matrix: Matrix | None, base: int, users: int | None, items: int | None
) -> tuple[Pairs, int]:
    """Return pairs and the number of users that the file speaks of."""
    if matrix is not None:
        return matrix.pairs, matrix.users
    if found.kind == "matrix":
        return read_held_out(file, users, items)
    if found.kind == "adjacency":
        return read_adjacency(file, base=base, users=users, items=items)
    more = found.columns > 2
    return read_pairs(file, base=base, users=users, items=items, header=found.header, more_columns=more), 0


def _told(found: Survey, matrix: Matrix | None) -> str:
    if found.kind == "matrix":
        values = "; values are neither 1 nor times and were left out" if matrix and matrix.values == "dropped" else ""
        return ("read as a matrix" if matrix is not None else "read as a list of held-out items") + values
    if found.kind == "adjacency":
        return "read as lists of items"
    return "read as pairs" + (", further columns were left out" if found.columns > 2 else "")
