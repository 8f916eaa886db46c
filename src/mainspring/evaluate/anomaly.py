"""Finding anomalous steps by masking the last one, in the protocol of TS2Vec.

Yue et al. (AAAI 2022, Section 4.3 and the released protocol): how much the vector of a step changes
when the step itself is hidden says how far it is from what its past makes likely.

    values = prepare(series, half, difference=1)
    errors = masking_errors(encode, values)
    hits = detect(errors, half, delay=7)
    score([hits], [labels[half:]], delay=7).f1

A hit counts for a whole anomalous segment if it comes within `delay` steps of the segment's start
(Ren et al., "Time-series anomaly detection service at Microsoft", KDD 2019). This adjustment
flatters any detector, so the result stands beside what as many hits at random places would get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from mainspring.errors import ConfigError, DataError

PAST = 200
"""Steps before the last one in each window that is encoded."""

AROUND = 21
"""Steps of the moving mean that errors are compared with."""

DEVIATIONS = 4.0
"""The threshold lies so many standard deviations above the mean."""

COLD_SHARE = 10
"""Without a train part, a tenth of the series is looked at before anything is reported."""

Encode = Callable[[np.ndarray, bool], np.ndarray]
"""(windows (n, time, channel), whether the last step is masked) to one vector a window (n, dim)."""


@dataclass(frozen=True)
class AnomalyScore:
    """How well anomalous steps were found.

    Attributes:
        precision: Share of the steps reported that are anomalous.
        recall: Share of the anomalous steps that were reported.
        f1: Harmonic mean of both.
        chance: F1 of as many hits at random places in each series, a mean over draws.
        anomalous: Share of steps that are anomalous.
    """

    precision: float
    recall: float
    f1: float
    chance: float
    anomalous: float

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)


def prepare(
    values: Float[np.ndarray, "time *channel"], train: int, difference: int = 0
) -> Float64[np.ndarray, "time channel"]:
    """Differenced and standardised by train.

    The protocol differences until an augmented Dickey-Fuller test on train rejects a unit root at
    p <= .05; no such test is among our dependencies, so say how often (`statsmodels` has one:
    `adfuller(values[:train])[1]`). Levels that wander need 1, most others 0.

    Args:
        values: One series; NaN is missing.
        train: Its first steps, by which it is standardised.
        difference: How often each value is replaced by its change from the step before. As many
            first steps become missing, so that labels stay in place.

    Raises:
        DataError: If a channel has no known value in train.
    """
    series = values.astype(np.float64).reshape(len(values), -1)
    for _ in range(difference):
        series = np.concatenate([np.full((1, series.shape[1]), np.nan), np.diff(series, axis=0)])
    known = ~np.isnan(series[:train])
    count = known.sum(axis=0)
    if (count == 0).any():
        raise DataError(
            f"{int((count == 0).sum())} of {len(count)} channels have no known value in the first "
            f"{train} steps (differenced {difference} times)."
        )
    mean = np.where(known, series[:train], 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, series[:train] - mean, 0) ** 2).sum(axis=0) / count)
    return (series - mean) / np.where(spread > 1e-12 * np.abs(mean), spread, 1.0)


def masking_errors(
    encode: Encode,
    values: Float[np.ndarray, "time channel"],
    past: int = PAST,
    batch: int = 256,
) -> Float64[np.ndarray, "time"]:
    """For each step the L1 distance of its vector with and without the step masked.

    Args:
        encode: Given windows that end with the step in question (float32, NaN before the series'
            beginning) and whether that step is masked, returns the vectors of the last step.
        values: One series.
        past: Steps before the last in a window.
        batch: Windows at a time.
    """
    before = np.full((past, values.shape[1]), np.nan, np.float32)
    padded = np.concatenate([before, values.astype(np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, past + 1, axis=0)
    found = np.empty(len(values))
    for at in range(0, len(values), batch):
        some = windows[at : at + batch].swapaxes(1, 2).copy()
        plain, masked = (encode(some, hidden).astype(np.float64) for hidden in (False, True))
        found[at : at + batch] = np.abs(plain - masked).sum(axis=1)
    return found


def adjusted(
    errors: Float64[np.ndarray, "time"], around: int = AROUND
) -> Float64[np.ndarray, "time"]:
    """Errors relative to the mean of the `around` errors before; NaN for the first ones."""
    found = np.full(len(errors), np.nan)
    if len(errors) > around:
        means = np.lib.stride_tricks.sliding_window_view(errors, around)[:-1].mean(axis=1)
        # Of nothing before, anything is infinitely more; nothing is no more.
        with np.errstate(divide="ignore", invalid="ignore"):
            found[around:] = (errors[around:] - means) / means
    return found


def detect(
    errors: Float64[np.ndarray, "time"], train: int, delay: int
) -> Bool[np.ndarray, "asked"]:
    """Which steps after the train part are reported.

    Those whose adjusted error lies more than 4 standard deviations above the mean of train, but
    for hits that follow another within `delay` steps. Where train has no error at all, those whose
    errors come out of nothing.

    Args:
        errors: Of train and what follows.
        train: Steps of the train part.
        delay: Steps; the protocol takes 3 for Yahoo's daily and hourly series and 7 for KPI's
            series by the minute.

    Raises:
        DataError: If train is too short for a threshold.
    """
    relative = adjusted(errors)
    if train > AROUND + 2 and not errors[:train].any():
        return suppressed(np.isposinf(relative[train:]), delay)
    # The first mean over a full window is also left out, as in the protocol.
    seen = relative[AROUND + 1 : train]
    seen = seen[np.isfinite(seen)]
    if len(seen) < 2:
        raise DataError(
            f"A threshold needs more than {AROUND + 2} steps of train with an error, but train has "
            f"{train} steps, of which {len(seen)} can be used."
        )
    threshold = seen.mean() + DEVIATIONS * seen.std()
    return suppressed(relative[train:] > threshold, delay)


def detect_cold(errors: Float64[np.ndarray, "time"], delay: int) -> Bool[np.ndarray, "asked"]:
    """Which steps after the first tenth are reported, without a train part.

    As `detect`, but the threshold of a step is taken from the errors up to it.

    Returns:
        One entry for each step from `len(errors) // 10` on.
    """
    relative = adjusted(errors)
    least = len(errors) // COLD_SHARE
    known = np.isfinite(relative)
    count = np.cumsum(known)
    values = np.where(known, relative, 0)
    # About the mean, so that squares lose no digits.
    centre = values.sum() / max(1, count[-1]) if len(count) else 0.0
    values = np.where(known, values - centre, 0)
    share = np.maximum(count, 1)
    mean = np.cumsum(values) / share
    spread = np.sqrt(np.maximum(np.cumsum(values**2) / share - mean**2, 0))
    over = (values > mean + DEVIATIONS * spread) & (count >= max(1, least))
    over |= np.isposinf(relative) & (count >= max(1, least))
    return suppressed(over & ~np.isnan(relative), delay)[least:]


def suppressed(hits: Bool[np.ndarray, "time"], delay: int) -> Bool[np.ndarray, "time"]:
    """Hits without those that follow a kept one within `delay` steps.

    The first `delay` steps are kept as they are: so it is in the released protocol.
    """
    found = hits.copy()
    for at in np.flatnonzero(hits):
        if at >= delay and found[at - delay : at].any():
            found[at] = False
    return found


def point_adjusted(
    hits: Bool[np.ndarray, "time"], labels: Bool[np.ndarray, "time"], delay: int
) -> Bool[np.ndarray, "time"]:
    """Each anomalous segment as a whole: found if a hit lies within `delay` steps of its start."""
    found = hits.copy()
    edges = np.flatnonzero(np.diff(labels.astype(np.int8), prepend=0, append=0))
    for start, end in edges.reshape(-1, 2):
        found[start:end] = hits[start : min(start + delay + 1, end)].any()
    return found


def on_grid(
    timestamps: np.ndarray, values: Bool[np.ndarray, "time"]
) -> Bool[np.ndarray, "regular"]:
    """Values at regular times, the least interval apart; False where a timestamp is missing.

    Raises:
        DataError: If two timestamps are equal.
    """
    order = np.argsort(timestamps, kind="stable")
    times = timestamps[order].astype(np.int64)
    if len(times) < 2:
        return values.copy()
    interval = np.diff(times).min()
    if interval <= 0:
        raise DataError("Two steps have the same timestamp; keep one of them.")
    at = (times - times[0]) // interval
    found = np.zeros(int(at[-1]) + 1, bool)
    found[at] = values[order]
    return found


def score(
    hits: Sequence[Bool[np.ndarray, "_"]],
    labels: Sequence[np.ndarray],
    delay: int,
    timestamps: Sequence[np.ndarray] | None = None,
    draws: int = 20,
    seed: int = 0,
) -> AnomalyScore:
    """Precision, recall and F1 over the steps of all series together, adjusted by segment.

    Args:
        hits: Steps reported, one array a series.
        labels: True (or 1) where anomalous.
        delay: Steps after a segment's start in which a hit counts.
        timestamps: With them, steps are first laid on a regular grid (missing ones are normal).
        draws: Draws of random hits for `chance`.
        seed: Of these draws.

    Raises:
        ConfigError: If numbers of series or steps differ.
        DataError: If a timestamp occurs twice.
    """
    sizes = [[len(each) for each in part] for part in (hits, labels, timestamps or labels)]
    if sizes.count(sizes[0]) != 3:
        raise ConfigError(
            f"Hits, labels and timestamps must be of the same lengths, not {sizes[0]}, {sizes[1]} "
            f"and {sizes[2]}."
        )
    truth = [each.astype(bool) for each in labels]
    told = list(hits)
    if timestamps is not None:
        told = [on_grid(t, each) for t, each in zip(timestamps, told, strict=True)]
        truth = [on_grid(t, each) for t, each in zip(timestamps, truth, strict=True)]
    rng = np.random.default_rng(seed)
    lucky = [_measure([rng.permutation(each) for each in told], truth, delay) for _ in range(draws)]
    precision, recall, f1 = _measure(told, truth, delay)
    return AnomalyScore(
        precision=precision,
        recall=recall,
        f1=f1,
        chance=float(np.mean([luck[2] for luck in lucky])) if lucky else float("nan"),
        anomalous=float(np.concatenate(truth).mean()),
    )


def _measure(
    told: list[np.ndarray], truth: list[np.ndarray], delay: int
) -> tuple[float, float, float]:
    """Precision, recall and F1; 0 where there is nothing to divide by."""
    found = np.concatenate([point_adjusted(a, b, delay) for a, b in zip(told, truth, strict=True)])
    wanted = np.concatenate(truth)
    right = int((found & wanted).sum())
    precision = right / max(1, int(found.sum()))
    recall = right / max(1, int(wanted.sum()))
    return precision, recall, 2 * right / max(1, int(found.sum()) + int(wanted.sum()))
