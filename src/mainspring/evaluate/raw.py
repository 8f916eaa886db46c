"""Features without a network: cheap, fixed, and as strong as a page of numpy allows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch.nn.functional import adaptive_avg_pool2d

from mainspring.encoders.logmel import mel_filters
from mainspring.errors import unknown

GRID = 8
COLOUR_GRID = 4
BANDS = 64
BUCKETS = 1024
POINTS = 32
LAGS = (1, 2, 4, 8, 16, 32)
FLOOR = 1e-10


def raw_features(
    stream: str,
    samples: np.ndarray,
    present: Bool[np.ndarray, "n time"],
    rate: float | None = None,
) -> Float32[np.ndarray, "n dim"]:
    """Features of clips as the reader delivers them.

    Args:
        stream: video, audio, series or text.
        samples: (n, time, ...); NaN in a series is missing.
        present: False where a position was padding.
        rate: Samples per second of sound (for the mel scale); 16 kHz unless given.

    Raises:
        ConfigError: For any other stream.
    """
    if stream == "video":
        return video_features(samples, present)
    if stream == "audio":
        return audio_features(samples, present, rate or 16_000.0)
    if stream == "series":
        return series_features(samples, present)
    if stream == "text":
        return text_features(samples, present)
    raise unknown("stream", stream, ("video", "audio", "series", "text"))


def text_features(
    samples: Int64[np.ndarray, "n time"], present: Bool[np.ndarray, "n time"]
) -> Float32[np.ndarray, "n dim"]:
    """How often each of `BUCKETS` kinds of words stands in a sentence, 0 being no word."""
    counts = np.zeros((len(samples), BUCKETS), np.float32)
    row, place = np.nonzero((samples > 0) & present)
    np.add.at(counts, (row, samples[row, place] % BUCKETS), 1.0)
    return counts


def video_features(
    samples: np.ndarray, present: Bool[np.ndarray, "n time"]
) -> Float32[np.ndarray, "n dim"]:
    """What is seen and how it changes, coarsely.

    The colours of the mean picture on a 4 x 4 grid; grey values of every frame on an 8 x 8 grid;
    their differences from frame to frame, signed, and the mean of their sizes at each place.
    Padding is black.
    """
    grey, colour = [], []
    for clip, real in zip(samples, present, strict=True):
        frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
        if clip.dtype == np.uint8:
            frames /= 255
        frames *= torch.from_numpy(real)[:, None, None, None]
        grey.append(adaptive_avg_pool2d(frames.mean(1, keepdim=True), GRID).flatten(1).numpy())
        colour.append(adaptive_avg_pool2d(frames.mean(0), COLOUR_GRID).flatten().numpy())
    levels = np.stack(grey)
    change = np.diff(levels, axis=1)
    motion = np.abs(change).sum(axis=1) / max(1, change.shape[1])
    parts = [np.stack(colour), levels.reshape(len(levels), -1), change.reshape(len(levels), -1)]
    return np.concatenate([*parts, motion], axis=1).astype(np.float32)


def audio_features(
    samples: Float32[np.ndarray, "n time"], present: Bool[np.ndarray, "n time"], rate: float
) -> Float32[np.ndarray, "n dim"]:
    """Mean and standard deviation over time of 64 log-mel bands and of their changes.

    Frames of 25 ms every 10 ms, Hann window; padding is silence.
    """
    size = max(32, round(0.025 * rate))
    hop = max(1, round(0.010 * rate))
    sound = np.where(present, samples, 0).astype(np.float32)
    if sound.shape[1] < size:
        sound = np.pad(sound, ((0, 0), (0, size - sound.shape[1])))
    frames = np.lib.stride_tricks.sliding_window_view(sound, size, axis=1)[:, ::hop]
    window = np.hanning(size).astype(np.float32)
    points = 2 ** int(np.ceil(np.log2(size)))
    bank = mel_filters(rate, points, BANDS).T
    # One clip at a time: the frames overlap, and all of them at once would be large.
    bands = np.stack(
        [np.log(np.abs(np.fft.rfft(f * window, points)) ** 2 @ bank + FLOOR) for f in frames]
    )
    change = np.diff(bands, axis=1) if bands.shape[1] > 1 else np.zeros_like(bands)
    parts = [bands.mean(1), bands.std(1), change.std(1), np.abs(change).mean(1)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def series_features(
    samples: Float32[np.ndarray, "n time channel"], present: Bool[np.ndarray, "n time"]
) -> Float32[np.ndarray, "n dim"]:
    """For each channel: mean, deviation, least, largest, share missing, autocorrelation at lags of
    1 to 32 steps, and 32 values evenly spaced over the present stretch (gaps filled linearly)."""
    rows = [
        np.concatenate([_channel(clip[:, c], real) for c in range(clip.shape[1])])
        for clip, real in zip(samples.astype(np.float64), present, strict=True)
    ]
    return np.stack(rows).astype(np.float32)


def _channel(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Features of one channel of one clip; zeros where nothing is known."""
    inside = np.flatnonzero(present)
    known = np.flatnonzero(present & np.isfinite(values))
    if len(known) == 0:
        return np.concatenate([[0, 0, 0, 0, 1], np.zeros(len(LAGS) + POINTS)])
    seen = values[known]
    mean, deviation = seen.mean(), seen.std()
    summary = [mean, deviation, seen.min(), seen.max(), 1 - len(known) / len(inside)]
    # Missing values weigh nothing: both ends of a lag must be known.
    centred = np.zeros(len(values))
    centred[known] = seen - mean
    there = np.zeros(len(values))
    there[known] = 1
    correlation = []
    for lag in LAGS:
        pairs = (there[:-lag] * there[lag:]).sum() if lag < len(values) else 0
        if pairs == 0 or deviation < 1e-12:
            correlation.append(0.0)
        else:
            product = (centred[:-lag] * centred[lag:]).sum() / pairs
            correlation.append(product / deviation**2)
    at = np.linspace(inside[0], inside[-1], POINTS)
    return np.concatenate([summary, correlation, np.interp(at, known, seen)])
