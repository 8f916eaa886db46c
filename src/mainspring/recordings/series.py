"""Files of time series: CSV, Parquet, NPY, NPZ, UCR `.tsv`, `.ts`. What they hold, and their rows.

    probe_series("ECG_TRAIN.tsv")               a series a line, their facts and classes
    read_series("ECG_TRAIN.tsv#3", 0.0, None)   float32 (time, channel), NaN where missing

Times are seconds from the beginning of the series; without a time column a row lasts one second.
What becomes of irregular times is said in `mainspring.recordings.timestamps`. NPY files are mapped
and large Parquet files read by row groups, so that data may be larger than memory.
Lengths are true lengths: what only pads a shorter series to its neighbours' length is left out.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float32, Int64

from mainspring.errors import DataError
from mainspring.recordings import archives, tables
from mainspring.recordings.recent import Recent
from mainspring.recordings.recording import StreamInfo
from mainspring.recordings.series_file import (
    EXTENSIONS,
    RowGroups,
    SeriesFile,
    joined,
    one,
    rectangle,
    split_uri,
)
from mainspring.recordings.timestamps import Clock, Layout, clock_among, way

OFFSETS = (
    ".offsets.npy"  # beside x.npy (row, channel): where each of its series begins, and the end
)


LARGE = 64 << 20
"""Bytes of values from which a Parquet file is read by row groups and not at once."""


@dataclass(frozen=True)
class SeriesProbe:
    """What a file of series holds.

    Attributes:
        keys: What follows `#` in the uri of each series; one empty key for a file of one series.
        infos: The facts of each series.
        labels: The class of each series, for evaluation only.
        problems: Why each series cannot be used, if so.
        columns: Names of the variables, empty where the format has none.
    """

    keys: tuple[str, ...]
    infos: tuple[StreamInfo, ...]
    labels: tuple[str | None, ...]
    problems: tuple[str | None, ...]
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


def probe_series(path: str | Path) -> SeriesProbe:
    """Counts and measures the series of a file.

    Raises:
        DataError: If the file cannot be read as series; says where and why.
    """
    file = _opened(os.fspath(path))
    infos = tuple(file.info(index) for index in range(len(file)))
    problems = tuple(
        None if file.is_known(index) else "Every value of the series is missing."
        for index in range(len(file))
    )
    return SeriesProbe(file.keys, infos, file.labels, problems, file.columns)


def read_series(
    uri: str, start: float = 0.0, stop: float | None = None
) -> Float32[np.ndarray, "time channel"]:
    """The rows of a series between two times, NaN where values are missing.

    Args:
        uri: Path, with `#row` where the file holds many series.
        start: Seconds from the beginning of the series.
        stop: Seconds from the beginning; None reads to the end, as does what lies past it.

    Raises:
        DataError: If the file cannot be read as series, or has no such row.
    """
    file, index = _found(uri)
    last = None if stop is None else math.floor(stop * file.rate + 0.5)
    return file.rows(index, math.floor(start * file.rate + 0.5), last)


def read_at(
    uri: str, steps: Int64[np.ndarray, "step"], start: float = 0.0, stop: float | None = None
) -> Float32[np.ndarray, "step channel"]:
    """Single steps of `read_series(uri, start, stop)`, NaN past its end. Of a mapped NPY file
    nothing else is read, of a large Parquet file their row groups.

    Args:
        uri: Path, with `#row` where the file holds many series.
        steps: Which, from 0.
        start: Seconds from the beginning of the series.
        stop: Seconds from the beginning; None reads to the end.

    Raises:
        DataError: If the file cannot be read as series, or has no such row.
    """
    file, index = _found(uri)
    places = max(0, math.floor(start * file.rate + 0.5)) + steps
    values = file.at(index, places)
    if stop is not None:
        values[places >= math.floor(stop * file.rate + 0.5)] = np.nan
    return values


def layout_of(path: str) -> Layout | None:
    """How the rows of a table are laid out by its time column; None where it has none.

    Raises:
        DataError: If the file cannot be read, or holds several series in one table.
    """
    clock = _clock(path)
    return None if clock is None else clock.layout(path)


def moments(path: str) -> np.ndarray:
    """The moment of each step of a table, datetime64[s]; steps to which no row belongs lie evenly
    between the others.

    Raises:
        DataError: If the table has no column of dates.
    """
    clock = _clock(path)
    if clock is None or not clock.dates or np.isnan(clock.seconds).any():
        raise DataError(
            f"{path} has no column of dates without holes (such as 2016-07-01 00:00:00), which a "
            "calendar needs."
        )
    found = clock.layout(path)
    seconds = clock.seconds if found.order is None else clock.seconds[found.order]
    if found.places is not None:
        at, first = np.unique(found.places, return_index=True)
        seconds = np.interp(np.arange(found.length), at, seconds[first])
    return np.floor(seconds + 0.5).astype(np.int64).astype("datetime64[s]")


def _found(uri: str) -> tuple[SeriesFile, int]:
    path, key = split_uri(uri)
    file = _opened(path)
    if key is None and len(file) > 1:
        raise DataError(
            f"{path} holds {len(file)} series: write {path}#{file.keys[0]} to "
            f"{path}#{file.keys[-1]} for one of them."
        )
    return file, _index(file, path, key)


def _clock(path: str) -> Clock | None:
    """The time column of a table; None where it has none, or the file is no table."""
    extension = os.path.splitext(path)[1].lower()
    if extension in (".parquet", ".pq"):
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                names, kinds = file.schema_arrow.names, file.schema_arrow.types
                return clock_among(names, kinds, lambda at: file.read([names[at]]).column(0))
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read as a table: {error}.") from error
    if extension != ".csv" and (extension != ".tsv" or archives.is_ucr(path)):
        return None
    table, dialect = tables.read_text(path)
    return tables.clock_of(table, dialect)


def _read_parquet(path: str) -> SeriesFile:
    """A small table at once, a large one by row groups; one out of order is too tangled for that,
    and what is no table of numbers is left to `tables` to complain of."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except (pa.ArrowInvalid, OSError):
        return tables.read_parquet(path)
    if 4 * metadata.num_rows * len(schema) < LARGE:
        return tables.read_parquet(path)
    clock = _clock(path)
    columns = tuple(i for i in range(len(schema)) if clock is None or i not in clock.places)
    found = None
    if clock is not None:
        found = clock.layout(path)
    if not columns or not all(map(_is_number, (schema.field(i).type for i in columns))):
        return tables.read_parquet(path)
    if found is not None and found.order is not None:
        return tables.read_parquet(path)
    names = tuple(schema.field(i).name for i in columns)
    values = RowGroups(path, metadata, names, found)
    return one(values, "parquet", 1.0 if found is None else found.rate, names)


