"""Index arithmetic: every temporal transformation as operations on int64 positions.

A stream's positions count the samples of a regular grid that begins with the recording: position
p lies p / rate seconds after its start. Readers turn positions into seconds and seconds into
frames or samples, so variable frame rates, mixed frame rates and resampling need no care here.
The position -1 (`NOTHING`) means that there is no sample: padding, read as missing.

Nothing here knows of video or sound, touches a sample, or draws from global randomness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

NOTHING = -1

Positions = Int64[np.ndarray, "time"]
Clips = Int64[np.ndarray, "view time"]


@dataclass(frozen=True)
class Extent:
    """How far one stream of a recording reaches.

    Attributes:
        length: Number of positions.
        rate: Positions per second.
    """

    length: int
    rate: float

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.length / self.rate


@dataclass(frozen=True)
class Timeline:
    """What a pretext sees of a recording before anything is read: the extent of each stream."""

    extents: Mapping[str, Extent]

    def __getitem__(self, stream: str) -> Extent:
        return self.extents[stream]

    def __contains__(self, stream: object) -> bool:
        return stream in self.extents

    def meet(self, positions: np.ndarray, stream: str, other: str) -> np.ndarray:
        """The positions of `other` nearest in time to `positions` of `stream` (they meet in
        seconds). Padding stays padding; the result may lie past the end of `other`."""
        scale = self[other].rate / self[stream].rate
        met = np.floor(positions * scale + 0.5).astype(np.int64)
        return np.where(positions == NOTHING, NOTHING, met)


@dataclass(frozen=True)
class ClipSpec:
    """How a stream is cut into clips.

    Attributes:
        length: Samples in a clip.
        rate: Positions per second; None takes each recording's own rate.
        stride: Positions from one sample of a clip to the next at normal speed.
        size: Video only: height and width in pixels that the reader delivers.
        crop: Video only: height and width that the encoder sees; 0 means `size`.
    """

    length: int
    rate: float | None = None
    stride: int = 1
    size: int = 0
    crop: int = 0

    @property
    def span(self) -> int:
        """Positions from the first to the last sample of a clip, both counted."""
        return span(self.length, self.stride)


@dataclass
class Draw:
    """What a pretext wants to look at in one stream of one recording.

    Attributes:
        clips: Which positions, one row a view.
        factors: For each factor its value in each view, an array of shape (view,).
    """

    clips: Clips
    factors: dict[str, np.ndarray]


def span(length: int, stride: float) -> int:
    """Positions that a clip of `length` samples at `stride` covers, both ends counted."""
    return math.ceil((length - 1) * stride) + 1


def regular(start: float, length: int, stride: float = 1) -> Positions:
    """A clip at a regular, possibly fractional, stride: round(start + stride * [0 .. length))."""
    if isinstance(start, int) and isinstance(stride, int):
        return np.arange(start, start + length * stride, stride, dtype=np.int64)
    return np.floor(start + stride * np.arange(length) + 0.5).astype(np.int64)


def window(extent: int, length: int, stride: float, rng: np.random.Generator) -> Positions:
    """A clip at a uniformly drawn start within [0, extent).

    Raises:
        ValueError: If the clip does not fit.
    """
    room = extent - span(length, stride)
    if room < 0:
        raise ValueError(
            f"a clip of {length} samples at stride {stride} covers {span(length, stride)} "
            f"positions, but only {extent} are there"
        )
    return regular(int(rng.integers(room + 1)), length, stride)


def fit(positions: np.ndarray, extent: int, beyond: str = "hold") -> np.ndarray:
    """Brings positions that lie outside [0, extent) back in, by one of three rules.

    Args:
        positions: Any int64 positions.
        extent: Number of positions that exist, at least 1.
        beyond: "hold" repeats the first or last sample, "wrap" starts again, "nothing" pads.
    """
    outside = (positions < 0) | (positions >= extent)
    if beyond == "hold":
        return np.where(positions == NOTHING, NOTHING, np.clip(positions, 0, extent - 1))
    if beyond == "wrap":
        return np.where(positions == NOTHING, NOTHING, positions % extent)
    if beyond == "nothing":
        return np.where(outside, NOTHING, positions)
    raise ValueError(f"beyond must be hold, wrap or nothing, not {beyond!r}")


def excerpt(extent: int, length: int, stride: float, rng: np.random.Generator) -> Positions:
    """A window anywhere in [0, extent), or where there is too little for one all of it and padding
    after it."""
    clip = window(max(extent, span(length, stride)), length, stride, rng)
    return fit(clip, extent, "nothing")


def reverse(clip: np.ndarray) -> np.ndarray:
    """The clip played backwards. Its own inverse."""
    return clip[..., ::-1].copy()


def shift(clip: np.ndarray, by: int) -> np.ndarray:
    """The clip `by` positions later; padding stays padding."""
    return np.where(clip == NOTHING, NOTHING, clip + by)


def speed(clip: Positions, factor: float) -> Positions:
    """The clip `factor` times as fast from the same start (0.5 is half speed, 2 is double).

    Each step between samples is scaled, so speed(speed(c, a), b) equals speed(c, a * b) up to
    rounding. The result may reach beyond the recording; see `fit`.
    """
    if factor <= 0:
        raise ValueError(f"speed must be positive, not {factor}")
    return np.floor(clip[0] + (clip - clip[0]) * factor + 0.5).astype(np.int64)


def shuffle(clip: Positions, rng: np.random.Generator, directed: bool = False) -> Positions:
    """The clip in another order, drawn uniformly from all orders but the given one.

    Args:
        clip: At least two positions (three if `directed`).
        rng: Source of the order.
        directed: Also leave out the reversed order, where direction is a factor of its own.
    """
    count = len(clip)
    if count < (3 if directed else 2):
        raise ValueError(f"{count} positions have no other order to draw")
    identity = np.arange(count)
    while True:
        order = rng.permutation(count)
        if np.array_equal(order, identity):
            continue
        if directed and np.array_equal(order, identity[::-1]):
            continue
        return clip[order]


def odd_one_out(
    extent: int, length: int, stride: int, count: int, rng: np.random.Generator, reach: float = 1.5
) -> tuple[Clips, int]:
    """The question of odd-one-out networks: `count` clips of which one is out of order.

    Each clip's frames are drawn, in order, from a window `reach` times as long as the clip, as in
    O3N (Fernando et al., CVPR 2017) and the shuffle task of TaCo (Bai et al., Section 4.2.2: "we
    randomly sample 3t/2-frame clips"). Positions inside a window are drawn without replacement.

    Returns:
        clips: int64 (count, length).
        odd: Which of them is shuffled.
    """
    slots = max(length, int(length * reach))
    odd = int(rng.integers(count))
    rows = []
    for branch in range(count):
        frame = window(extent, slots, stride, rng)
        clip = frame[np.sort(rng.choice(slots, length, replace=False))]
        rows.append(shuffle(clip, rng) if branch == odd else clip)
    return np.stack(rows), odd


def crop_pair(
    extent: int, shortest: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "first"], Int64[np.ndarray, "second"], int]:
    """Two overlapping crops of a series, as TS2Vec draws them (Yue et al. 2022, Section 3.2).

    With a1 <= a2 < b1 <= b2, the crops are [a1, b1) and [a2, b2) and share [a2, b1).

    Args:
        extent: Length of the series.
        shortest: Least length of the shared part.
        rng: Source of the crops.

    Returns:
        The positions of both crops and the length of the shared part, which is the last so many
        positions of the first crop and the first so many of the second.
    """
    if extent < shortest:
        raise ValueError(f"a series of {extent} has no crops that share {shortest}")
    shared = int(rng.integers(shortest, extent + 1))
    a2 = int(rng.integers(extent - shared + 1))
    b1 = a2 + shared
    a1 = int(rng.integers(a2 + 1))
    b2 = int(rng.integers(b1, extent + 1))
    return np.arange(a1, b1), np.arange(a2, b2), shared


def windows(extent: int, length: int, hop: int) -> list[tuple[int, int]]:
    """Spans [start, stop) that cover [0, extent): every `hop`, the last one moved back to end
    with the recording, so that no sample is left out and none is made up.

    A recording shorter than `length` is one span.
    """
    if length <= 0 or hop <= 0:
        raise ValueError(f"length and hop must be positive, not {length} and {hop}")
    if extent <= length:
        return [(0, extent)]
    starts = list(range(0, extent - length + 1, hop))
    if starts[-1] + length < extent:
        starts.append(extent - length)
    return [(start, start + length) for start in starts]
