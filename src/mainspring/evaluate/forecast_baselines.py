"""Forecasts without an encoder, from the same origins and scored alike.

for name, found in forecast_baselines(data, splits, (24, 48)).items(): print(name, found[24].mse)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Float64

from mainspring.evaluate.forecasting import (
    DROP,
    Forecast,
    Predict,
    Splits,
    forecast,
    measure,
    standardise,
)

WINDOW = 201
"""Steps that the ridge on raw values looks at: as many as TS2Vec's sliding encoding."""

MEAN, LAST, SEASON, RIDGE = "mean of train", "persistence", "seasonal naive", "ridge on raw values"


def forecast_baselines(
    data: Float[np.ndarray, "*n time channel"],
    splits: Splits,
    horizons: Sequence[int],
    *,
    period: int | None = None,
    window: int = WINDOW,
    drop: int = DROP,
) -> dict[str, dict[int, Forecast]]:
    """What any forecast has to beat.

    The mean of train; the last value; the value of the same phase in the last whole period; and the
    ridge protocol of `forecast` on the last values themselves. A missing value is taken to be the
    last known one.

    Args:
        data: What to forecast, in its own units.
        splits: As for `forecast`.
        horizons: Steps ahead.
        period: Steps of a season; guessed from train by `guess_period` unless given.
        window: Steps that the ridge sees, the origin's own included.
        drop: First steps of train that the ridge is not fitted to.

    Returns:
        For each method a `Forecast` for each horizon.
    """
    whole = data[None] if data.ndim == 2 else data
    values, deviations = standardise(whole, splits.train)
    known = carried(values)
    season = guess_period(known[:, splits.train]) if period is None else period
    simple: dict[str, Predict] = {
        MEAN: lambda i, t, h: np.zeros((len(t), h, known.shape[2])),
        LAST: lambda i, t, h: np.repeat(known[i, t][:, None], h, axis=1),
        SEASON: lambda i, t, h: known[i[:, None], np.maximum(_same_phase(t, h, season), 0)],
    }
    found = {
        name: {h: measure(told, values, deviations, splits.test, h) for h in horizons}
        for name, told in simple.items()
    }
    found[RIDGE] = forecast(raw_windows(known, window), whole, splits, horizons, drop=drop)
    return found


def guess_period(values: Float64[np.ndarray, "n time channel"]) -> int:
    """Steps of the strongest season, from autocorrelation.

    Straight lines are taken out; autocorrelation is averaged over instances and channels. Its
    highest peak within a third of the length is taken, of those that rise over the lowest point
    before them by more than noise does (2 / sqrt(time)). Multiples of a season are lower, since
    fewer pairs of steps are that far apart.

    Returns:
        Steps; 1 where there is no season, with which a seasonal forecast is persistence.
    """
    time = values.shape[1]
    line = np.linspace(-1, 1, time)[:, None]
    centred = values - values.mean(axis=1, keepdims=True)
    centred = centred - line * (line * centred).sum(axis=1, keepdims=True) / (line**2).sum()
    size = 2 ** int(np.ceil(np.log2(2 * time)))
    power = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    products = np.fft.irfft(power, size, axis=1)[:, : max(2, time // 3 + 1)]
    strength = products[:, :1]
    alive = strength > 1e-12 * time
    found = np.where(alive, products / np.where(alive, strength, 1), 0).mean(axis=(0, 2))
    rises = np.diff(found) > 0
    peaks = np.flatnonzero(rises[:-1] & ~rises[1:]) + 1
    rise = found[peaks] - np.minimum.accumulate(found)[peaks]
    some = (rise > 2 / np.sqrt(time)) & (found[peaks] > 2 / np.sqrt(time))
    return int(peaks[some][found[peaks][some].argmax()]) if some.any() else 1


def carried(values: Float64[np.ndarray, "n time channel"]) -> Float64[np.ndarray, "n time channel"]:
    """Each missing value replaced by the last known one before it, 0 where there is none."""
    steps = np.arange(values.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=1)
    found = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return np.where(last < 0, 0, found)


def raw_windows(
    values: Float64[np.ndarray, "n time channel"], window: int
) -> Float32[np.ndarray, "n time wide"]:
    """For each step the values of the last `window` steps, zero before the beginning."""
    count, time, channels = values.shape
    padded = np.pad(values.astype(np.float32), ((0, 0), (window - 1, 0), (0, 0)))
    found = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)
    return found.reshape(count, time, channels * window)


def _same_phase(steps: np.ndarray, horizon: int, period: int) -> np.ndarray:
    """For each of the steps that follow, the last one known that lies whole periods before."""
    ahead = np.arange(1, horizon + 1)
    return steps[:, None] + ahead - period * -(-ahead // period)
