"""Time columns of tables: which column is one, and the regular grid its stamps describe."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float64

from mainspring.errors import DataError

_NAMES = (
    "time times date dates datetime timestamp timestamps date_time time_stamp ts t utc sec secs "
    "second seconds time_s time_sec time_ms ms millis milliseconds timestamp_ms utc_timestamp "
    "day week month"
)
NAMES = frozenset(_NAMES.split())
INDEX_NAMES = frozenset({"", "index", "unnamed: 0", "row"})

# Text that pyarrow does not take for a time by itself, tried on columns with a name of NAMES.
FORMATS = (
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%d",
    "%Y-%m",
)

_MOST_GAPS = 10  # a grid may hold this many times the rows that are there, the rest missing


def seconds_of(
    name: str, column: pa.ChunkedArray, first: bool
) -> Float64[np.ndarray, "row"] | None:
    """The seconds a column stands for, if it is a time column; None if it is a variable.

    Args:
        name: Its name.
        column: Its values, of the type that pyarrow inferred.
        first: Whether it is the table's first column, where row numbers and unnamed Unix stamps
            are recognised too.

    Returns:
        Seconds since some origin; NaN where they cannot be told.
    """
    name = name.strip().lower().replace(" ", "_")
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _number(pc.cast(column, pa.timestamp("ns", kind.tz)).cast(pa.int64())) / 1e9
    if pa.types.is_date(kind):
        return _number(column.cast(pa.date32()).cast(pa.int32())) * 86400.0
    if pa.types.is_time(kind):
        seconds = _number(column.cast(pa.time64("ns")).cast(pa.int64())) / 1e9
        midnights = np.diff(seconds, prepend=seconds[:1]) < -43200
        return seconds + 86400.0 * np.cumsum(midnights)
    if pa.types.is_duration(kind):
        return _number(column.cast(pa.duration("ns")).cast(pa.int64())) / 1e9
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column) if name in NAMES else None
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    return _from_numbers(name, _number(column), first)


def _number(column: pa.ChunkedArray) -> Float64[np.ndarray, "row"]:
    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def _from_text(column: pa.ChunkedArray) -> Float64[np.ndarray, "row"] | None:
    """Time written in one of FORMATS; text in another form is a time of unknown rate."""
    given = len(column) - column.null_count
    for form in FORMATS:
        stamps = pc.strptime(column, format=form, unit="s", error_is_null=True)
        if len(stamps) - stamps.null_count == given:
            seconds = _number(stamps.cast(pa.int64()))
            if np.all(np.diff(seconds) >= 0) or np.all(np.diff(seconds) <= 0):
                return seconds
    return np.full(len(column), np.nan)


def _from_numbers(
    name: str, numbers: Float64[np.ndarray, "row"], first: bool
) -> Float64[np.ndarray, "row"] | None:
    """Seconds, milliseconds or Unix stamps, which must increase to be taken for time."""
    if len(numbers) < 2 or not np.all(np.diff(numbers) > 0):
        return None
    if first and name in INDEX_NAMES and numbers[0] in (0, 1) and np.all(np.diff(numbers) == 1):
        return numbers
    for least, per_second in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e8, 1.0)):
        if (first or name in NAMES) and least <= numbers[0] and numbers[-1] < 40 * least:
            return (numbers - numbers[0]) / per_second
    if name not in NAMES:
        return None
    return numbers / (1000.0 if name in {"ms", "millis", "milliseconds"} or "_ms" in name else 1.0)


def on_grid(
    values: Float[np.ndarray, "row channel"], seconds: Float64[np.ndarray, "row"], what: str
) -> tuple[Float[np.ndarray, "time channel"], float]:
    """Rows laid on the regular grid of their time stamps, and its rate.

    Rows that are absent from an otherwise regular grid become missing values, so that a position
    keeps its meaning in time. Stamps that follow no grid leave the rows as they are, at the median
    rate. Rows that run from the newest to the oldest are turned round.

    Args:
        values: One row a stamp.
        seconds: The stamps.
        what: File and column, for the error.

    Raises:
        DataError: If time goes back and forth, as when several series lie in one table.
    """
    step = np.diff(seconds)
    if len(step) and np.all(step <= 0) and np.any(step < 0):
        values, seconds, step = values[::-1], seconds[::-1], -step[::-1]
    if np.any(step < 0):
        row = int(np.argmax(step < 0)) + 2
        raise DataError(
            f"{what} goes back in time at row {row}, where stamps in rising order were expected: "
            "write one file a series, or sort the rows."
        )
    step_up = step[step > 0]
    if not len(step_up) or np.isnan(seconds).any():
        return values, 1.0
    usual = float(np.median(step_up))
    near = np.abs(step - usual) <= 0.5 * usual
    if near.all():
        return values, len(step) / float(seconds[-1] - seconds[0])
    tick = float(step[near].mean())
    ticks = np.round(step / tick)
    regular = np.all(ticks >= 1) and np.all(np.abs(step - ticks * tick) <= 0.25 * tick)
    places = np.concatenate([[0], np.cumsum(ticks)]).astype(np.int64)
    if not regular or places[-1] >= _MOST_GAPS * len(values):
        return values, 1 / usual
    grid = np.full((int(places[-1]) + 1, values.shape[1]), np.nan, dtype=values.dtype)
    grid[places] = values
    return grid, 1 / tick
