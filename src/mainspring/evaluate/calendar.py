"""What a clock and a calendar say of each step, for encoders that take it beside the values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from mainspring.errors import DataError

FEATURES = ("minute", "hour", "weekday", "day", "day of year", "month", "week of year")
"""Minute 0-59, hour 0-23, Monday 0 to Sunday 6, day 1-31, 1-366, month 1-12, ISO week 1-53."""


def calendar_features(
    timestamps: np.ndarray, train: slice | None = None
) -> Float64[np.ndarray, "time 7"]:
    """The seven features of TS2Vec's forecasting protocol (Yue et al., AAAI 2022, released code).

    Args:
        timestamps: Moments (datetime64, or strings such as "2016-07-01 00:00:00"), shape (time,).
        train: With it, each feature is standardised by its mean and deviation there; one that is
            constant there (the minute of hourly data) is only moved.

    Raises:
        DataError: If these are no moments, or some are missing.
    """
    try:
        moments = np.asarray(timestamps).astype("datetime64[s]")
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Timestamps must be datetime64 or strings such as '2016-07-01 00:00:00' ({error})."
        ) from error
    if np.isnat(moments).any():
        raise DataError(f"{int(np.isnat(moments).sum())} of {len(moments)} timestamps are missing.")
    days = moments.astype("datetime64[D]")
    months = moments.astype("datetime64[M]")
    years = moments.astype("datetime64[Y]")
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    # A week belongs to the year that its Thursday lies in.
    thursday = days + (3 - weekday)
    into_year = thursday - thursday.astype("datetime64[Y]").astype("datetime64[D]")
    found = np.stack(
        [
            (moments - moments.astype("datetime64[h]")).astype(np.int64) // 60,
            (moments - days).astype(np.int64) // 3600,
            weekday,
            (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
            (days - years.astype("datetime64[D]")).astype(np.int64) + 1,
            (months - years.astype("datetime64[M]")).astype(np.int64) + 1,
            into_year.astype(np.int64) // 7 + 1,
        ],
        axis=1,
    ).astype(np.float64)
    if train is None:
        return found
    seen = found[train]
    deviation = seen.std(axis=0)
    return (found - seen.mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1.0)
