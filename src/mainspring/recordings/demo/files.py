"""Frames, samples and trajectories to bytes: MP4 with H.264 and AAC, and CSV."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, Float32, UInt8

from mainspring.recordings.demo.physics import STEPS, Motion
from mainspring.recordings.demo.picture import FPS
from mainspring.recordings.demo.sound import RATE

SERIES_RATE = 40  # rows a second
SERIES_COLUMNS = ("x0", "y0", "turn0", "x1", "y1", "turn1")
GOP = 48  # frames from one key frame to the next: long, as cameras have it


def encode(
    frames: UInt8[np.ndarray, "frames rows columns 3"], samples: Float32[np.ndarray, " samples"]
) -> bytes:
    """Makes an MP4 of a film and its sound.

    Args:
        frames: RGB, `FPS` a second.
        samples: Mono, `RATE` a second.

    Returns:
        The file's bytes; the same on every call.
    """
    memory = io.BytesIO()
    # bitexact leaves the library's version out of the file.
    with av.open(memory, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        picture = container.add_stream("libx264", rate=FPS)
        picture.height, picture.width = frames.shape[1:3]
        picture.pix_fmt = "yuv420p"
        picture.codec_context.thread_count = 1  # the pool already fills the cores
        # x264's macroblock tree makes other bytes on some runs, even in one thread (seen in about
        # one of ten with x264 as PyAV 18 ships it, in none of 40 without).
        picture.options = {
            "preset": "veryfast",
            "crf": "22",
            "g": str(GOP),
            "x264-params": "no-mbtree=1",
        }
        sound = container.add_stream("aac", rate=RATE, layout="mono", bit_rate=48_000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        heard = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(sound.encode(heard))
        container.mux(sound.encode())
    return memory.getvalue()


def trajectory(
    places: Float[np.ndarray, "2 times 2"], motion: Motion, rng: np.random.Generator
) -> Float[np.ndarray, "rows 6"]:
    """The recording as a series of six channels, with missing stretches.

    Args:
        places: Centres in the picture, px.
        motion: For the balls' orientation.
        rng: Draws the sensor's noise and what is missing.

    Returns:
        One row each 1/`SERIES_RATE` s, columns as `SERIES_COLUMNS`, NaN where a sensor was blind:
        up to three stretches of 0.1 to 0.4 s in each channel, on their own.
    """
    rows = (motion.angle.shape[1] - 1) * SERIES_RATE // STEPS
    steps = np.arange(rows) * (STEPS // SERIES_RATE)
    channels = []
    for which in (0, 1):
        channels += [places[which, steps, 0], places[which, steps, 1]]
        channels.append(np.sin(motion.angle[which, steps]))
    series = np.stack(channels, axis=1)
    series += rng.standard_normal(series.shape) * np.array([0.3, 0.3, 0.03] * 2)
    for channel in range(series.shape[1]):
        for _ in range(int(rng.integers(4))):
            length = int(rng.integers(SERIES_RATE // 10, SERIES_RATE * 4 // 10 + 1))
            begin = int(rng.integers(max(1, rows - length + 1)))
            series[begin : begin + length, channel] = np.nan
    return series


def as_csv(series: Float[np.ndarray, "rows 6"]) -> bytes:
    """Writes a series with a header and a time column in seconds; missing values are empty."""
    lines = ["time," + ",".join(SERIES_COLUMNS)]
    for row, values in enumerate(series.tolist()):
        cells = ["" if value != value else f"{value:.3f}" for value in values]
        lines.append(f"{row / SERIES_RATE:.3f}," + ",".join(cells))
    return ("\n".join(lines) + "\n").encode()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is either there in full or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
