"""Dates and times as tables have them written, in seconds.

    seconds(pa.array(["30.01.2020 09:59:58.5", "30.01.2020 09:59:59.0"]))

What is understood beside ISO 8601, which pyarrow reads by itself: days before months or after them,
months by name, years of two digits, dates without separators, fractions of a second, AM and PM,
zones as an offset, and times of day or elapsed times without a date.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

_TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,:](?P<part>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_ZONE = r"(?:\s*(?:Z|UTC|GMT|(?P<zone>[+-]\d\d:?\d\d)))?"
_AFTER = rf"(?:[T ,;_-]+{_TIME})?{_ZONE}"
_DAY = r"(?P<day>\d{1,2})"
_MONTH = r"(?P<month>\d{1,2})"
_YEAR = r"(?P<year>\d{4}|\d\d)"
_NAME = r"(?P<name>[A-Za-z]{3})[a-z]*"
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
        r"(?P<year>\d{4})[-/](?P<month>\d{1,2})",
        _COMPACT,
        _TIME,
        r"(?P<hour>\d{1,4}):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?",
        r"(?P<minute>\d{1,4}):(?P<second>\d\d)[.,](?P<part>\d{1,9})",
    )
)
_MONTHS = np.array(
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
)

LEAST_RISING = 0.95
"""Share of steps that must not fall in a clock out of order."""

DATED = 365 * 86400.0
"""Seconds from which on they tell the day, and not only the time."""


def seconds(column: pa.ChunkedArray | pa.Array) -> Float64[np.ndarray, "row"] | None:
    """Seconds since 1970 where the text has dates, otherwise since midnight or the start.

    Where days and months can be either, the one that never goes back in time; of both, the one
    whose steps are evener, then days first. A time of day less than the one before it is of the
    next day.

    Returns:
        A number a row, NaN where there is no text; None if the rows are not all times written in
        one way.
    """
    best, most = None, (0.0, 0.0)
    for way in _WAYS:
        found = _read(column, way)
        if found is None:
            continue
        step = np.diff(found[~np.isnan(found)])
        # Days taken for months go back and forth more often than rows out of order do.
        steady = np.all(step >= 0) or np.all(step <= 0)
        rising = 1.0 if steady else float(np.mean(step >= 0))
        order = (rising, _evenness(step))
        if rising >= LEAST_RISING and order > most:
            best, most = found, order
        if most == (1.0, 1.0):
            break
    return best


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
    return _read(pa.array(digits), rf"^{_COMPACT}$")


def _read(column: pa.ChunkedArray | pa.Array, way: str) -> Float64[np.ndarray, "row"] | None:
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
    return out


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
