"""RecBole's atomic files: tab separated tables whose header gives every column a type, ``user_id:token``.

``NAME.inter`` holds a row per interaction with ``user_id``, ``item_id``, optionally ``timestamp`` and a column of
behaviors (``behavior``, ``label`` and the like, of type token). It is an event log, which is split as
`mbgraph.from_events` does unless a column ``split`` says train, valid or test, or the parts are files:
``NAME.train.inter``, ``NAME.valid.inter``, ``NAME.test.inter``. Users and items that only ``NAME.user`` and
``NAME.item`` name become nodes too. Where no column names behaviors, float columns of 0 and 1 that are called like one
are behaviors, or those rows count whose ``label`` is 1; other columns are left out with a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.aliases import canonical_split
from mbgraph.data.columns import is_plain
from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.events import from_events
from mbgraph.data.formats.assemble import find_target
from mbgraph.data.formats.content import split_files
from mbgraph.data.formats.folder import new_folder
from mbgraph.data.formats.npz import check_file_name, id_lines
from mbgraph.data.formats.recbole_feedback import FeedbackColumns
from mbgraph.data.formats.recbole_table import column_types, read_table, write_table
from mbgraph.data.formats.sidecar import (
    SIDECAR,
    Sidecar,
    check_place,
    describe,
    parse_times,
    read_sidecar,
    time_texts,
)
from mbgraph.data.interactions import Pairs, Vocabulary
from mbgraph.errors import DataError
from mbgraph.files import write_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["find_tables", "read", "write"]

PARTS = ("train", "valid", "test")
BEHAVIORS = ("behavior", "behaviour", "behavior_type", "action", "event_type", "type", "label")
"""Columns that may name behaviors, if their type is token; the first that a table has is taken."""

_SINGLE = "interaction"  # what the only behavior is called where no column names it
_COLUMNS = {"user": "user_id", "item": "item_id", "time": "timestamp", "split": "split"}


def find_tables(path: Path) -> tuple[Path, str, dict[str, Path]]:
    """Return folder, name and tables of interactions by part; the part of a whole table is ``""``.

    Raises
    ------
    DataError
        If the folder holds tables of several datasets, or the whole and parts.
    """
    folder = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted(folder.glob("*.inter"))
    found: dict[tuple[str, str], Path] = {}
    for file in files:
        stem = file.name.removesuffix(".inter")
        name, _, part = stem.rpartition(".")
        part = canonical_split(part) or part
        key = (name, part) if name and part in PARTS else (stem, "")
        if key in found:
            raise DataError(f"{folder} holds both {found[key].name} and {file.name}", "remove one")
        found[key] = file
    names = sorted({name for name, _ in found})
    if len(names) != 1:
        told = f"several datasets ({', '.join(names)})" if names else "no .inter file"
        raise DataError(f"{folder} holds {told}", "give the .inter file of one")
    name = names[0]
    tables = {part: file for (_, part), file in found.items()}
    if path.is_file() and "" not in tables:
        train = folder / f"{name}.train.inter"
        tables = {"train": train} if train.is_file() else {}
        tables.update(split_files(folder, f"{name}.{{}}.inter"))
    if "" in tables and len(tables) > 1:
        raise DataError(f"{folder} holds {name}.inter and parts of it", "give the one to read")
    if "" not in tables and "train" not in tables:
        raise DataError(f"{folder / f'{name}.train.inter'} is missing", "restore the file")
    return folder, name, tables


def read(path: Path, *, target: str | None = None, name: str | None = None, **options: Any) -> MultiBehaviorDataset:
    """Read atomic files.

    Parameters
    ----------
    path : Path
        The folder, or one ``.inter`` file.
    target : str, optional
        By default the behavior that is called buy or the like, or the only one.
    name : str, optional
    **options
        Of `mbgraph.from_events`: ``split``, ``behaviors``, ``cutoff``, ``rng``.

    Raises
    ------
    DataError
        If a table is missing, damaged, empty, lacks a column, or an id is empty.
    UsageError
        If the target cannot be guessed.
    """
    folder, stem, tables = find_tables(path)
    sidecar = read_sidecar(folder, "recbole")
    if sidecar is not None and "" in tables:
        return _read_own(folder, stem, sidecar)
    log, files, notes = _log(tables)
    if "behavior" not in log:
        log["behavior"] = target = target or _SINGLE
    target = find_target(path, log["behavior"].unique().tolist(), target)
    if "split" in log:
        options = {"split": "given", "split_column": "split", **options}
    if "time" in log:
        options = {"time": "time", **options}
    ds = from_events(log, target=target, name=name or stem, **options)
    users, items = (_with_isolated(folder / f"{stem}.{v.kind}", v) for v in (ds.users, ds.items))
    for kind, before, after in (("user", ds.users, users), ("item", ds.items, items)):
        if len(after) > len(before):
            files.append(f"{stem}.{kind}")
    facts = {"name": "recbole", "files": files, **({"notes": notes} if notes else {})}
    return ds.replace(users=users, items=items, metadata={**ds.metadata, "format": facts})


def _log(tables: dict[str, Path]) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Return the interactions of all parts with the columns user, item, behavior, time and split, as far as known."""
    import pandas as pd
    import pyarrow as pa

    first = next(iter(tables.values()))
    wanted = _wanted(first)
    feedback = FeedbackColumns(column_types(first), wanted.values(), "behavior" in wanted)
    read_tables = []
    for part, file in tables.items():
        table = read_table(file, [*wanted.values(), *feedback.names]).rename_columns([*wanted, *feedback.columns])
        if part:
            table = table.append_column("part", pa.array([part] * len(table), pa.string()))
        read_tables.append(table)
    log = pa.concat_tables(read_tables)
    columns: dict[str, Any] = {}
    for kind in ("user", "item"):
        columns[kind] = _ids(log[kind])
        if (columns[kind] == "").any():
            raise DataError(f"{first} has an empty {kind} id", "drop those rows")
    for column in ("behavior", "time", "split"):
        if column in log.column_names:
            text = log[column].to_pandas().astype(object)
            columns[column] = text.where(text != "", None)
    if "part" in log.column_names:
        columns["split"] = log["part"].to_pandas().astype(object)
    for column in feedback.columns:
        columns[column] = log[column].to_pandas().astype(object)
    frame, notes = feedback.apply(pd.DataFrame(columns), first)
    return frame, [file.name for file in tables.values()], notes


