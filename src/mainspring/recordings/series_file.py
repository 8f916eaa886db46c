"""What a file of series holds once parsed, whatever its format: rows, and which are whose."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float32, Int64

from mainspring.recordings.recent import Recent
from mainspring.recordings.recording import StreamInfo
from mainspring.recordings.timestamps import Layout, averaged

EXTENSIONS = (".csv", ".tsv", ".ts", ".npy", ".npz", ".parquet", ".pq")

_BLOCK = 4096  # rows looked at together
_GROUP_BYTES = 64 << 20  # decoded row groups of a file that are kept
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


class RowGroups:
    """The rows of a Parquet file, read row group by row group when they are asked for.

    Takes slices and arrays of step numbers as an array does.

    Args:
        path: The file.
        metadata: Its footer, read once.
        columns: Names of the numeric columns, in order.
        layout: Where rows in order of time lie; None where each is the next step.
    """

    def __init__(
        self,
        path: str,
        metadata: pyarrow.parquet.FileMetaData,
        columns: tuple[str, ...],
        layout: Layout | None = None,
    ) -> None:
        self.path = path
        self.columns = columns
        self.layout = layout
        self._metadata = metadata
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends = np.cumsum([0, *counts])
        gaps = layout is not None and layout.gaps is not None
        steps = metadata.num_rows if layout is None else layout.length
        self.shape = (int(steps), len(columns) + gaps)
        self._recent: Recent[np.ndarray] = Recent(_GROUP_BYTES)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(
        self, steps: slice | Int64[np.ndarray, "step"]
    ) -> Float32[np.ndarray, "step channel"]:
        if isinstance(steps, slice):
            steps = np.arange(*steps.indices(len(self)), dtype=np.int64)
        layout = self.layout
        if layout is None:
            return self._rows(steps)
        values = self._rows(steps) if layout.places is None else self._laid(steps, layout.places)
        if layout.gaps is not None:
            values = np.concatenate([values, layout.gaps[steps, None]], axis=1)
        return values

    def _laid(
        self, steps: Int64[np.ndarray, "step"], places: Int64[np.ndarray, "row"]
    ) -> Float32[np.ndarray, "step channel"]:
        """Steps to which none, one or several rows belong."""
        wanted, back = np.unique(steps, return_inverse=True)
        first = np.searchsorted(places, wanted, "left")
        counts = np.searchsorted(places, wanted, "right") - first
        place = np.repeat(np.arange(len(wanted)), counts)
        rows = first[place] + np.arange(len(place)) - (np.cumsum(counts) - counts)[place]
        values = np.full((len(wanted), len(self.columns)), np.nan, np.float32)
        if len(rows):
            at, means = averaged(self._rows(rows), place)
            values[at] = means
        return values[back.reshape(-1)]

    def _rows(self, rows: Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row channel"]:
        out = np.empty((len(rows), len(self.columns)), np.float32)
        groups = np.searchsorted(self._ends, rows, "right") - 1
        for group in np.unique(groups):
            mine = groups == group
            out[mine] = self._group(int(group))[rows[mine] - self._ends[group]]
        return out

    def _group(self, group: int) -> Float32[np.ndarray, "row channel"]:
        held = self._recent.get(group)
        if held is not None:
            return held
        # Opened anew each time: an open file is neither safe in threads nor can it be pickled.
        with pyarrow.parquet.ParquetFile(self.path, metadata=self._metadata) as file:
            table = file.read_row_group(group, columns=list(self.columns), use_threads=False)
        values = np.empty((table.num_rows, len(self.columns)), np.float32)
        with np.errstate(over="ignore"):
            for at, name in enumerate(self.columns):
                column = table.column(name)
                if pa.types.is_boolean(column.type):
                    column = column.cast(pa.uint8())
                values[:, at] = column.cast(pa.float64(), safe=False).to_numpy()
        return self._recent.put(group, values, values.nbytes)


@dataclass(frozen=True)
class SeriesFile:
    """A parsed or memory-mapped file.

    Attributes:
        values: The rows of all series one after another, of any real dtype; in memory, mapped, or
            read when asked for.
        starts: First row of each series.
        stops: Row past the last of each series.
        keys: What follows `#` in each series' uri; a file of one series has one empty key.
        labels: The class of each series, for evaluation only.
        rate: Rows per second; 1.0 without a time column.
        columns: Names of the variables, empty where the format has none.
        format: Name of the format.
    """

    values: np.ndarray | RowGroups
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
            np.isfinite(np.asarray(self.values[at : min(at + _BLOCK, last)], np.float64)).any()
            for at in range(first, last, _BLOCK)
        )

    def rows(self, index: int, start: int, stop: int | None) -> Float32[np.ndarray, "time channel"]:
        """Rows [start, stop) of one series as a copy; infinite values count as missing."""
        first = int(self.starts[index])
        last = int(self.stops[index])
        begin = min(first + max(start, 0), last)
        end = last if stop is None else max(begin, min(first + stop, last))
        return self._exact(slice(begin, end))

    def at(
        self, index: int, steps: Int64[np.ndarray, "step"]
    ) -> Float32[np.ndarray, "step channel"]:
        """Single rows of one series; NaN past its end. Only they are read."""
        first = int(self.starts[index])
        there = steps < int(self.stops[index]) - first
        if there.all():
            return self._exact(first + steps)
        out = np.full((len(steps), self.values.shape[1]), np.nan, np.float32)
        out[there] = self._exact(first + steps[there])
        return out

    def _exact(self, which: slice | Int64[np.ndarray, "row"]) -> Float32[np.ndarray, "row channel"]:
        """A copy of some rows; infinite values count as missing."""
        mapped = self.values
        rows = mapped[which] if isinstance(mapped, RowGroups) else np.asarray(mapped)[which]
        if rows.dtype != np.float32:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float32)
        rows = np.array(rows)
        rows[np.isinf(rows)] = np.nan
        return rows


def one(
    values: np.ndarray | RowGroups, format: str, rate: float = 1.0, columns: tuple[str, ...] = ()
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
