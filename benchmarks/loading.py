"""How many clips a second our reader gives, against decoding each view on its own.

    python benchmarks/loading.py                                  # the demo world's files
    python benchmarks/loading.py --data FOLDER --recordings 60    # a folder of videos

One run, one process, the same draws for all: a pretext with four views a recording of 8 frames
each, two windows, each of them forwards and either backwards or at another speed. Three ways:

- separately: each view on its own with PyAV, as a loader without knowledge of the other views
  would: jump to the key frame before its first frame, decode forwards with one thread to its last,
  bring the frames asked for to the working size with the decoder's scaler;
- streamed: `Reader` without a cache;
- cached: `Reader` with a cache that has been built (its building time is printed apart).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from mainspring import clips
from mainspring.clips import ClipSpec, Timeline
from mainspring.recordings.cache import Cache
from mainspring.recordings.demo.world import make_world
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.video import probe_media

FRAMES = 8
TURNS = 10
VIDEO_NAMES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".ts"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of videos; none: a demo world")
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--stride", type=int, default=4, help="positions between two frames")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seconds", type=float, default=10, help="time for each way")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data or make_world(Path(scratch) / "world", args.recordings)
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_NAMES)
        rng = np.random.default_rng(args.seed)
        chosen = rng.permutation(len(paths))[: args.recordings]
        recordings = [Recording(str(paths[i]), streams=probe_media(str(paths[i]))) for i in chosen]
        compare(args, recordings, Path(scratch) / "cache", rng)


def compare(
    args: argparse.Namespace, recordings: list[Recording], folder: Path, rng: np.random.Generator
) -> None:
    spec = {"video": ClipSpec(length=FRAMES, stride=args.stride, size=args.size)}
    streamed, cache = Reader(spec), Cache(folder, 64 << 30)
    cached = Reader(spec, cache)
    began = time.perf_counter()
    problems = cache.build(recordings, spec)
    building = time.perf_counter() - began
    recordings = [r for r in recordings if r.uri not in problems and "video" in r.streams]
    draws = [
        (recording, draw(streamed.timeline(recording), args.views, args.stride, rng))
        for recording in recordings
        for _ in range(4)
    ]
    draws = [draws[i] for i in rng.permutation(len(draws))]
    ways: dict[str, Callable[[Recording, np.ndarray], object]] = {
        "separately": lambda r, p: separately(r, p, args.size),
        "streamed": lambda r, p: streamed.read(r, {"video": p}),
        "cached": lambda r, p: cached.read(r, {"video": p}),
    }
    bytes_a_recording = cache.fits(recordings, spec)[1] / len(recordings)
    print(
        f"{len(recordings)} recordings, {args.views} views of {FRAMES} frames at {args.size} px; "
        f"cache built in {building:.1f} s, {bytes_a_recording / 1e6:.1f} MB a recording"
    )
    print(f"{'way':<12}{'clips/s':>10}{'ratio':>9}{'clips/CPU s':>14}{'ratio':>9}")
    base = None
    for name, (rate, cpu_rate) in measure(ways, draws, args.seconds).items():
        base = base or (rate, cpu_rate)
        print(
            f"{name:<12}{args.views * rate:>10.1f}{rate / base[0]:>8.1f}x"
            f"{args.views * cpu_rate:>14.1f}{cpu_rate / base[1]:>8.1f}x"
        )


def draw(timeline: Timeline, views: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Positions (view, time): windows forwards, and the same windows backwards or faster."""
    extent = timeline["video"].length
    stride = max(1, min(stride, (extent - 1) // (FRAMES - 1)))
    rows: list[np.ndarray] = []
    while len(rows) < views:
        window = clips.window(extent, FRAMES, stride, rng)
        twin = clips.reverse(window) if len(rows) % 4 == 0 else clips.speed(window, 2)
        rows += [window, clips.fit(twin, extent)]
    return np.stack(rows[:views])


def measure(
    ways: dict[str, Callable[[Recording, np.ndarray], object]],
    draws: list[tuple[Recording, np.ndarray]],
    seconds: float,
) -> dict[str, tuple[float, float]]:
    """Recordings a second of the clock and of this process's CPU time, which other programs on the
    machine disturb less. The ways take turns, so that what disturbs meets all of them; a first
    round that warms the page cache does not count."""
    done, wall, cpu = (dict.fromkeys(ways, 0.0) for _ in range(3))
    for turn in range(-1, TURNS):
        for name, way in ways.items():
            began, cpu_began, count = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - began < seconds / TURNS:
                way(*draws[int(done[name] + count) % len(draws)])
                count += 1
            if turn >= 0:
                done[name] += count
                wall[name] += time.perf_counter() - began
                cpu[name] += time.process_time() - cpu_began
    return {name: (done[name] / wall[name], done[name] / cpu[name]) for name in ways}


def separately(recording: Recording, positions: np.ndarray, size: int) -> np.ndarray:
    """The peer: every view opened, searched and decoded on its own."""
    rate = recording.streams["video"].rate
    return np.stack([one_view(recording.uri, view / rate, size) for view in positions])


def one_view(path: str, seconds: np.ndarray, size: int) -> np.ndarray:
    out = np.empty((len(seconds), size, size, 3), dtype=np.uint8)
    scaler = VideoReformatter()
    order = np.argsort(seconds, kind="stable")
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        container.seek(int(seconds[order[0]] / stream.time_base), stream=stream)
        half = 0.5 / float(stream.average_rate)
        row, pixels = 0, None
        for frame in container.decode(stream):
            if frame.time + half < seconds[order[row]]:
                continue
            scale = size / min(frame.width, frame.height)
            width, height = round(frame.width * scale), round(frame.height * scale)
            pixels = scaler.reformat(frame, width, height, "rgb24").to_ndarray()
            left, top = (width - size) // 2, (height - size) // 2
            pixels = pixels[top : top + size, left : left + size]
            while row < len(order) and seconds[order[row]] <= frame.time + half:
                out[order[row]] = pixels
                row += 1
            if row == len(order):
                break
        out[order[row:]] = pixels
    return out


if __name__ == "__main__":
    main()
