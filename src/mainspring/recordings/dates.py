"""Dates and times as tables have them written, in seconds.

    seconds(pa.array(["30.01.2020 09:59:58.5", "30.01.2020 09:59:59.0"]))

What is understood beside ISO 8601, which pyarrow reads by itself: days before months or after them,
months by name, years of two digits or none of a day, dates without separators, as C and web servers
write them, times with points, fractions of a second, AM and PM, zones as an offset, and times of
day or elapsed times without a date.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

_TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,:](?P<part>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_SECOND = r"\.(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?"
_POINTED = r"(?P<hour>\d{1,2})\.(?P<minute>\d\d)"
_ZONE = r"(?:\s*(?:(?P<utc>Z|UTC|GMT)|(?P<zone>[+-]\d\d:?\d\d)))?"
_AFTER = rf"(?:[T ,;_-]+{_TIME})?{_ZONE}"
_DAY = r"(?P<day>\d{1,2})"
_MONTH = r"(?P<month>\d{1,2})"
_YEAR = r"(?P<year>\d{4}|\d\d)"
_NAME = r"(?P<name>[A-Za-z]{3})[a-z]*"
_NAMED = r"(?:\s+(?:(?P<utc>UTC|GMT)|[A-Z]{3,5}))"
_WEEKDAY = r"(?:[A-Za-z]{3,9},?\s+)?"

_COMPACT = (
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?:[T _-]?(?P<hour>\d\d)"
    rf"(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?:[.,](?P<part>\d{{1,9}}))?)?)?)?{_ZONE}"
)
_WAYS = tuple(
    rf"^\s*{way}\s*$"
    for way in (
        rf"{_WEEKDAY}(?P<year>\d{{4}})[-/.]{_MONTH}[-/.]{_DAY}{_AFTER}",
        rf"{_WEEKDAY}{_DAY}[-/.]{_MONTH}[-/.]{_YEAR}{_AFTER}",
        rf"{_WEEKDAY}{_MONTH}[-/.]{_DAY}[-/.]{_YEAR}{_AFTER}",
        rf"(?P<year>\d\d)[-/.]{_MONTH}[-/.]{_DAY}{_AFTER}",
        rf"{_WEEKDAY}{_DAY}[-/. ]{_NAME}[-/., ]+{_YEAR}{_AFTER}",
        rf"{_WEEKDAY}{_NAME}\.?[- ]{_DAY},?[- ]+(?P<year>\d{{4}}){_AFTER}",
        rf"(?P<year>\d{{4}})[-/ ]{_NAME}[-/ ]{_DAY}{_AFTER}",
        rf"\[?{_DAY}/{_NAME}/(?P<year>\d{{4}}):{_TIME}{_ZONE}\]?",
        rf"{_WEEKDAY}{_NAME}\s+{_DAY}\s+{_TIME}{_NAMED}?\s+(?P<year>\d{{4}})",
        rf"(?P<year>\d{{4}})[-/.]{_MONTH}[-/.]{_DAY}[T ,;_-]+{_POINTED}(?:{_SECOND})?{_ZONE}",
        rf"{_DAY}[-/.]{_MONTH}[-/.]{_YEAR}[T ,;_-]+{_POINTED}(?:{_SECOND})?{_ZONE}",
        rf"{_MONTH}[-/.]{_DAY}[-/.]{_YEAR}[T ,;_-]+{_POINTED}(?:{_SECOND})?{_ZONE}",
        r"(?P<year>\d{4})[-/](?P<month>\d{1,2})",
        r"(?P<month>\d{1,2})[-/](?P<year>\d{4})",
        rf"{_NAME}\.?[-/ ,]+(?P<year>\d{{4}})",
        _COMPACT,
        _TIME,
        _POINTED + _SECOND,
        r"(?P<hour>\d{1,4}):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?",
        r"(?P<minute>\d{1,4}):(?P<second>\d\d)[.,](?P<part>\d{1,9})",
    )
)
_MONTHS = np.array(
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
)

# Points separate days before months, wherever it is that people write them.
_DAYS_FIRST = re.compile(r"\s*\d{1,2}\.")
_HOUR = 3600.0
_LOOKED_AT = 20  # rows that a way has to read before it is asked to read all

LEAST_RISING = 0.95
"""Share of steps that must not fall in a clock out of order."""

DATED = 365 * 86400.0
"""Seconds from which on they tell the day, and not only the time."""


class Stamps(NamedTuple):
    """Times that were written.

    Attributes:
        seconds: Since 1970 where the text has dates, otherwise since midnight or the start; NaN
            where there is no text.
        local: Whether they are dates without a zone, so that their clock may change to summer time.
        unsure: Whether days and months could as well be the other way round.
    """

    seconds: Float64[np.ndarray, "row"]
    local: bool
    unsure: bool


def stamps(column: pa.ChunkedArray | pa.Array) -> Stamps | None:
    """What the text says; None if the rows are not all times written in one way.

    Where days and months can be either, the one that never goes back in time; of both, the one
    whose steps are evener, then the one that is not the same day, other than the first, of one
    month or year after the other, then days first. A time of day less than the one before it is of
    the next day.
    """
    found: list[Stamps] = []
    most = (0.0, 0.0)
    head = column.drop_null().slice(0, _LOOKED_AT)
    for way in _WAYS:
        read = _read(column, way) if _read(head, way) is not None else None
        if read is None:
            continue
        step = np.diff(read.seconds[~np.isnan(read.seconds)])
        # Days taken for months go back and forth more often than rows out of order do.
        steady = np.all(step >= 0) or np.all(step <= 0)
        # A clock falls by an hour where summer ends.
        rising = 1.0 if steady else float(np.mean(step >= (-_HOUR if read.local else 0)))
        order = (rising, _evenness(step))
        if rising >= LEAST_RISING and order >= most:
            found = [*found, read] if order == most else [read]
            most = order
    likely = [read for read in found if not _one_day_of_each(read.seconds)] or found
    if not likely:
        return None
    best = likely[0]
    others = [read for read in likely if not np.array_equal(best.seconds, read.seconds, True)]
    return best._replace(unsure=bool(others) and not _DAYS_FIRST.match(head[0].as_py()))


def seconds(column: pa.ChunkedArray | pa.Array) -> Float64[np.ndarray, "row"] | None:
    """The seconds of `stamps`; None if the rows are not all times written in one way."""
    found = stamps(column)
    return None if found is None else found.seconds


def _one_day_of_each(seconds: Float64[np.ndarray, "row"]) -> bool:
    """Whether dates are of several months, all on the same day of it, and that not the first."""
    days = np.unique(seconds[~np.isnan(seconds)] // 86400).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    numbers = set((days - months).astype(int).tolist())
    return len(numbers) == 1 and numbers != {0} and len(set(months.tolist())) > 1


def _evenness(step: Float64[np.ndarray, "pair"]) -> float:
    """Share of steps that are within half of the usual one; 1 where none is."""
    if not np.any(step):
        return 1.0
    usual = np.median(step[step != 0])
    return float(np.mean(np.abs(step - usual) <= 0.5 * np.abs(usual)))


def compact(numbers: Float64[np.ndarray, "row"]) -> Float64[np.ndarray, "row"] | None:
    """Seconds since 1970 of dates written as whole numbers, such as 20200130 and 20200130095958;
    None if they are none."""
    if not len(numbers) or not np.all((numbers >= 19e6) & (numbers < 21.01e12)):
        return None
    if np.any(numbers % 1):
        return None
    digits = numbers.astype(np.int64).astype(str)
    years = np.array([text[:4] for text in digits]).astype(int)
    if len(set(map(len, digits))) > 1 or years.min() < 1900 or years.max() > 2100:
        return None
    read = _read(pa.array(digits), rf"^{_COMPACT}$")
    return None if read is None else read.seconds


def _read(column: pa.ChunkedArray | pa.Array, way: str) -> Stamps | None:
    """The rows as one way has them written; None if some row is not."""
    parts = pc.extract_regex(column, way)
    if isinstance(parts, pa.ChunkedArray):
        parts = parts.combine_chunks()
    given = np.asarray(pc.is_valid(column))
    if not given.any() or not np.array_equal(np.asarray(pc.is_valid(parts)), given):
        return None
    texts = {
        field.name: parts.field(i).filter(pa.array(given)) for i, field in enumerate(parts.type)
    }
    found = _number(texts)
    if found is None:
        return None
    if "year" not in texts:
        found += 86400.0 * np.cumsum(np.diff(found, prepend=found[:1]) < -43200)
    out = np.full(len(column), np.nan)
    out[given] = found
    zoned = any(
        pc.any(pc.not_equal(texts[name], "")).as_py() for name in ("utc", "zone") if name in texts
    )
    return Stamps(out, "year" in texts and not zoned, False)


def _number(texts: dict[str, pa.Array]) -> Float64[np.ndarray, "row"] | None:
    """Seconds of the parts of dates and times; None if there is no such day or time."""

    def whole(name: str, otherwise: int) -> np.ndarray:
        if name not in texts:
            return np.full(len(next(iter(texts.values()))), otherwise)
        return _whole(texts[name], otherwise)

    hour, minute, second = whole("hour", 0), whole("minute", 0), whole("second", 0)
    good: Bool[np.ndarray, "row"] = (minute < 60) | ("hour" not in texts)
    good &= second <= 60
    midnight = (hour == 24) & (minute == 0) & (second == 0)  # at the end of its day
    if "half" in texts:
        half = np.asarray(pc.utf8_lower(texts["half"])).astype(str)
        good &= (half == "") | ((hour >= 1) & (hour <= 12))
        hour = np.where(half == "", hour, hour % 12 + 12 * (half == "p"))
        good &= (hour < 24) | midnight
    found = 3600.0 * hour + 60.0 * minute + second
    if "part" in texts:
        found += np.array([float(f"0.{text}") for text in texts["part"].to_pylist()])
    if "zone" in texts:
        zone = _whole(pc.replace_substring(texts["zone"], ":", ""), 0)
        found -= 60.0 * np.sign(zone) * (np.abs(zone) // 100 * 60 + np.abs(zone) % 100)
    if "year" in texts:
        year, day, month = whole("year", 1970), whole("day", 1), whole("month", 1)
        short = np.asarray(pc.utf8_length(texts["year"])) == 2
        year = np.where(short, year + np.where(year < 69, 2000, 1900), year)
        if "name" in texts:
            names = np.asarray(pc.utf8_lower(texts["name"])).astype(str)
            month = (names[:, None] == _MONTHS) @ np.arange(1, 13)
        good &= (month >= 1) & (month <= 12) & (day >= 1) & ((hour < 24) | midnight)
        if not good.all():
            return None
        first = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
        days = first.astype("datetime64[D]") + (day - 1)
        good &= days.astype("datetime64[M]") == first
        found += 86400.0 * days.astype(np.int64)
    return found if good.all() else None


def _whole(texts: pa.Array, otherwise: int) -> np.ndarray:
    """Whole numbers; `otherwise` where the text is empty."""
    filled = pc.if_else(pc.equal(texts, ""), str(otherwise), texts)
    return np.asarray(filled).astype(np.int64)
