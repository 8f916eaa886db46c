"""Arrays and frames in memory, written once to a temporary folder.

So everything is a uri, and worker processes map the same pages instead of holding copies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from mainspring.errors import DataError
from mainspring.recordings.in_memory import unmasked
from mainspring.recordings.series import OFFSETS


@runtime_checkable
class Frame(Protocol):
    """A data frame of any library: named columns, a row a time step."""

    columns: Any

    def to_numpy(self) -> Any:
        """Its values."""

    def __getitem__(self, name: Any) -> Any: ...


class TemporaryFolder:
    """A folder that goes with the last catalogue that needs it, at the latest with the process."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="mainspring-")
        self._remove = weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker must not take it from its parent
        shutil.rmtree(path, ignore_errors=True)


def store_array(values: np.ndarray, folder: str) -> str:
    """Writes (series, time) or (series, time, channel) as one file; returns its path.

    Raises:
        DataError: If it has another number of axes, is empty, or holds no numbers.
    """
    if values.ndim not in (2, 3) or not values.size:
        hint = " For one series give values[None]." if values.ndim == 1 and values.size else ""
        raise DataError(
            f"An array of shape {values.shape} was given, where (series, time) or (series, time, "
            f"channel) was expected.{hint}"
        )
    _require_numbers(values, "The array")
    values = unmasked(values)
    whole = _float32(values).reshape(values.shape[0], values.shape[1], -1)
    return _write(folder, whole)


def store_ragged(series: Sequence[Any], folder: str) -> str:
    """Writes arrays (time,) or (time, channel) of unequal length: their rows one after another in
    one file, and where each begins in another beside it; returns the path of the first.

    Raises:
        DataError: If one has another number of axes, no numbers, or other variables than the first.
    """
    rows = []
    for index, values in enumerate(np.asarray(unmasked(one)) for one in series):
        _require_numbers(values, f"Array {index} of the list")
        if values.ndim not in (1, 2):
            raise DataError(
                f"Array {index} of the list has shape {values.shape}, where (time,) or (time, "
                "channel) was expected."
            )
        rows.append(_float32(values).reshape(len(values), -1 if values.size else values.ndim))
        if rows[-1].shape[1] != rows[0].shape[1]:
            raise DataError(
                f"Array {index} of the list has {rows[-1].shape[1]} variables, where the first "
                f"has {rows[0].shape[1]}: all must have the same."
            )
    path = _write(folder, np.concatenate(rows))
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    offsets = path.removesuffix(".npy") + OFFSETS
    np.save(offsets, ends)
    os.utime(offsets, (0, 0))
    return path


def store_frame(frame: Frame, folder: str) -> str:
    """Writes a frame as Parquet, with its index where that holds times; returns the path.

    Raises:
        DataError: If a column cannot be stored.
    """
    columns = {str(name): _column(name, frame[name]) for name in frame.columns}
    index = getattr(frame, "index", None)
    if index is not None and np.asarray(index).dtype.kind == "M":
        columns = {"time": pa.array(np.asarray(index))} | columns
    path = Path(folder) / "frame.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return _named_by_content(path)


def _column(name: Any, values: Any) -> pa.Array:
    array = np.asarray(values)
    try:
        return pa.array(array.tolist() if array.dtype == object else array)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"Column {name!r} of the frame holds {array.dtype}, where numbers were expected: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _require_numbers(values: np.ndarray, what: str) -> None:
    if values.dtype.kind not in "fiub":
        raise DataError(f"{what} holds values of type {values.dtype}, where numbers were expected.")


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def _write(folder: str, values: np.ndarray) -> str:
    path = Path(folder) / "array.npy"
    np.save(path, values)
    return _named_by_content(path)


def _named_by_content(path: Path) -> str:
    """Renames a file after its content and gives it a fixed date, so that the same data makes the
    same catalogue in the next process too."""
    with path.open("rb") as file:
        name = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
    target = path.with_name(name + path.suffix)
    path.rename(target)
    os.utime(target, (0, 0))
    return str(target)
