"""Small media files for tests, written with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 25


def pictures(count: int, width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """Moving texture, different in every frame and every corner: uint8 (count, h, w, 3)."""
    rng = np.random.default_rng(seed)
    back = rng.integers(40, 200, (height // 8 + 1, width // 8 + 1, 3))
    back = back.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)
    frames = np.repeat(back[None], count, 0)
    for number, frame in enumerate(frames):
        x = (number * 3) % (width - 10)
        y = (number * 2) % (height - 10)
        frame[y : y + 10, x : x + 10] = [255, (number * 9) % 256, 0]
        frame[-6:, :6] = (number * 5) % 256
    return frames


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    rotation: float | None = None,
    hflip: bool = False,
    sound: np.ndarray | None = None,
    sound_rate: int = 16_000,
    sound_codec: str = "aac",
    sound_from: float = 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Writes frames at 25 a second, or at `ticks` of a 1/1000 s clock, with sound beside them."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec, rate=RATE, options=options or {})
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        if ticks is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            video.set_display_rotation(rotation, hflip=hflip)
        audio = None
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sound_rate, layout="mono")
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = int(ticks[number]), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            container.mux(encoded(audio, sound, sound_rate, sound_from))
    return path


def write_sounds(path: Path, sounds: list[np.ndarray], rate: int, codec: str = "aac") -> Path:
    """Writes a container with one sound track for each array."""
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream(codec, rate=rate, layout="mono") for _ in sounds]
        for track, sound in zip(tracks, sounds, strict=True):
            container.mux(encoded(track, sound, rate))
    return path


def encoded(
    track: av.AudioStream, sound: np.ndarray, rate: int, start: float = 0.0
) -> list[av.Packet]:
    """The packets of a mono sound whose first sample lies `start` seconds into the file."""
    packets = []
    for at in range(0, len(sound), 1024):
        part = np.ascontiguousarray(sound[None, at : at + 1024], dtype=np.float32)
        block = av.AudioFrame.from_ndarray(part, "fltp", "mono")
        block.sample_rate, block.time_base = rate, Fraction(1, rate)
        block.pts = at + round(start * rate)
        packets += track.encode(block)
    return packets + track.encode()


def clicks(seconds: float, rate: int, at: Sequence[float]) -> np.ndarray:
    """Silence with a 2 ms burst at each of the times."""
    sound = np.zeros(round(seconds * rate), dtype=np.float32)
    for time in at:
        begin, length = round(time * rate), round(0.002 * rate)
        sound[begin : begin + length] = 0.9 * np.cos(np.arange(length) * 0.9)
    return sound


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Noise without the highest frequencies, within [-0.5, 0.5]."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal(round(seconds * rate) + 31)
    smooth = np.convolve(raw, np.hanning(32) / 16, "valid")
    return np.clip(smooth * 0.4, -0.5, 0.5).astype(np.float32)
