"""Series of any lengths with missing values, as one array without holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mainspring.errors import DataError

Series = np.ndarray | Sequence[np.ndarray]
"""An array (n, time) or (n, time, channel), or n arrays (time,) or (time, channel)."""


@dataclass(frozen=True)
class Filled:
    """Series without missing values.

    Attributes:
        values: Zero past each series' end.
        lengths: Steps of each series.
    """

    values: Float64[np.ndarray, "n time channel"]
    lengths: Int64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def equal(self) -> bool:
        """Whether all are of one length."""
        return bool((self.lengths == self.values.shape[1]).all())


def scaled(series: Filled) -> Filled:
    """Each channel of each series brought to mean 0 and deviation 1; constant ones to 0."""
    there = (np.arange(series.values.shape[1]) < series.lengths[:, None])[..., None]
    count = series.lengths[:, None, None]
    centred = np.where(there, series.values - series.values.sum(1, keepdims=True) / count, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    size = np.abs(series.values).max(axis=1, keepdims=True)
    # Of a constant only rounding is left, which must not be blown up.
    flat = deviation <= 1e-12 * size
    return Filled(np.where(flat, 0, centred / np.where(flat, 1, deviation)), series.lengths)


def filled(series: Series) -> Filled:
    """Fills what is missing (NaN) by straight lines between what is known.

    Steps missing in all channels at a series' end are no part of it: that is how shorter series
    are padded. Missing values before the first known one take its value, those after the last take
    the last one's; a channel that is never known is zero.

    Raises:
        DataError: If the series have different numbers of channels, or hold infinity.
    """
    rows = [np.asarray(each, np.float64) for each in series]
    rows = [row[:, None] if row.ndim == 1 else row for row in rows]
    shapes = {row.shape[1:] for row in rows}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise DataError(
            f"Series must be arrays (time,) or (time, channel), all with the same channels, but "
            f"these have the shapes (time, *) with * in {sorted(shapes)}."
        )
    channels = rows[0].shape[1]
    lengths = np.array([_length(row) for row in rows], np.int64)
    values = np.zeros((len(rows), int(lengths.max(initial=1)), channels))
    for at, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        values[at, :length] = row[:length]
    if np.isinf(values).any():
        bad = int(np.isinf(values).any(axis=(1, 2)).sum())
        raise DataError(f"{bad} of {len(rows)} series hold infinity; set it to NaN (missing).")
    for at, channel in np.argwhere(np.isnan(values).any(axis=1)):
        line = values[at, : lengths[at], channel]
        known = np.flatnonzero(~np.isnan(line))
        line[:] = np.interp(np.arange(len(line)), known, line[known]) if len(known) else 0
    return Filled(values, lengths)


def _length(row: np.ndarray) -> int:
    """Steps up to the last that is known in any channel; at least one."""
    known = np.flatnonzero(~np.isnan(row).all(axis=1))
    return int(known[-1]) + 1 if len(known) else 1
