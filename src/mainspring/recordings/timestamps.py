"""Time columns of tables: which column is one, and how rows are laid out by its stamps.

A series is steps at equal distances. Rows whose stamps keep equal distances, give or take half a
step, are taken as they are. Of others the environment variable MAINSPRING_IRREGULAR says what
becomes:

- "resample" (unless set otherwise): a regular grid whose step is the usual distance of two rows. A
  step holds the mean of what was observed within half a step of it, and is missing (NaN) where
  nothing was; nothing is interpolated.
- "gap": rows stay as they were observed, and every table with a time column gets a channel more:
  the logarithm of the time since the row before, in usual distances (0 where rows are regular).

Rows out of order are sorted and rows with one stamp averaged, either way. Where a local clock was
set to summer time or back, its rows go on as if it had not been.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float32, Float64, Int64

from mainspring.errors import DataError, unknown
from mainspring.recordings import dates, daylight
from mainspring.recordings.dates import Stamps

SETTING = "MAINSPRING_IRREGULAR"
WAYS = ("resample", "gap")
GAP = "log gap"
"""Name of the further channel."""

UNKNOWN, UNSURE, SET, SORTED, AVERAGED, RESAMPLED, HOLES, GAPS = (
    "taken for a second a row, as times are missing or written in no known way",
    "read with days before months, though it could be the other way round: write 2024-07-02",
    "moved by an hour where the clock was set to summer time or back",
    "sorted by time",
    "averaged where rows have one stamp",
    "resampled to a regular grid",
    "laid on a regular grid, with absent rows missing",
    "given the gap before each row as a channel",
)

_NAMES = (
    "time times date dates datetime timestamp timestamps date_time time_stamp ts t utc sec secs "
    "second seconds t_s t_ms t_us t_ns ms millis milliseconds utc_timestamp day week month"
)
_UNITS_SAID = (
    (1.0, "s sec secs second seconds"),
    (1e-3, "ms msec millis milliseconds"),
    (1e-6, "us \u00b5s \u03bcs usec micros microseconds"),
    (1e-9, "ns nsec nanos nanoseconds"),
    (60.0, "min mins minute minutes"),
    (3600.0, "h hr hrs hour hours"),
    (86400.0, "d day days"),
    (7 * 86400.0, "week weeks"),
    (365.2425 / 12 * 86400.0, "month months"),
)
_UNITS = {word: seconds for seconds, words in _UNITS_SAID for word in words.split()}
_TIMED = ("time", "timestamp", "elapsed", "elapsed_time", "uptime")
NAMES = frozenset([*_NAMES.split(), *(f"{name}_{unit}" for name in _TIMED for unit in _UNITS)])
# Columns of these names begin anew, so that they are a clock only where they rise throughout.
_CYCLES = frozenset(
    {"t", "s", "sec", "secs", "second", "seconds", "ms", "millis", "day", "week", "month"}
)
INDEX_NAMES = frozenset({"", "index", "unnamed:_0", "row"})

# Dates as spreadsheets count them: days, of which 25569 end in 1970.
_SHEET, _SHEET_ORIGIN = (20_000, 80_000), 25_569

_MOST_GAPS = 10  # a grid may hold this many times the rows that are there, the rest missing
_MOST_TWICE = 0.1  # share of stamps that may occur again in a table out of order


_UNIT = re.compile(r"[ _]*[(\[]\s*(\w+)\s*[)\]]$")


def written(name: str) -> str:
    """A column's name as in NAMES: `Time (ms)` is `time_ms`."""
    return _UNIT.sub(r"_\1", name.strip().lower()).replace(" ", "_")


