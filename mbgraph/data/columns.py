"""Values of an event log as arrays: ids and times, each checked. `mbgraph.data.log_columns` puts pieces together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from mbgraph.data.interactions import TIME_REMEDY, as_ids
from mbgraph.errors import DataError, UnknownNameError, UsageError
from mbgraph.typing import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_columns",
    "dates_of",
    "distinct_values",
    "is_plain",
    "is_written",
    "numbers_of",
    "times_of",
    "whole_ids",
]

_EXACT = 2.0**53  # up to here a float can stand for one integer only
_NOUGHT = r"\.0*\s*$"
_PLAIN = re.compile("0|-?[1-9][0-9]{0,18}")
_WHOLE = r"\s*[+-]?\d+\s*"
_FRACTION = r"\s*[+-]?\d*\.\d*[1-9]\d*\s*"


def check_columns(names: Sequence[Any], wanted: Sequence[str]) -> None:
    """Raise if a column is missing (naming the nearest), stands twice, or is asked for twice."""
    names = list(names)
    for column in wanted:
        if column not in names:
            raise UnknownNameError("column", column, map(str, names))
        if names.count(column) > 1:
            raise DataError(f"the event log has {names.count(column)} columns called {column!r}", "rename all but one")
        if list(wanted).count(column) > 1:
            raise UsageError(f"column {column!r} is named for two purposes", "name different columns")


def distinct_values(column: pd.Series, what: str) -> tuple[IntArray, np.ndarray]:
    """Return a code per event, (N,), and the distinct values by first appearance as they are; `DataError` on lists."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(column)
    except TypeError as error:
        raise DataError(f"{what} are lists or the like", "turn them into text") from error
    return codes, np.asarray(distinct)


def whole_ids(values: np.ndarray, what: str) -> np.ndarray:
    """Return distinct ids as int64 or object (of str), (V,); floats that are whole numbers become integers."""
    if values.dtype == object and len(values) and all(isinstance(value, float) for value in values):
        values = values.astype(np.float64)
    if values.dtype.kind == "f":
        fraction = np.flatnonzero(~(np.abs(values) < _EXACT) | (values != np.floor(values)))
        if len(fraction):
            raise DataError(f"{what} are no whole numbers ({values[fraction[0]]})", "turn all of them into text")
        values = values.astype(np.int64)
    return as_ids(values, what)


def is_plain(text: str) -> bool:
    """Say whether a text is a whole number of 64 bits with a sign, written as Python would: not ``007`` or ``1.0``."""
    return _PLAIN.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def is_written(column: pd.Series) -> bool:
    """Say whether times are text (or objects) that must be understood, rather than numbers or dates already."""
    import pandas as pd
    from pandas.api import types

    dated = isinstance(column.dtype, pd.DatetimeTZDtype) or types.is_datetime64_dtype(column.dtype)
    return not (dated or types.is_bool_dtype(column.dtype) or types.is_numeric_dtype(column.dtype))


def numbers_of(text: pd.Series) -> pd.Series | None:
    """Return written times as numbers if all of them are, otherwise None.

    Whole numbers of more than 53 bits that are written with a fraction, as nanoseconds with ``.0``, become integers: as
    floats neighbours would fall together, and with them their order.

    Raises
    ------
    DataError
        If such numbers stand beside some that have a fraction.
    """
    import pandas as pd

    try:
        numbers = pd.to_numeric(text.astype(object))
    except (ValueError, TypeError):
        return None
    except OverflowError:  # more digits than any float has
        return text.astype(object)
    if not pd.api.types.is_float_dtype(numbers.dtype) or not _is_large(numbers):
        return numbers
    written = text.astype(str)
    try:
        return written.str.replace(_NOUGHT, "", regex=True).astype(object).map(int).astype(np.int64)
    except (ValueError, OverflowError):
        pass
    fraction = written[written.str.fullmatch(_FRACTION)]
    if not len(fraction):
        if written.str.fullmatch(_WHOLE).all():  # some of more than 64 bits; pandas before 3 makes floats of them
            return written.map(int).astype(object)
        return numbers  # written with an exponent
    raise DataError(
        f"column {text.name!r} holds {fraction.iloc[0][:40]!r} beside numbers of more than 53 bits, which lose their "
        "order as fractions",
        "write all of them as whole numbers",
    )


def _is_large(numbers: pd.Series) -> bool:
    finite = numbers.to_numpy(dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return bool(len(finite)) and float(np.abs(finite).max()) > _EXACT


def dates_of(text: pd.Series, place: Callable[[int], str]) -> np.ndarray[Any, Any]:
    """Return ISO 8601 dates as nanoseconds since 1970, (N,); without a time zone they are UTC.

    ``place`` says for the message where in the log a value stands.
    """
    import pandas as pd

    text = text.astype(object)
    # pandas reads "UTC" after a date in no ISO format, but logs have it
    plain = text.map(lambda value: str(value).removesuffix(" UTC") if isinstance(value, str | Number) else value)
    dates = pd.to_datetime(plain, utc=True, format="ISO8601", errors="coerce")
    wrong = np.flatnonzero(dates.isna().to_numpy())
    if len(wrong):
        value = str(text.iloc[wrong[0]])[:40]
        raise DataError(
            f"column {text.name!r} is {value!r} in {place(int(wrong[0]))}, which is no time",
            "write numbers, or dates as 2024-01-31 13:45:00",
        )
    return _nanoseconds(dates)


def times_of(column: pd.Series, place: Callable[[int], str]) -> np.ndarray[Any, Any]:
    """Return numbers or dates as numbers, (N,): integers and floats in their own type, dates as int64 nanoseconds."""
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        raise DataError(f"column {column.name!r} is true or false, not a time", "name another time column")
    if types.is_float_dtype(column.dtype):
        times = column.to_numpy(dtype=None if isinstance(column.dtype, np.dtype) else np.float64)
        endless = np.flatnonzero(~np.isfinite(times))
        if len(endless):
            where = place(int(endless[0]))
            raise DataError(f"column {column.name!r} is {times[endless[0]]} in {where}", "give finite times")
        return times
    if types.is_integer_dtype(column.dtype):
        return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.to_numpy(dtype=np.int64)
    if types.is_datetime64_any_dtype(column.dtype):
        return _nanoseconds(column)
    if column.dtype == object and all(isinstance(value, Number) for value in column):
        raise DataError(f"column {column.name!r} holds numbers of more than 64 bits, which are no times", TIME_REMEDY)
    raise DataError(f"column {column.name!r} is {column.dtype}, not a time", "give numbers or dates")


def _nanoseconds(dates: pd.Series) -> np.ndarray[Any, Any]:
    if getattr(dates.dt, "tz", None) is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    try:
        return dates.astype("datetime64[ns]").to_numpy().astype(np.int64)
    except ValueError as error:
        raise DataError(f"column {dates.name!r} holds dates beyond the years 1678 to 2262", "give numbers") from error
