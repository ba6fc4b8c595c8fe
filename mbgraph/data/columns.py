"""Columns of an event log as arrays: ids, behaviors, times and parts of a split, each checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.interactions import Vocabulary, as_ids
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_columns", "check_missing", "encode_ids", "encode_labels", "parts_of", "times_of"]

PARTS = {"train": 0, "valid": 1, "test": 2}
_EXACT = 2.0**53  # up to here a float can stand for one integer only


def check_columns(df: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raise if a column is missing (naming the nearest), stands twice, or is asked for twice."""
    names = list(df.columns)
    for column in wanted:
        if column not in names:
            raise UnknownNameError("column", column, map(str, names))
        if names.count(column) > 1:
            raise DataError(f"the event log has {names.count(column)} columns called {column!r}", "rename all but one")
        if list(wanted).count(column) > 1:
            raise UsageError(f"column {column!r} is named for two purposes", "name different columns")


def check_missing(column: pd.Series, where: np.ndarray | None = None) -> None:
    """Raise `DataError` with number and place (rows count from 1) if values are missing, in the rows ``where`` (N,)."""
    is_missing = column.isna().to_numpy()
    missing = np.flatnonzero(is_missing if where is None else is_missing & where)
    if len(missing):
        raise DataError(
            f"column {column.name!r} has {len(missing)} missing values, the first in row {missing[0] + 1}",
            "drop or fill those rows",
        )


def encode_ids(column: pd.Series, kind: str) -> tuple[Vocabulary, IntArray]:
    """Return the distinct ids, sorted, and the row number of each event's id, (N,).

    Integers are sorted by value, text by code point; UUIDs become text. Floats that are whole numbers become integers.
    """
    codes, ids = _factorize(column, "ids")
    order = np.argsort(ids, kind="stable")
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    ids = ids[order]
    if ids.dtype.kind == "i" and len(ids) and ids[0] == 0 and ids[-1] == len(ids) - 1:
        return Vocabulary(size=len(ids), kind=kind), rank[codes]  # distinct and sorted: they are the row numbers
    return Vocabulary(ids, kind=kind), rank[codes]


def encode_labels(column: pd.Series) -> tuple[list[str], IntArray]:
    """Return the distinct labels as text, in order of appearance, and the number of each event's label, (N,)."""
    codes, labels = _factorize(column, "labels")
    return [str(label) for label in labels.tolist()], codes


def _factorize(column: pd.Series, noun: str) -> tuple[IntArray, np.ndarray]:
    """Return codes (N,) and distinct values, int64 or object (of str), by first appearance."""
    import pandas as pd

    what = f"{noun} in column {column.name!r}"
    if column.dtype == object and len(set(map(type, column.array))) > 1:
        as_ids(column.to_numpy(), what)  # 1, 1.0 and True are one value to factorize: the mix shows only here
    try:
        codes, distinct = pd.factorize(column)
    except TypeError as error:
        raise DataError(f"{what} are lists or the like", "turn them into text") from error
    values = np.asarray(distinct)
    if values.dtype == object and len(values) and all(isinstance(value, float) for value in values):
        values = values.astype(np.float64)
    if values.dtype.kind == "f":
        fraction = np.flatnonzero(~(np.abs(values) < _EXACT) | (values != np.floor(values)))
        if len(fraction):
            raise DataError(f"{what} are no whole numbers ({values[fraction[0]]})", "turn all of them into text")
        values = values.astype(np.int64)
    return codes.astype(np.int64), as_ids(values, what)


def times_of(column: pd.Series) -> np.ndarray[Any, Any]:
    """Return times as numbers, (N,): integers and floats in their own type, dates as int64 nanoseconds since 1970 UTC.

    Text is read as numbers if all of it can be, otherwise as ISO 8601 dates (``2024-01-31 13:45:00``, with or without a
    time zone; without one it is UTC).
    """
    import pandas as pd
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        raise DataError(f"column {column.name!r} is true or false, not a time", "name another time column")
    if isinstance(column.dtype, pd.DatetimeTZDtype) or types.is_datetime64_dtype(column.dtype):
        return _nanoseconds(column)
    if not types.is_numeric_dtype(column.dtype):
        text = column.astype(object)
        try:
            column = pd.to_numeric(text)
        except (ValueError, TypeError):
            return _nanoseconds(_dates(text))
        return times_of(column.set_axis(text.index).rename(text.name))
    if types.is_float_dtype(column.dtype):
        times = column.to_numpy(dtype=None if isinstance(column.dtype, np.dtype) else np.float64)
        endless = np.flatnonzero(~np.isfinite(times))
        if len(endless):
            raise DataError(
                f"column {column.name!r} is {times[endless[0]]} in row {endless[0] + 1}", "give finite times"
            )
        return times
    if types.is_integer_dtype(column.dtype):
        return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.to_numpy(dtype=np.int64)
    raise DataError(f"column {column.name!r} is {column.dtype}, not a time", "give numbers or dates")


def _dates(text: pd.Series) -> pd.Series:
    import pandas as pd

    # pandas reads "UTC" after a date in no ISO format, but logs have it
    plain = text.map(lambda value: value.removesuffix(" UTC") if isinstance(value, str) else value)
    dates = pd.to_datetime(plain, utc=True, format="ISO8601", errors="coerce")
    wrong = np.flatnonzero(dates.isna().to_numpy())
    if len(wrong):
        value = str(text.iloc[wrong[0]])[:40]
        raise DataError(
            f"column {text.name!r} is {value!r} in row {wrong[0] + 1}, which is no time",
            "write numbers, or dates as 2024-01-31 13:45:00",
        )
    return dates


def _nanoseconds(dates: pd.Series) -> np.ndarray[Any, Any]:
    if getattr(dates.dt, "tz", None) is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    try:
        return dates.astype("datetime64[ns]").to_numpy().astype(np.int64)
    except ValueError as error:
        raise DataError(f"column {dates.name!r} holds dates beyond the years 1678 to 2262", "give numbers") from error


def parts_of(column: pd.Series, is_target: np.ndarray) -> IntArray:
    """Return 0 train, 1 valid, 2 test for every event, (N,); only events of the target must say which."""
    check_missing(column, is_target)
    labels = column.astype(object).where(column.notna(), "train").astype(str)
    unknown = [label for label in labels.unique() if label not in PARTS]
    if unknown:
        raise UnknownNameError(f"split in column {column.name!r}:", unknown[0], PARTS)
    return labels.map(PARTS).to_numpy(dtype=np.int64)