def _wanted(file: Path) -> dict[str, str]:
    """Return our name of every column that is read to its name in the file."""
    types = column_types(file)
    wanted = {ours: theirs for ours, theirs in _COLUMNS.items() if theirs in types}
    for kind in ("user", "item"):
        if kind not in wanted:
            raise DataError(
                f"{file} has no column {_COLUMNS[kind]!r}", "name the columns user_id:token and item_id:token"
            )
    behavior = next((column for column in BEHAVIORS if types.get(column) == "token"), None)
    return wanted if behavior is None else {**wanted, "behavior": behavior}


def _ids(column: pa.ChunkedArray) -> pd.Series:
    """Return ids as integers if all are written plainly as such, otherwise as text."""
    import pyarrow as pa

    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.to_pandas().astype(object)
    return (numbers if numbers.cast(pa.string()).equals(column) else column).to_pandas()


def _with_isolated(file: Path, vocabulary: Vocabulary) -> Vocabulary:
    """Return the vocabulary with the ids of ``NAME.user`` or ``NAME.item`` that no interaction has at its end."""
    if not file.is_file():
        return vocabulary
    ids = read_table(file, [f"{vocabulary.kind}_id"])[0].to_pylist()
    unknown = np.flatnonzero(vocabulary.find(ids) < 0)
    if not len(unknown):
        return vocabulary
    known, more = vocabulary.ids.tolist(), list(dict.fromkeys(ids[place] for place in unknown))
    if vocabulary.ids.dtype.kind == "i" and all(map(is_plain, more)):
        return Vocabulary([*known, *map(int, more)], kind=vocabulary.kind)
    return Vocabulary([*map(str, known), *more], kind=vocabulary.kind)


