"""What a file of series holds once parsed, whatever its format: rows, and which are whose."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from mainspring.recordings.recording import StreamInfo

EXTENSIONS = (".csv", ".tsv", ".ts", ".npy", ".npz", ".parquet", ".pq")

_BLOCK = 4096  # rows looked at together
_WITH_ROW = re.compile(r"^(.+?\.(?:tsv|ts|npy|npz))#(.+)$", re.IGNORECASE | re.DOTALL)


def split_uri(uri: str) -> tuple[str, str | None]:
    """The path and the `#row` of a uri; None where it names no row.

    >>> split_uri("data/ECG_TRAIN.tsv#12")
    ('data/ECG_TRAIN.tsv', '12')
    >>> split_uri("take #1.wav")
    ('take #1.wav', None)
    """
    match = _WITH_ROW.match(uri)
    return (match[1], match[2]) if match else (uri, None)


@dataclass(frozen=True)
class SeriesFile:
    """A parsed or memory-mapped file.

    Attributes:
        values: The rows of all series one after another, of any real dtype.
        starts: First row of each series.
        stops: Row past the last of each series.
        keys: What follows `#` in each series' uri; a file of one series has one empty key.
        labels: The class of each series, for evaluation only.
        rate: Rows per second; 1.0 without a time column.
        columns: Names of the variables, empty where the format has none.
        format: Name of the format.
    """

    values: np.ndarray
    starts: Int64[np.ndarray, "series"]
    stops: Int64[np.ndarray, "series"]
    keys: tuple[str, ...]
    labels: tuple[str | None, ...]
    rate: float
    columns: tuple[str, ...]
    format: str

    def __len__(self) -> int:
        return len(self.keys)

    def info(self, index: int) -> StreamInfo:
        """The facts of one series."""
        length = int(self.stops[index] - self.starts[index])
        return StreamInfo(
            kind="series",
            length=length,
            rate=self.rate,
            seconds=length / self.rate,
            channels=int(self.values.shape[1]),
            codec=self.format,
        )

    def is_known(self, index: int) -> bool:
        """Whether a series has any value that is not missing."""
        first, last = int(self.starts[index]), int(self.stops[index])
        return any(
            not np.isnan(np.asarray(self.values[at : min(at + _BLOCK, last)], np.float64)).all()
            for at in range(first, last, _BLOCK)
        )

    def rows(self, index: int, start: int, stop: int | None) -> Float32[np.ndarray, "time channel"]:
        """Rows [start, stop) of one series as a copy; infinite values count as missing."""
        first = int(self.starts[index])
        last = int(self.stops[index])
        begin = min(first + max(start, 0), last)
        end = last if stop is None else max(begin, min(first + stop, last))
        with np.errstate(over="ignore"):
            rows = np.array(self.values[begin:end], dtype=np.float32)
        rows[np.isinf(rows)] = np.nan
        return rows


def one(
    values: np.ndarray, format: str, rate: float = 1.0, columns: tuple[str, ...] = ()
) -> SeriesFile:
    """A file that is a single series of shape (time, channel)."""
    return SeriesFile(
        values, np.array([0]), np.array([len(values)]), ("",), (None,), rate, columns, format
    )


def rectangle(values: np.ndarray, format: str) -> SeriesFile:
    """An array (series, time, channel). Its only way to hold shorter series is to end them with
    missing values, so time steps at the end of which nothing is known do not belong to them."""
    count, time, channel = values.shape
    starts = np.arange(count, dtype=np.int64) * time
    stops = starts + time
    if time and channel and np.issubdtype(values.dtype, np.floating):
        for row in np.flatnonzero(np.isnan(values[:, -1]).all(axis=1)):
            known = np.flatnonzero(~np.isnan(values[row]).all(axis=1))
            stops[row] = starts[row] + (known[-1] + 1 if len(known) else 0)
    return SeriesFile(
        values.reshape(count * time, channel),
        starts,
        stops,
        tuple(map(str, range(count))) if count != 1 else ("",),
        (None,) * count,
        1.0,
        (),
        format,
    )


def joined(
    series: list[np.ndarray], format: str, keys: list[str], labels: list[str | None] | None = None
) -> SeriesFile:
    """Series of shape (time, channel), unequal in length, equal in channels."""
    lengths = np.array([len(one) for one in series], dtype=np.int64)
    stops = np.cumsum(lengths)
    return SeriesFile(
        np.concatenate(series),
        stops - lengths,
        stops,
        tuple(keys) if len(keys) != 1 else ("",),
        tuple(labels) if labels else (None,) * len(series),
        1.0,
        (),
        format,
    )
