"""MISSL's and MB-STR's event table: one tab separated file ``user item behavior time``, no header, sorted by time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mbgraph.data.dataset import MultiBehaviorDataset
from mbgraph.data.events import from_events
from mbgraph.data.formats.assemble import find_target
from mbgraph.data.formats.sidecar import parse_times
from mbgraph.data.formats.text import Tokens, blocks, line_lengths
from mbgraph.errors import DataError

__all__ = ["read"]


def read(path: Path, *, target: str | None = None, name: str | None = None, **options: Any) -> MultiBehaviorDataset:
    """Read the event table and split it as `mbgraph.from_events` does.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        By default the behavior that is called buy or the like.
    name : str, optional
        By default the file's, without its suffix.
    **options
        Of `mbgraph.from_events`: ``split``, ``behaviors``, ``cutoff``, ``rng``.

    Raises
    ------
    DataError
        Naming file and line: a line with other than four columns, an id that is no integer, a time that is no number.
    """
    import pandas as pd

    users, items, behaviors, times = [], [], [], []
    for tokens in blocks(path):
        begins, lengths = line_lengths(tokens)
        wrong = np.flatnonzero(lengths != 4)
        if len(wrong):
            line = tokens.lines[begins[wrong[0]]]
            raise DataError(
                f"{path} line {line} holds {lengths[wrong[0]]} columns, not 4", "write user, item, behavior and time"
            )
        users.append(tokens[begins].row_numbers("user"))
        items.append(tokens[begins + 1].row_numbers("item"))
        behaviors.append(_categories(tokens[begins + 2]))
        times.append(_times(tokens[begins + 3]))
    if not any(len(block) for block in users):
        raise DataError(f"{path} is empty", "restore the file")
    labels = pd.api.types.union_categoricals(behaviors)
    log = pd.DataFrame(
        {
            "user": np.concatenate(users),
            "item": np.concatenate(items),
            "behavior": pd.Series(labels).astype(object),
            "time": np.concatenate(times),
        }
    )
    target = find_target(path, log["behavior"].unique().tolist(), target)
    ds = from_events(log, time="time", target=target, name=name or path.stem, **options)
    facts = {"name": "missl", "files": [path.name], "first_id": int(log["user"].min())}
    return ds.replace(metadata={**ds.metadata, "format": facts})


def _categories(tokens: Tokens) -> Any:
    import pandas as pd

    distinct, codes = np.unique(tokens.words(), return_inverse=True)
    names = [word.decode(errors="replace") for word in distinct.tolist()]
    return pd.Categorical.from_codes(codes.reshape(-1), categories=names)


def _times(tokens: Tokens) -> np.ndarray[Any, Any]:
    try:
        return tokens.integers()
    except DataError:
        words = tokens.words()
        try:
            return parse_times(str(tokens.file), words, None)
        except DataError:
            for number, word in enumerate(words.tolist()):
                try:
                    float(word)
                except ValueError as error:
                    raise DataError(
                        f"{tokens.file} line {tokens.lines[number]}: {tokens.text(number)!r} is no time",
                        "write times as numbers",
                    ) from error
            raise