class Clock(NamedTuple):
    """What tells the time of a table's rows.

    Attributes:
        places: Which column it is, or which two where one has days and the other times of day.
        name: Their names.
        seconds: The stamps.
        dates: Whether they say the day, and not only how far one is from the other.
        local: Whether they are of no zone, so that the clock may have been set to summer time.
        unsure: Whether days and months could as well be the other way round.
    """

    places: tuple[int, ...]
    name: str
    seconds: Float64[np.ndarray, "row"]
    dates: bool
    local: bool
    unsure: bool

    def layout(self, what: str) -> Layout:
        """How rows are laid out by the stamps, as the environment variable says.

        Args:
            what: The file, for the error.

        Raises:
            DataError: If several series lie in one table.
        """
        what = f"{what}: the time column {self.name!r}"
        seconds = self.seconds
        notes = [UNSURE] if self.unsure else []
        if self.local and not np.isnan(seconds).any():
            unset = daylight.unset(seconds)
            if unset is not None:
                seconds = unset
                notes.append(SET)
        found = layout(seconds, what, way())
        return replace(found, notes=(*notes, *found.notes))


def clock_among(
    names: Sequence[str], kinds: Sequence[pa.DataType], column: Callable[[int], pa.ChunkedArray]
) -> Clock | None:
    """The first column that is a clock, with another where each has a part of it; None if none is.

    Args:
        names: Of the columns.
        kinds: Their types.
        column: Reads one; only those are read that may be a clock.
    """
    first, counts = None, False
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        timely, named = pa.types.is_temporal(kind), written(name) in NAMES
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not (timely or named or _is_text(kind) or place == 0):
            continue
        if first is not None and number and not (counts and named):
            continue
        values = column(place)
        found = stamps_of(name.strip(), values, place == 0)
        if found is None:
            continue
        if first is None:
            days = dates.compact(_number(values)) is not None if number else _dated(found.seconds)
            dated = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or days
            first = Clock((place,), name, found.seconds, dated, found.local, found.unsure)
            counts = number and written(name) in INDEX_NAMES
            continue
        if counts:
            places, counts = (*first.places, place), False
            first = Clock(places, name, found.seconds, _dated(found.seconds), *found[1:])
            continue
        whole = _joined(first.seconds, found.seconds)
        if whole is not None:
            unsure = first.unsure or found.unsure
            places, name = (*first.places, place), f"{first.name} and {name}"
            return Clock(places, name, whole, True, True, unsure)
    return first


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _joined(
    one: Float64[np.ndarray, "row"], other: Float64[np.ndarray, "row"]
) -> Float64[np.ndarray, "row"] | None:
    """Days and times of day, in either order, as one; None if that is not what they are."""
    for days, times in ((one, other), (other, one)):
        if _dated(days) and not _dated(times) and np.all(days % 86400 == 0):
            return days + times % 86400
    return None


def _dated(seconds: Float64[np.ndarray, "row"]) -> bool:
    return bool(np.abs(seconds).max(initial=0.0) > dates.DATED)


def stamps_of(name: str, column: pa.ChunkedArray, first: bool) -> Stamps | None:
    """The times a column stands for, if it is a time column; None if it is a variable.

    Args:
        name: Its name.
        column: Its values, of the type that pyarrow inferred.
        first: Whether it is the table's first column, where row numbers and unnamed Unix stamps
            are recognised too.

    Returns:
        Seconds since some origin; NaN where they cannot be told.
    """
    name = written(name)
    kind = column.type
    if pa.types.is_timestamp(kind):
        plain = pc.cast(column, pa.timestamp("ns", kind.tz)).cast(pa.int64())
        return Stamps(_number(plain) / 1e9, kind.tz is None, False)
    if _is_text(kind):
        found = dates.stamps(column)
        if found is not None or name not in NAMES:
            return found
        return Stamps(np.full(len(column), np.nan), False, False)  # in no known way
    seconds = _seconds_of(name, column, first)
    return None if seconds is None else Stamps(seconds, False, False)


def _seconds_of(
    name: str, column: pa.ChunkedArray, first: bool
) -> Float64[np.ndarray, "row"] | None:
    kind = column.type
    if pa.types.is_date(kind):
        return _number(column.cast(pa.date32()).cast(pa.int32())) * 86400.0
    if pa.types.is_time(kind):
        seconds = _number(column.cast(pa.time64("ns")).cast(pa.int64())) / 1e9
        midnights = np.diff(seconds, prepend=seconds[:1]) < -43200
        return seconds + 86400.0 * np.cumsum(midnights)
    if pa.types.is_duration(kind):
        return _number(column.cast(pa.duration("ns")).cast(pa.int64())) / 1e9
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    return _from_numbers(name, _number(column), first)


