"""Forecasting by ridge regression on each step's vector, in the series literature's protocol.

Yue et al. ("TS2Vec", AAAI 2022, Section 4.2 and the released protocol): a linear map, one for each
horizon, from the vector of step t (made from steps up to t) to the values of steps t + 1 .. t + H.

    splits = chronological(len(data), ETT_HOURLY)          # or shares: (0.6, 0.2, 0.2)
    found = forecast(vectors, data, splits, (24, 48, 168))
    found[24].mse, found[24].mae                           # on standardised values

Origins and all their targets lie in one part, so that no target is in two parts. Means and
deviations are of train alone; the penalty is chosen on the validation part; test is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.ridge import NormalEquations, RidgePath

PENALTIES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)

DROP = 200
"""First steps of train without a full past (the padding of the sliding encoding), left out."""

ROWS = 100_000
"""Origins of train, and of validation, at most."""

ETT_HOURLY = (12 * 30 * 24, 4 * 30 * 24, 4 * 30 * 24)
"""Months of 30 days: how ETTh1 and ETTh2 are split; four times as many steps for ETTm."""

VALUES_AT_ONCE = 2**21
"""Target values worked on at once (16 MiB)."""

Origins = tuple[np.ndarray, np.ndarray]
"""Which instance and which step, one of each a row."""

Predict = Callable[[np.ndarray, np.ndarray, int], Float64[np.ndarray, "row horizon channel"]]
"""(instances, steps, horizon) to the standardised values that follow."""


@dataclass(frozen=True)
class Splits:
    """Three stretches of time, one after the other."""

    train: slice
    valid: slice
    test: slice


@dataclass(frozen=True)
class Forecast:
    """How far a forecast was off in the test part.

    Attributes:
        horizon: Steps ahead; errors are means over all of them.
        mse: Mean squared error of standardised values.
        mae: Mean absolute error of standardised values.
        raw_mse: Mean squared error in the data's units.
        raw_mae: Mean absolute error in the data's units.
        channels: `mse` of each channel.
        origins: Steps from which was forecast.
        penalty: The ridge's, None for other methods.
    """

    horizon: int
    mse: float
    mae: float
    raw_mse: float
    raw_mae: float
    channels: list[float]
    origins: int
    penalty: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def chronological(length: int, parts: Sequence[float] = (0.6, 0.2, 0.2)) -> Splits:
    """Train, then validation, then test.

    Args:
        length: Steps there are.
        parts: Three shares of the length (at most 1 in sum) or three numbers of steps; what is
            left over at the end is not used.

    Raises:
        ConfigError: If these are not three positive parts that fit.
    """
    shares = all(0 < part < 1 for part in parts)
    ends = np.cumsum([0.0, *parts]) * (length if shares else 1)
    # Shares such as .7 + .2 + .1 add up to a little less than 1.
    edges = [int(end) for end in ends + 1e-6]
    if len(parts) != 3 or min(np.diff(edges), default=0) < 1 or edges[-1] > length:
        raise ConfigError(
            f"parts must be three shares with a sum of at most 1, or three numbers of steps with a "
            f"sum of at most {length}, not {tuple(parts)}."
        )
    return Splits(*(slice(a, b) for a, b in pairwise(edges)))


def forecast(
    vectors: Float[np.ndarray, "*n time dim"],
    data: Float[np.ndarray, "*n time channel"],
    splits: Splits,
    horizons: Sequence[int],
    *,
    drop: int = DROP,
    penalties: Sequence[float] = PENALTIES,
    rows: int = ROWS,
    seed: int = 0,
) -> dict[int, Forecast]:
    """Forecasts each horizon by ridge regression from vectors.

    The penalty with the least RMSE + MAE on validation is taken, for each horizon. Each horizon is
    fitted to all of its own origins, as scikit-learn's `Ridge` would: sums over the origins that
    longer horizons share are taken over, so that every row is multiplied once.

    Missing values (NaN): an origin of train counts where no target is missing; on validation and
    test, what is missing is not scored.

    Args:
        vectors: One a step, from that step and earlier ones only.
        data: What to forecast, in its own units; several instances share one regression, each
            standardised by its own train part.
        splits: Stretches of time, the same for all instances.
        horizons: Steps ahead.
        drop: First steps of train left out.
        penalties: Tried on validation.
        rows: Origins used at most of train and of validation, drawn at random.
        seed: Of that draw.

    Raises:
        DataError: If vectors are not finite, or a part is too short for a horizon.
    """
    vectors, data = _instances(vectors), _instances(data)
    if not np.isfinite(vectors).all():
        bad = int((~np.isfinite(vectors).all(axis=2)).sum())
        raise DataError(f"{bad} of {vectors[..., 0].size} vectors hold NaN or infinity.")
    rng = np.random.default_rng(seed)
    values, deviations = standardise(data, splits.train)
    scored = slice(splits.train.start + drop, splits.train.stop)
    fitting = _thin(_reach(values, scored, whole=True), min(horizons), rows, rng)
    checking = _thin(_reach(values, splits.valid), min(horizons), rows, rng)

    channels = values.shape[2]
    sums = NormalEquations(vectors.shape[2], max(horizons) * channels)
    found: dict[int, Forecast] = {}
    beyond = np.iinfo(np.int64).max
    for horizon in sorted(set(horizons), reverse=True):
        sums.keep(horizon * channels)
        for some in _portions(_origins(fitting, horizon, beyond), horizon * channels):
            sums.add(_inputs(vectors, some), _flat(_following(values, some, horizon)))
        beyond = horizon
        if sums.rows < 2:
            raise DataError(
                f"No step of train is followed by {horizon} known steps of train after the first "
                f"{drop} are left out (train has {splits.train.stop - splits.train.start} steps). "
                f"Give more data, a shorter horizon, a smaller drop, or fill what is missing."
            )
        path = sums.solve()
        penalty = _choose(path, vectors, values, checking, horizon, penalties)

        def predict(
            instances: np.ndarray, steps: np.ndarray, horizon: int, path: RidgePath = path,
            penalty: float = penalty,
        ) -> np.ndarray:  # fmt: skip
            told = path.predict(path.rotate(_inputs(vectors, (instances, steps))), penalty)
            return told.reshape(len(steps), horizon, channels)

        found[horizon] = measure(predict, values, deviations, splits.test, horizon, penalty)
    return {horizon: found[horizon] for horizon in horizons}


def measure(
    predict: Predict,
    values: Float64[np.ndarray, "n time channel"],
    deviations: Float64[np.ndarray, "n channel"],
    part: slice,
    horizon: int,
    penalty: float | None = None,
) -> Forecast:
    """The errors of any forecast from all origins of a part whose targets lie in it.

    Args:
        predict: Given instances, steps and the horizon, tells the values that follow; must look at
            no later step.
        values: Standardised.
        deviations: What they were divided by.
        part: Stretch of time.
        horizon: Steps ahead.
        penalty: Noted in the result.

    Raises:
        DataError: If nothing in the part can be scored.
    """
    square, size, count = (np.zeros(deviations.shape) for _ in range(3))
    origins = _origins(_reach(values, part), horizon)
    for some in _portions(origins, horizon * values.shape[2]):
        error = predict(*some, horizon) - _following(values, some, horizon)
        for total, each in (
            (square, error**2), (size, np.abs(error)), (count, np.ones_like(error)),
        ):  # fmt: skip
            known = np.where(np.isnan(error), 0, each)
            np.add.at(total, some[0], known.sum(axis=1))
    if not count.any():
        raise DataError(
            f"No step of {part.start} .. {part.stop - 1} is followed by {horizon} steps of which "
            f"any is known; give a shorter horizon or a longer part."
        )
    every = count.sum()
    return Forecast(
        horizon=horizon,
        mse=float(square.sum() / every),
        mae=float(size.sum() / every),
        raw_mse=float((square * deviations**2).sum() / every),
        raw_mae=float((size * deviations).sum() / every),
        channels=(square.sum(axis=0) / np.maximum(count.sum(axis=0), 1)).tolist(),
        origins=len(origins[0]),
        penalty=penalty,
    )


def standardise(
    data: Float[np.ndarray, "n time channel"], train: slice
) -> tuple[Float64[np.ndarray, "n time channel"], Float64[np.ndarray, "n channel"]]:
    """Each instance's channels to mean 0 and deviation 1 over train; constant ones are only moved.

    Returns:
        The values and the deviations.

    Raises:
        DataError: If a channel is never known in train.
    """
    seen = data[:, train].astype(np.float64)
    there = ~np.isnan(seen)
    count = there.sum(axis=1)
    if (count == 0).any():
        at, channel = (int(i) for i in np.argwhere(count == 0)[0])
        raise DataError(f"Channel {channel} of instance {at} has no known value in train.")
    mean = np.where(there, seen, 0).sum(axis=1) / count
    deviation = np.sqrt((np.where(there, seen - mean[:, None], 0) ** 2).sum(axis=1) / count)
    deviation = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
    return (data.astype(np.float64) - mean[:, None]) / deviation[:, None], deviation


def _instances(array: np.ndarray) -> np.ndarray:
    return array[None] if array.ndim == 2 else array


def _reach(values: np.ndarray, part: slice, *, whole: bool = False) -> Int64[np.ndarray, "n time"]:
    """How many steps follow each within the part (with `whole`, of which no value is missing); -1
    outside."""
    count, time, _ = values.shape
    found = np.full((count, time), -1, np.int64)
    steps = np.arange(part.start, part.stop)
    ends = np.full((count, len(steps)), part.stop)
    if whole:
        bad = np.isnan(values[:, part]).any(axis=2)
        ends = np.where(bad, steps, part.stop)
    # The nearest end at or after the step that follows; the last step is followed by none.
    nearest = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    nearest = np.concatenate([nearest[:, 1:], np.full((count, 1), part.stop)], axis=1)
    found[:, part] = nearest - steps - 1
    return found


def _thin(reach: np.ndarray, horizon: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of the origins that reach the shortest horizon."""
    there = np.flatnonzero(reach >= horizon)
    if len(there) <= rows:
        return reach
    kept = rng.choice(there, rows, replace=False)
    found = np.full_like(reach, -1)
    found.flat[kept] = reach.flat[kept]
    return found