def _read_own(folder: Path, stem: str, sidecar: Sidecar) -> MultiBehaviorDataset:
    vocabularies = {kind: _own_vocabulary(folder / f"{stem}.{kind}", kind, sidecar) for kind in ("user", "item")}
    file = folder / f"{stem}.inter"
    columns = ["user_id", "item_id", "behavior", "split", *(["timestamp"] if sidecar.times else [])]
    table = read_table(file, columns, rows=sum(sidecar.meta["counts"].values()) > 0)
    rows = {kind: _rows(file, table[f"{kind}_id"], vocabularies[kind]) for kind in ("user", "item")}
    behavior, split = (table[column].to_pandas().to_numpy(object) for column in ("behavior", "split"))
    parts = {}
    for part in (*sidecar.meta["behaviors"], *sidecar.meta["splits"]):
        held_out = part in sidecar.meta["splits"]
        where = np.flatnonzero(split == part if held_out else (split == "train") & (behavior == part))
        time = None
        if part in sidecar.times:
            texts = table["timestamp"].take(where).to_pandas().to_numpy(object)
            time = parse_times(str(file), texts, sidecar.times[part])
        parts[part] = Pairs(rows["user"][where], rows["item"][where], time)
    return sidecar.dataset(vocabularies["user"], vocabularies["item"], parts)


def _own_vocabulary(file: Path, kind: str, sidecar: Sidecar) -> Vocabulary:
    written_as, count = sidecar.meta.get("ids", {}).get(f"{kind}s"), sidecar.meta[f"{kind}s"]
    ids = read_table(file, [f"{kind}_id"])[0].to_pylist()
    if len(ids) != count:
        raise DataError(f"{file} holds {len(ids)} ids, {SIDECAR} says {count}", "restore the files")
    if written_as is None:
        return Vocabulary(size=count, kind=kind)
    try:
        return Vocabulary([int(text) for text in ids] if written_as == "int" else ids, kind=kind)
    except ValueError as error:
        raise DataError(f"{file} holds ids that are no integers", f"restore it or correct {SIDECAR}") from error
    except DataError as error:
        raise DataError(f"{file}: {error.message}", error.remedy) from error


def _rows(file: Path, column: pa.ChunkedArray, vocabulary: Vocabulary) -> np.ndarray[Any, Any]:
    distinct = column.combine_chunks().dictionary_encode()
    if not len(distinct):
        return np.empty(0, np.int64)
    try:
        rows = vocabulary.index_of(distinct.dictionary.to_pylist())
    except DataError as error:
        raise DataError(f"{file}: {error.message}", f"add it to the .{vocabulary.kind} file") from error
    return rows[distinct.indices.to_numpy(zero_copy_only=False)]


def write(ds: MultiBehaviorDataset, path: Path, *, overwrite: bool = False) -> None:
    """Write a folder of atomic files that are called like the folder; `read` gives back the same dataset.

    Rows stand behavior by behavior in the order of the dataset, then the held-out pairs, which are rows of the target.

    Raises
    ------
    UsageError
        If the folder holds anything that may not be replaced.
    DataError
        If a behavior cannot be the name of a file, or an id holds a line break.
    RunError
        If the disk is full or the place cannot be written.
    """
    check_place(path, "recbole", overwrite)
    for behavior in ds.behaviors:
        check_file_name(f"cannot write {path}", behavior)  # so that every format can hold what one holds
    stem = path.resolve().name
    sidecar = describe(ds, "recbole", [f"{stem}.{kind}" for kind in ("inter", "user", "item")])
    ids: dict[str, list[str]] = {}
    for vocabulary in (ds.users, ds.items):
        id_lines(vocabulary)  # refuses what cannot stand on a line
        ids[vocabulary.kind] = [str(value) for value in vocabulary.ids.tolist()]
    header = ["user_id:token", "item_id:token", "behavior:token", "timestamp:float", "split:token"]
    if not sidecar["times"]:
        header.remove("timestamp:float")
    parts = [
        *((b, "train", pairs) for b, pairs in ds.edges.items()),
        *((ds.target, s, p) for s, p in ds.splits.items()),
    ]
    with new_folder(path) as scratch:
        for kind, values in ids.items():
            write_table(scratch / f"{stem}.{kind}", [f"{kind}_id:token"], [[values]])
        write_table(
            scratch / f"{stem}.inter",
            header,
            (
                [
                    [ids["user"][row] for row in pairs.user.tolist()],
                    [ids["item"][row] for row in pairs.item.tolist()],
                    [behavior] * len(pairs),
                    *(
                        [[""] * len(pairs) if pairs.time is None else time_texts(pairs.time)]
                        if sidecar["times"]
                        else []
                    ),
                    [split] * len(pairs),
                ]
                for behavior, split, pairs in parts
            ),
        )
        write_json(scratch / SIDECAR, sidecar)