def _number(column: pa.ChunkedArray) -> Float64[np.ndarray, "row"]:
    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def _from_numbers(
    name: str, numbers: Float64[np.ndarray, "row"], first: bool
) -> Float64[np.ndarray, "row"] | None:
    """Days written as numbers; or seconds, milliseconds or Unix stamps, which must increase to be
    taken for time, with a name that leaves no doubt all but a few of them."""
    unit = _UNITS.get(name.rpartition("_")[2]) if name in NAMES else None
    days = dates.compact(numbers) if unit is None and name in NAMES and len(numbers) > 1 else None
    if days is not None:
        return days
    with np.errstate(invalid="ignore"):  # inf - inf
        step = np.diff(numbers)
    if len(numbers) < 2 or not (np.all(step > 0) or _is_clock(name, step, bool(numbers[0] >= 1e8))):
        return None
    least_of, most_of = numbers.min(), numbers.max()
    if first and name in INDEX_NAMES and numbers[0] in (0, 1) and np.all(np.diff(numbers) == 1):
        return numbers
    if unit is not None:
        return (numbers - least_of) * unit if least_of * unit >= 1e8 else numbers * unit
    for least, per_second in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e8, 1.0)):
        if (first or name in NAMES) and least <= least_of and most_of < 40 * least:
            return (numbers - least_of) / per_second
    if name not in NAMES:
        return None
    if name.startswith("date") and _SHEET[0] <= least_of and most_of <= _SHEET[1]:
        return np.round((numbers - _SHEET_ORIGIN) * 86400, 3)
    return numbers


def _is_clock(name: str, step: Float64[np.ndarray, "pair"], stamped: bool) -> bool:
    if name not in NAMES or name in _CYCLES or not np.isfinite(step).all():
        return False
    moving = 0.0 if stamped else 0.5  # of whole seconds since 1970 many rows may share one
    return bool(np.mean(step >= 0) >= dates.LEAST_RISING and np.mean(step > 0) > moving)


@dataclass(frozen=True)
class Layout:
    """Where the rows of a table lie in time.

    Attributes:
        order: Which row comes first, second ... in time; None where they are in order.
        places: The step that each row belongs to, rising, rows in order of time; None where each
            row is the next step.
        length: Steps.
        rate: Steps per second.
        gaps: For each step the logarithm of the time since the step before, in usual distances;
            None where it is no channel.
        notes: What was done to rows that are not one step after the other.
    """

    order: Int64[np.ndarray, "row"] | None
    places: Int64[np.ndarray, "row"] | None
    length: int
    rate: float
    gaps: Float32[np.ndarray, "step"] | None
    notes: tuple[str, ...]

    def lay(self, values: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, "step wide"]:
        """Rows laid out; steps without any are missing."""
        if self.order is not None:
            values = values[self.order]
        if self.places is not None:
            at, means = averaged(values, self.places)
            values = np.full((self.length, values.shape[1]), np.nan, dtype=means.dtype)
            values[at] = means
        if self.gaps is not None:
            values = np.concatenate([values, self.gaps[:, None].astype(values.dtype)], axis=1)
        return values


def averaged(
    values: Float[np.ndarray, "row channel"], places: Int64[np.ndarray, "row"]
) -> tuple[Int64[np.ndarray, "place"], Float[np.ndarray, "place channel"]]:
    """The mean of what is known of each channel in the rows of each place (rising); NaN where
    nothing is."""
    first = np.flatnonzero(np.diff(places, prepend=-1))
    if len(first) == len(places):
        return places, values
    known = ~np.isnan(values)
    counts = np.add.reduceat(known, first, axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.where(known, values, 0), first, axis=0, dtype=np.float64)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return places[first], means.astype(values.dtype)


