"""Forecasts of long series from frozen vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from mainspring.api.data import sparing
from mainspring.api.series import Values, both, read_whole, say, with_series
from mainspring.api.vectors import load
from mainspring.clips import ClipSpec
from mainspring.encoders.patch_transformer import PatchTransformer
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import per_step
from mainspring.evaluate.calendar import calendar_features
from mainspring.evaluate.forecast_baselines import forecast_baselines
from mainspring.evaluate.forecasting import (
    Forecast,
    chronological,
    standardise,
)
from mainspring.evaluate.forecasting import forecast as forecast_steps
from mainspring.evaluate.patch_forecast import patch_forecast
from mainspring.evaluate.verdict import TRAINED
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.series import moments
from mainspring.training.progress import Log
from mainspring.training.run import Run

HORIZONS = (24, 48, 168, 336, 720)
CONTEXT = 200
"""Steps before its own that a vector for forecasting has seen (TS2Vec, Section 4.2)."""


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of the test part.

    Attributes:
        arms: For each method and horizon how far it was off.
        notes: What a reader of the numbers should know.
        problems: For each recording that could not be used, its name and the reason.
    """

    arms: dict[str, dict[int, Forecast]]
    notes: list[str]
    problems: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        arms = {
            arm: {str(horizon): found.to_dict() for horizon, found in by.items()}
            for arm, by in self.arms.items()
        }
        return {"arms": arms, "notes": self.notes, "problems": self.problems}


def forecast(
    run: str | Path,
    data: Any,
    *,
    parts: Sequence[float] = (0.6, 0.2, 0.2),
    horizons: Sequence[int] = (),
    context: int | None = None,
    period: int | None = None,
    scale: bool = False,
    calendar: bool = False,
    quick: bool = False,
    log: Log | None = None,
) -> Forecasts:
    """Ridge regression from each step's vector to the values that follow, beside persistence, the
    season before, the mean and ridge regression on the raw values; writes forecast.json.

    Args:
        run: Run folder.
        data: One long series, or several that share one regression.
        parts: Train, validation and test: shares, or numbers of steps (`ETT_HOURLY`).
        horizons: Steps ahead; unless given those of 24, 48, 168, 336 and 720 that fit twice into
            validation and into test.
        context: Steps before its own that a vector has seen: 200 unless given. For an encoder of
            patches (`patch_transformer`), which `patch_forecast` reads in PatchTST's way: the
            window's steps but one, as many as it was trained with unless given.
        period: Steps of a season, for the baseline; guessed from train unless given.
        scale: Standardise by train before encoding, as TS2Vec does. For encoders that take values
            as they are (`normalise="none"`) and learnt from standardised ones.
        calendar: Append the seven features of `calendar_features`, standardised by train, to what
            the encoder reads. For encoders that learnt from arrays with these seven columns last,
            and not for one of patches, which looks at each channel by itself.
        quick: Leave random weights out.
        log: Where to say how far it is.

    Raises:
        DataError: If the series do not fit the encoder, or a part is too short.
        ConfigError: If parts or horizons do not fit the data, horizons or period are below 1, or
            an encoder of patches is given a calendar.
    """
    if min(horizons, default=1) < 1 or (period is not None and period < 1):
        raise ConfigError(
            f"horizons are {', '.join(map(str, horizons)) or 'not given'} and period is {period}; "
            "each is a number of steps, at least 1."
        )
    saved = load(run, "series")
    patches = isinstance(saved.encoder, PatchTransformer)
    if calendar and patches:
        raise ConfigError(
            f"calendar is given, but the encoder of {run} is of patches, which looks at each "
            "channel by itself: a calendar would change nothing. Leave it out, or take an encoder "
            "such as dilated."
        )
    found, problems = with_series(data, log)
    values, splits = _instances(read_whole(found, saved.clip), parts)
    chosen = tuple(horizons) or _fitting(splits.valid, splits.test)
    inputs = standardise(values, splits.train)[0].astype(np.float32) if scale else values
    if calendar:
        told = _calendar(found, saved.clip, values.shape[1], splits.train)
        inputs = np.concatenate([inputs, told], axis=2)
    encoders = {TRAINED: saved.encoder} if quick else both(saved.encoder, 0)
    own = int(saved.encoder.settings["context"]) - 1 if patches else CONTEXT
    past = own if context is None else context
    arms: dict[str, dict[int, Forecast]] = {}
    for name, encoder in encoders.items():
        say(log, f"forecasting by {name}")
        if isinstance(encoder, PatchTransformer):
            arms[name] = patch_forecast(encoder, values, splits, chosen, past + 1)
        else:
            vectors = np.stack(per_step.steps(encoder, list(inputs), context=past))
            arms[name] = forecast_steps(vectors, values, splits, chosen, drop=past)
    say(log, "forecasting without an encoder")
    arms |= forecast_baselines(values, splits, chosen, period=period, window=past + 1, drop=past)
    result = Forecasts(arms, _learnt_from(run, data), problems)
    with sparing(log, "forecast.json"):
        Run(run).write_json("forecast.json", result.to_dict())
    return result


def _instances(
    series: list[Values], parts: Sequence[float]
) -> tuple[Float32[np.ndarray, "n time channel"], Any]:
    """Series of one length, and its split."""
    lengths = [len(values) for values in series]
    if all(part >= 1 for part in parts):
        # What lies after the last part is not used, so that lengths may differ there.
        lengths = [min(length, int(sum(parts))) for length in lengths]
        series = [values[: int(sum(parts))] for values in series]
    if len({values.shape for values in series}) > 1:
        raise DataError(
            f"The series have {min(lengths)} to {max(lengths)} steps, but they share one split in "
            "time. Give parts in steps, such as --parts 600 200 200, that fit the shortest, or "
            "forecast them one by one."
        )
    return np.stack(series), chronological(lengths[0], parts)


def _fitting(valid: slice, test: slice) -> tuple[int, ...]:
    room = min(valid.stop - valid.start, test.stop - test.start) // 2
    chosen = tuple(horizon for horizon in HORIZONS if horizon <= room)
    if not chosen:
        raise ConfigError(
            f"Validation and test have {2 * room} steps or few more, too few for a horizon of "
            f"{HORIZONS[0]}. Say how far ahead to look, such as --horizons {max(1, room // 2)}."
        )
    return chosen


def _calendar(
    found: Catalogue, clip: ClipSpec, time: int, train: slice
) -> Float32[np.ndarray, "n time 7"]:
    """Features of the moment of each step, one row a recording."""
    features = []
    for row in range(len(found)):
        recording = found[row]
        rate = recording.streams["series"].rate
        first = np.floor(recording.start * rate + 0.5)
        apart = clip.stride * rate / (clip.rate or rate)
        at = (first + np.floor(np.arange(time) * apart + 0.5)).astype(np.int64)
        known = moments(recording.source("series"))
        features.append(calendar_features(known[np.minimum(at, len(known) - 1)], train))
    return np.stack(features).astype(np.float32)


def _learnt_from(run: str | Path, data: Any) -> list[str]:
    """Whether the encoder may have seen the test part."""
    if not Run(run).learnt_from(data):
        return []
    return [
        f"the encoder was trained on all of {data}, the test part included (without its targets); "
        "to train on the train part alone, pretrain on a manifest of uri,start,end"
    ]
