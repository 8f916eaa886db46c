"""Forecasting from the tokens of patches: the linear probe of PatchTST."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64

from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import DataError
from mainspring.evaluate.forecasting import (
    Forecast,
    Splits,
    measure,
    standardise,
)
from mainspring.evaluate.ridge import NormalEquations, RidgePath

PATCH_ROWS = 40_000
"""Windows of one channel that the map from patches is fitted to, at most; a quarter checks it."""
PATCH_PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
WINDOWS_AT_ONCE = 64


def patch_forecast(
    encoder: PatchTransformer,
    data: Float32[np.ndarray, "n time channel"],
    splits: Splits,
    horizons: Sequence[int],
    window: int,
    seed: int = 0,
) -> dict[int, Forecast]:
    """The linear probe of PatchTST (Nie et al., ICLR 2023, Sections 3.1 and 4.2): one linear map,
    shared by all channels, from all tokens of a channel's window to what follows, both in the
    units of the window.

    The map is fitted in closed form (ridge; the paper trains it by gradients), its penalty chosen
    on validation by RMSE + MAE as in `mainspring.evaluate.forecasting.forecast`. In validation and
    test the windows reach back into what lies before. An origin of train counts for a channel where
    all its targets are known.

    Args:
        encoder: Runs on the device it is on.
        data: What to forecast, in its own units.
        splits: Stretches of time.
        horizons: Steps ahead.
        window: Steps of a window, the origin's own included.
        seed: Of which origins are used where there are more than `PATCH_ROWS`.

    Raises:
        DataError: If a part is too short, or nothing in it is known.
    """
    values, deviations = standardise(data, splits.train)
    rng = np.random.default_rng(seed)
    channels = values.shape[2]
    found = {}
    for horizon in horizons:
        origins = []
        for part, rows in ((splits.train, PATCH_ROWS), (splits.valid, PATCH_ROWS // 4)):
            steps = np.arange(max(part.start, window - 1), part.stop - horizon)
            if not len(steps):
                raise DataError(
                    f"No window of {window} steps is followed by {horizon} steps in the part of "
                    f"{part.stop - part.start} steps from {part.start} on. Give more data, a "
                    "shorter horizon or a shorter context."
                )
            grid = np.stack(np.meshgrid(np.arange(len(values)), steps, indexing="ij"))
            pairs = grid.reshape(2, -1)
            kept = min(pairs.shape[1], max(1, rows // channels))
            origins.append(pairs[:, np.sort(rng.choice(pairs.shape[1], kept, replace=False))])
        sums: NormalEquations | None = None
        for instances, steps in _portions(origins[0]):
            x, mean, scale = _patches(encoder, values, instances, steps, window)
            ahead = (_ahead(values, instances, steps, horizon) - mean) / scale
            whole = ~np.isnan(ahead).any(axis=1)
            sums = sums or NormalEquations(x.shape[1], horizon)
            sums.add(x[whole], ahead[whole])
        if sums is None or sums.rows < 2:
            raise DataError(
                f"No channel of train has {horizon} known steps in a row to learn from."
            )
        path = sums.solve()
        square, size = np.zeros(len(PATCH_PENALTIES)), np.zeros(len(PATCH_PENALTIES))
        count = 0
        for instances, steps in _portions(origins[1]):
            x, mean, scale = _patches(encoder, values, instances, steps, window)
            truth, x = _ahead(values, instances, steps, horizon), path.rotate(x)
            count += int((~np.isnan(truth)).sum())
            for at, penalty in enumerate(PATCH_PENALTIES):
                error = np.nan_to_num(path.predict(x, penalty) * scale + mean - truth)
                square[at] += (error**2).sum()
                size[at] += np.abs(error).sum()
        if count == 0:
            raise DataError(
                f"No step of the validation part is followed by {horizon} steps of which any is "
                "known; give a shorter horizon or a longer part."
            )
        score = np.sqrt(square / count) + size / count
        penalty = PATCH_PENALTIES[int(np.argmin(score))]

        def predict(
            instances: np.ndarray, steps: np.ndarray, horizon: int, path: RidgePath = path,
            penalty: float = penalty,
        ) -> Float64[np.ndarray, "row horizon channel"]:  # fmt: skip
            told = []
            for one, at in _portions(np.stack([instances, steps])):
                x, mean, scale = _patches(encoder, values, one, at, window)
                ahead = path.predict(path.rotate(x), penalty) * scale + mean
                told.append(ahead.reshape(len(at), channels, horizon).swapaxes(1, 2))
            return np.concatenate(told)

        found[horizon] = measure(predict, values, deviations, splits.test, horizon, penalty)
    return found


def _portions(origins: np.ndarray) -> list[np.ndarray]:
    count = origins.shape[1]
    return [origins[:, at : at + WINDOWS_AT_ONCE] for at in range(0, count, WINDOWS_AT_ONCE)]


def _patches(
    encoder: PatchTransformer,
    values: Float64[np.ndarray, "n time channel"],
    instances: np.ndarray,
    steps: np.ndarray,
    window: int,
) -> tuple[
    Float64[np.ndarray, "row width"], Float64[np.ndarray, "row 1"], Float64[np.ndarray, "row 1"]
]:
    """Tokens of each channel of the windows that end at these steps, a row a channel, and the mean
    and scale of each."""
    at = steps[:, None] + np.arange(1 - window, 1)
    # Before the beginning nothing is known; it is missing, so that patches keep their places.
    known = np.where((at >= 0)[..., None], values[instances[:, None], np.maximum(at, 0)], np.nan)
    device = next(encoder.parameters()).device
    samples = torch.from_numpy(known.astype(np.float32)).to(device)
    training = encoder.training
    encoder.eval()
    with torch.inference_mode():
        tokens = encoder.channel_tokens(samples).flatten(0, 1)
        units = [unit.transpose(1, 2).reshape(-1, 1) for unit in encoder.units(samples)]
    encoder.train(training)
    x, mean, scale = (part.double().cpu().numpy() for part in (tokens, *units))
    return x, mean, scale


def _ahead(
    values: Float64[np.ndarray, "n time channel"],
    instances: np.ndarray,
    steps: np.ndarray,
    horizon: int,
) -> Float64[np.ndarray, "row horizon"]:
    """What follows, a row a channel."""
    following = values[instances[:, None], steps[:, None] + np.arange(1, horizon + 1)]
    return following.swapaxes(1, 2).reshape(-1, horizon)
