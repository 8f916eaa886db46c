"""What the encoder finds alike: windows beside their nearest neighbours from other groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mainspring.clips import fit
from mainspring.encoders.logmel import mel_filters
from mainspring.errors import DataError, unknown
from mainspring.evaluate.drawing import BAD, GOOD, INK, PALETTE, QUIET, canvas, short, unit
from mainspring.evaluate.embed import Reads, Recordings
from mainspring.evaluate.neighbours import nearest
from mainspring.evaluate.vectors import Vectors, known

FRAMES = 4
SOUND = 2**19
"""Samples of sound looked at, at most: of a longer window the middle."""

VALUES = 500
COLUMNS = 160
BANDS = 64
DECIBELS = 60.0
CHANNELS = 6


class Found(NamedTuple):
    """A row of the gallery: a window and its neighbours, all rows of the vectors."""

    query: int
    neighbours: list[int]
    scores: list[float]


def retrieval_gallery(
    vectors: Vectors,
    reader: Reads,
    catalogue: Recordings,
    queries: int = 6,
    k: int = 5,
    seed: int = 0,
) -> Figure:
    """Windows drawn by lot, each with its k nearest from other groups, one of a recording.

    Four frames of a video in reading order, the spectrogram of a sound (mel scale, 60 dB, low
    tones at the bottom), the curves of a series. Where both labels are known, neighbours of the
    query's label have a green frame and a tick, others a red one and a cross.

    Args:
        vectors: Where to look.
        reader: Reads what is shown.
        catalogue: What `vectors.rows` are rows of.
        queries: Rows of the picture, from different groups and, in turn, all labels.
        k: Neighbours of each.
        seed: Which windows ask.

    Raises:
        ConfigError: If there is no picture of such a stream.
        DataError: If there are fewer than two groups.
    """
    if vectors.stream not in _PICTURES:
        raise unknown("stream for a gallery", vectors.stream, _PICTURES)
    rows = find(vectors, queries, k, np.random.default_rng(seed))
    narrow = 0.06
    tall = 2.05 if vectors.stream == "video" else 1.7
    with canvas(0.35 + tall * len(rows)) as figure:
        grid = figure.add_gridspec(len(rows), k + 2, width_ratios=[1, narrow] + [1] * k)
        right = shown = 0
        for line, found in enumerate(rows):
            label = vectors.labels[found.query]
            axes = figure.add_subplot(grid[line, 0])
            _tile(axes, vectors, found.query, reader, catalogue, "query", INK)
            for place, (row, score) in enumerate(zip(found.neighbours, found.scores, strict=True)):
                axes = figure.add_subplot(grid[line, place + 2])
                mark, colour = "", QUIET
                if label is not None and vectors.labels[row] is not None:
                    same = vectors.labels[row] == label
                    mark, colour = (" ✓", GOOD) if same else (" ✗", BAD)
                    right, shown = right + same, shown + 1
                text = f"{score:.3f}{mark}"
                _tile(axes, vectors, row, reader, catalogue, text, colour)
        title = f"{len(rows)} {unit(vectors)} and the nearest to each from other groups"
        if shown:
            title = f"{right} of {shown} neighbours share the query's label"
            title += f" (by chance about {_chance(vectors, rows) * shown:.0f})"
        figure.suptitle(title, x=0.005, ha="left", fontsize=11, fontweight="bold")
    return figure


def find(vectors: Vectors, queries: int, k: int, rng: np.random.Generator) -> list[Found]:
    """Windows from different groups, labels in turn, and their neighbours from other groups.

    Raises:
        DataError: If there are fewer than two groups.
    """
    sides = vectors.sides
    order = rng.permutation(np.flatnonzero(np.isfinite(vectors.matrix).all(axis=1)))
    asked: dict[str | None, list[int]] = {}
    seen = set()
    for row in order:
        if sides[row] not in seen:
            seen.add(sides[row])
            asked.setdefault(vectors.labels[row], []).append(int(row))
    if len(seen) < 2:
        raise DataError("A gallery needs windows of at least two groups.")
    turns = [
        row
        for turn in range(max(map(len, asked.values())))
        for waiting in asked.values()
        for row in waiting[turn : turn + 1]
    ]
    chosen = np.array(turns[:queries])
    kept = np.sort(order)
    index, score = nearest(
        vectors.matrix[chosen], vectors.matrix[kept], len(kept), sides[chosen], sides[kept]
    )
    rows = []
    for query, near, values in zip(chosen, index, score, strict=True):
        best: dict[int, tuple[int, float]] = {}
        for at, value in zip(near, values, strict=True):
            if at < 0 or len(best) == k:
                break
            best.setdefault(int(vectors.rows[kept[at]]), (int(kept[at]), float(value)))
        neighbours, scores = zip(*best.values(), strict=True)
        rows.append(Found(int(query), list(neighbours), list(scores)))
    return rows


def _chance(vectors: Vectors, rows: list[Found]) -> float:
    """Share of windows of the query's label among those of other groups that have a label."""
    there = known(vectors.labels)
    shares = []
    for found in rows:
        others = there & (vectors.sides != vectors.sides[found.query])
        label = vectors.labels[found.query]
        if label is not None and others.any():
            shares.append(float((vectors.labels[others] == label).mean()))
    return float(np.mean(shares))


