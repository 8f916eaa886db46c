"""Series in memory, in the forms that users of scikit-learn have them, at their true lengths.

    series, time = read(X)

`X` is an array (n, time, channel) or (n, time), a frame with a series a row, or a list of arrays or
frames (time,) or (time, channel) of any lengths. NaN, None, infinity, a frame's NA and what an
array masks are missing values.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.utils import check_array

from mainspring.errors import DataError

NUMBERS = "fiub"
"""Kinds of types that hold them."""

Values = Float32[np.ndarray, "_time _channel"]


def read(X: Any, least_steps: int = 1) -> tuple[list[Values], int | None]:
    """The series, and for an array its number of steps.

    In an array, steps at the end where no channel has a value do not belong to the series.

    Args:
        X: Series in any of the forms above.
        least_steps: Fewer columns of an array (n, time) are refused.

    Raises:
        DataError: If shapes or types are others, or a list is empty.
        ValueError, TypeError: If an array is none to scikit-learn either.
    """
    ragged = getattr(X, "dtype", None) == np.dtype(object) and np.ndim(X) == 1
    if isinstance(X, list | tuple) and not len(X):
        raise DataError("X is empty: it holds no series.")
    if (isinstance(X, list | tuple) or ragged) and len(X) and np.ndim(next(iter(X))) > 0:
        return [_one(index, values) for index, values in enumerate(X)], None
    array = check_array(
        unmasked(X),
        dtype="numeric",
        ensure_all_finite=False,
        allow_nd=True,
        ensure_min_features=least_steps,
        estimator="Embedder",
    )
    if array.dtype.kind not in NUMBERS or array.ndim not in (2, 3) or not array.size:
        raise DataError(
            f"X has shape {array.shape} and type {array.dtype}, where numbers of shape (n, time, "
            "channel) or (n, time) were expected."
        )
    values = _float32(array).reshape(*array.shape[:2], -1)
    return [_without_end(one) for one in values], values.shape[1]


def _one(index: int, values: Any) -> Values:
    """A series of a list."""
    array = np.asarray(unmasked(values))
    if array.dtype == object:
        array = np.array(array.tolist())
    if array.dtype == object:  # None or NA among numbers
        with contextlib.suppress(TypeError, ValueError):
            array = np.asarray((values if hasattr(values, "astype") else array).astype(np.float64))
    if array.dtype.kind not in NUMBERS or array.ndim not in (1, 2) or not array.size:
        raise DataError(
            f"Series {index} of the list has shape {array.shape} and type {array.dtype}, where "
            "numbers of shape (time,) or (time, channel) were expected."
        )
    return _float32(array).reshape(len(array), -1)


def unmasked(values: Any) -> Any:
    """NaN where an array of numbers is masked; anything else as it is."""
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in NUMBERS:
        return np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan)
    return values


def _float32(array: np.ndarray) -> np.ndarray:
    """float32 with infinity as missing; a copy."""
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    values[np.isinf(values)] = np.nan
    return values


def _without_end(values: Values) -> Values:
    """Without the steps at the end where nothing is known; all of it where nothing is at all."""
    known = np.flatnonzero(~np.isnan(values).all(axis=1))
    return values[: known[-1] + 1] if len(known) else values