def way() -> str:
    """What becomes of irregular rows.

    Raises:
        ConfigError: If the environment variable names no way.
    """
    chosen = os.environ.get(SETTING, WAYS[0])
    if chosen not in WAYS:
        raise unknown(SETTING, chosen, WAYS)
    return chosen


def layout(seconds: Float64[np.ndarray, "row"], what: str, irregular: str = WAYS[0]) -> Layout:
    """How rows are laid out by their stamps.

    Stamps of which any is unknown leave rows as they are, a second each. A grid that would hold
    more than ten times the rows gets a wider step, until it holds ten times as many.

    Args:
        seconds: The stamps.
        what: File and column, for the error.
        irregular: One of `WAYS`.

    Raises:
        DataError: If time goes back and forth over the same stamps, as when several series lie in
            one table.
    """
    rows = len(seconds)
    notes: list[str] = []
    order = None
    if np.isnan(seconds).any():
        return _as_they_are(rows, 1.0, irregular, UNKNOWN)
    step = np.diff(seconds)
    if np.any(step < 0):
        order = np.arange(rows)[::-1].copy()
        if np.any(step > 0):
            _require_one_series(seconds, step, what)
            order = np.argsort(seconds, kind="stable")
            notes.append(SORTED)
        seconds = seconds[order]
        step = np.diff(seconds)
    if not np.any(step > 0):
        return _as_they_are(rows, 1.0, irregular)
    usual = float(np.median(step[step > 0]))
    places = None
    if np.any(step == 0):
        notes.append(AVERAGED)
        places = np.concatenate([[0], np.cumsum(step > 0)]).astype(np.int64)
        seconds, step = np.concatenate([seconds[:1], seconds[1:][step > 0]]), step[step > 0]
    near = np.abs(step - usual) <= 0.5 * usual
    if irregular == "gap":
        gaps = np.log(np.concatenate([[1.0], step / usual])).astype(np.float32)
        if not near.all():
            notes.append(GAPS)
        return Layout(order, places, len(seconds), 1 / usual, gaps, tuple(notes))
    if near.all():
        rate = len(step) / float(seconds[-1] - seconds[0])
        return Layout(order, places, len(seconds), rate, None, tuple(notes))
    # Half of the steps short and half long: no step is near the one between them.
    tick = float(step[near].mean()) if near.any() else usual
    ticks = np.round(step / tick)
    if np.all(ticks >= 1) and np.all(np.abs(step - ticks * tick) <= 0.25 * tick):
        # Counted from row to row, so that a clock that runs a little fast stays on the grid.
        own = np.concatenate([[0], np.cumsum(ticks)]).astype(np.int64)
        notes.append(HOLES)
    else:
        own, tick = _nearest(seconds, usual), usual
        notes.append(RESAMPLED)
    if own[-1] >= _MOST_GAPS * len(own):
        tick = float(seconds[-1] - seconds[0]) / (_MOST_GAPS * len(own))
        own = _nearest(seconds, tick)
        notes[-1] = RESAMPLED
    places = own if places is None else own[places]
    return Layout(order, places, int(own[-1]) + 1, 1 / tick, None, tuple(notes))


def _nearest(seconds: Float64[np.ndarray, "row"], tick: float) -> Int64[np.ndarray, "row"]:
    return np.floor((seconds - seconds[0]) / tick + 0.5).astype(np.int64)


def _as_they_are(rows: int, rate: float, irregular: str, *notes: str) -> Layout:
    gaps = np.zeros(rows, np.float32) if irregular == "gap" else None
    return Layout(None, None, rows, rate, gaps, notes)


def _require_one_series(
    seconds: Float64[np.ndarray, "row"], step: Float64[np.ndarray, "pair"], what: str
) -> None:
    """Raises where rows out of order are several series and not a few rows astray."""
    twice = 1 - len(np.unique(seconds)) / len(seconds)
    if twice > _MOST_TWICE:
        row = int(np.argmax(step < 0)) + 2
        raise DataError(
            f"{what} goes back in time at row {row}, and {twice:.0%} of its stamps occur again, as "
            "when several series lie in one table: write one file a series."
        )