def _is_number(kind: pa.DataType) -> bool:
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return plain or pa.types.is_decimal(kind) or pa.types.is_null(kind)


def _index(file: SeriesFile, path: str, key: str | None) -> int:
    if key is None or (len(file) == 1 and key == "0"):
        return 0
    if key.isdecimal() and int(key) < len(file) and file.keys[int(key)] == key:
        return int(key)
    if key in file.keys:
        return file.keys.index(key)
    raise DataError(
        f"{path} has no series {key!r}: it has {len(file)}, from {file.keys[0]!r} to "
        f"{file.keys[-1]!r}."
    )


def _read_npy(path: str) -> SeriesFile:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no array of numbers: {error}") from error
    if isinstance(values, np.lib.npyio.NpzFile):
        values.close()
        raise DataError(f"{path} is an archive of arrays, not one array: rename it to end in .npz.")
    _require_numbers(values, path)
    offsets = Path(path.removesuffix(".npy") + OFFSETS)
    if values.ndim == 2 and offsets.exists():
        ends = np.load(offsets, allow_pickle=False).astype(np.int64)
        if ends[0] != 0 or ends[-1] != len(values) or np.any(np.diff(ends) < 0):
            raise DataError(f"{offsets} does not fit the {len(values)} rows of {path}.")
        keys = tuple(map(str, range(len(ends) - 1)))
        labels = (None,) * len(keys)
        return SeriesFile(values, ends[:-1], ends[1:], keys, labels, 1.0, (), "npy")
    return _from_array(values, path, "npy")


def _read_npz(path: str) -> SeriesFile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no archive of arrays of numbers: {error}") from error
    for key, array in arrays.items():
        _require_numbers(array, f"{path}#{key}")
    if len(arrays) == 1:
        return _from_array(next(iter(arrays.values())), path, "npz")
    shapes = {key: array.shape for key, array in arrays.items()}
    if not arrays or any(len(shape) not in (1, 2) for shape in shapes.values()):
        raise DataError(
            f"{path} holds {_shapes(shapes)}, where one array (series, time, channel) or arrays "
            "(time, channel), one a series, were expected: save the series alone."
        )
    series = [
        (array if array.ndim == 2 else array[:, None]).astype(np.float64)
        for array in arrays.values()
    ]
    if len({rows.shape[1] for rows in series}) > 1:
        raise DataError(
            f"{path} holds {_shapes(shapes)}: all series of a file must have the same number of "
            "variables (the last axis)."
        )
    return joined(series, "npz", list(arrays))


def _shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    shown = [f"{key} {shape}" for key, shape in list(shapes.items())[:4]]
    return ", ".join([*shown, "..."] if len(shapes) > 4 else shown) or "no array"


def _require_numbers(values: np.ndarray, what: str) -> None:
    if values.dtype.kind not in "fiub":
        raise DataError(f"{what} holds values of type {values.dtype}, where numbers were expected.")


def _from_array(values: np.ndarray, path: str, format: str) -> SeriesFile:
    if values.ndim in (1, 2) and values.size:
        return one(values.reshape(len(values), -1), format)
    if values.ndim == 3 and values.size:
        return rectangle(values, format)
    raise DataError(
        f"{path} holds an array of shape {values.shape}, where (time,), (time, channel) or "
        "(series, time, channel) was expected."
    )


def _read_tsv(path: str) -> SeriesFile:
    return archives.read_ucr(path) if archives.is_ucr(path) else tables.read_csv(path)


_READERS: dict[str, Callable[[str], SeriesFile]] = {
    ".csv": tables.read_csv,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".tsv": _read_tsv,
    ".ts": archives.read_ts,
}


_RECENT: Recent[SeriesFile] = Recent(limit=256 << 20)  # bytes of parsed rows, in each process


def _opened(path: str) -> SeriesFile:
    """The parsed file, remembered while it is unchanged: its series are asked for one by one."""
    reader = _READERS.get(os.path.splitext(path)[1].lower())
    if reader is None:
        raise DataError(f"{path} is no file of series: expected one of {', '.join(EXTENSIONS)}.")
    try:
        stat = os.stat(path)
        stamp = (path, stat.st_size, stat.st_mtime_ns, way())
        file = _RECENT.get(stamp)
        if file is not None:
            return file
        if not stat.st_size:
            raise DataError(f"{path} is empty (0 bytes). Copy or download it again.")
        file = reader(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    # Memory-mapped rows are the system's to keep or drop, and weigh little.
    values = file.values
    weight = 4096 if isinstance(values, np.memmap | RowGroups) else values.nbytes
    return _RECENT.put(stamp, file, weight)