def _tile(
    axes: Axes,
    vectors: Vectors,
    row: int,
    reader: Reads,
    catalogue: Recordings,
    text: str,
    colour: str,
) -> None:
    """One window: picture, where it is from, and a frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    try:
        _PICTURES[vectors.stream](axes, *_read(vectors, row, reader, catalogue))
    except (DataError, OSError, ValueError) as error:
        axes.text(0.5, 0.5, short(f"cannot be read: {error}", 60), ha="center", va="center",
                  wrap=True, fontsize=7, transform=axes.transAxes)  # fmt: skip
    axes.set_box_aspect(0.75 if vectors.stream != "video" else 1)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=3)
    name = str(vectors.uris[row]).replace("\\", "/").rsplit("/", 1)[-1]
    span = f"{vectors.starts[row]:.1f} to {vectors.ends[row]:.1f}"
    span += "" if vectors.stream == "series" else " s"  # not all series have a clock
    label = vectors.labels[row]
    head = text if label is None else f"{short(str(label), 14)} · {text}"
    axes.set_title(head, fontsize=9, fontweight="bold", color=colour, pad=4, loc="left")
    axes.set_xlabel(f"{short(name, 21)}\n{span}", fontsize=7.5, color=QUIET, labelpad=4)


def _read(
    vectors: Vectors, row: int, reader: Reads, catalogue: Recordings
) -> tuple[np.ndarray, float]:
    """Samples of a window, without the axis of views, and how many a second they are."""
    stream = vectors.stream
    recording = catalogue[int(vectors.rows[row])]
    extent = reader.timeline(recording)[stream]
    first = round((vectors.starts[row] - recording.start) * extent.rate)
    last = max(first + 1, round((vectors.ends[row] - recording.start) * extent.rate)) - 1
    count = last - first + 1
    stride = 1
    if stream == "video":
        positions = np.linspace(first, last, min(FRAMES, count)).round().astype(np.int64)
    elif stream == "audio":
        count = min(count, SOUND)
        positions = np.arange(count) + (first + last + 1 - count) // 2
    else:
        stride = math.ceil(count / VALUES)
        positions = np.arange(first, last + 1, stride)
    positions = fit(positions, extent.length)
    samples = reader.read(recording, {stream: positions[None]})[stream][0]
    return samples, extent.rate / stride


def _frames(axes: Axes, frames: UInt8[np.ndarray, "time height width 3"], rate: float) -> None:
    """Frames two by two, in reading order."""
    height, width = frames.shape[1:3]
    across = min(2, len(frames))
    down = math.ceil(len(frames) / across)
    gap = max(1, height // 40)
    sheet = np.full((down * (height + gap) - gap, across * (width + gap) - gap, 3), 255, np.uint8)
    for at, frame in enumerate(frames):
        top, left = at // across * (height + gap), at % across * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    axes.imshow(sheet, interpolation="antialiased")


def _spectrogram(axes: Axes, sound: Float32[np.ndarray, "time"], rate: float) -> None:
    """Energy by time and mel band, in decibels below the loudest."""
    size = max(32, round(0.025 * rate))
    points = 2 ** (2 + math.ceil(math.log2(size)))  # so that no low band falls between bins
    sound = np.pad(sound, (0, max(0, size - len(sound))))
    hop = max(1, (len(sound) - size) // COLUMNS)
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    bank = mel_filters(rate, points, BANDS)
    power = np.abs(np.fft.rfft(frames * np.hanning(size), points)) ** 2 @ bank.T
    level = 10 * np.log10(power + 1e-10)
    top = max(float(level.max()), -60.0)  # silence stays dark
    axes.imshow(level.T, origin="lower", aspect="auto", cmap="magma", vmin=top - DECIBELS, vmax=top)


def _lines(axes: Axes, values: Float32[np.ndarray, "time channel"], rate: float) -> None:
    """Each channel a line, the first six of them; gaps where values are missing."""
    seconds = np.arange(len(values)) / rate
    for channel in range(min(CHANNELS, values.shape[1])):
        dots = "." if len(values) == 1 else ""
        axes.plot(seconds, values[:, channel], color=PALETTE[channel], linewidth=1, marker=dots)


_PICTURES: dict[str, Callable[[Axes, np.ndarray, float], None]] = {
    "video": _frames,
    "audio": _spectrogram,
    "series": _lines,
}