def _origins(reach: np.ndarray, least: int, below: int | None = None) -> Origins:
    there = reach >= least
    if below is not None:
        there &= reach < below
    instances, steps = np.nonzero(there)
    return instances, steps


def _portions(origins: Origins, width: int) -> list[Origins]:
    step = max(1, VALUES_AT_ONCE // width)
    return [
        (origins[0][at : at + step], origins[1][at : at + step])
        for at in range(0, len(origins[0]), step)
    ]


def _inputs(vectors: np.ndarray, origins: Origins) -> Float64[np.ndarray, "row dim"]:
    return vectors[origins].astype(np.float64)


def _following(
    values: np.ndarray, origins: Origins, horizon: int
) -> Float64[np.ndarray, "row horizon channel"]:
    return values[origins[0][:, None], origins[1][:, None] + np.arange(1, horizon + 1)]


def _flat(targets: Float64[np.ndarray, "row horizon channel"]) -> Float64[np.ndarray, "row wide"]:
    """Steps before channels, so that a shorter horizon's targets come first."""
    return targets.reshape(len(targets), -1)


def _choose(
    path: RidgePath,
    vectors: np.ndarray,
    values: np.ndarray,
    reach: np.ndarray,
    horizon: int,
    penalties: Sequence[float],
) -> float:
    """The first penalty with the least RMSE + MAE over the validation part's known values."""
    square, size = np.zeros(len(penalties)), np.zeros(len(penalties))
    count = 0
    for some in _portions(_origins(reach, horizon), horizon * values.shape[2]):
        rotated = path.rotate(_inputs(vectors, some))
        truth = _flat(_following(values, some, horizon))
        missing = np.isnan(truth)
        holes = bool(missing.any())
        count += truth.size - int(missing.sum())
        for at, penalty in enumerate(penalties):
            error = path.predict(rotated, penalty)
            error -= truth
            if holes:
                error[missing] = 0
            square[at] += np.vdot(error, error)
            size[at] += np.abs(error, out=error).sum()
    if count == 0:
        raise DataError(
            f"No step of the validation part is followed by {horizon} steps of which any is known; "
            f"give a shorter horizon or a longer part."
        )
    return penalties[int(np.argmin(np.sqrt(square / count) + size / count))]
