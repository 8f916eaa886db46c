"""A small world of films with sound, made on demand: the data of the demo and of the tests.

`make_world` writes, into a folder,

- `videos/0000.mp4` ...: 96 by 96 px, 20 frames a second, H.264, with 16 kHz mono AAC;
- `series/0000.csv` ...: the same motion as a series of 40 rows a second, with missing stretches;
- `labels.csv`, `series_labels.csv`: uri, label (the motion programme), appearance, group, caption;
- `streams.csv`: the same for recordings of all streams, uri naming the film and series_uri the
  series;
- `truth.parquet`: one row a sound: uri, time (s), x, y (px), object, kind, energy, pitch (Hz);
- `tracks.parquet`: one row a frame and ball: uri, time, object, x, y, radius, sounding;
- `world.json`: the parameters, written last. While it is missing, `world.partial.json` stands
  for it, and the same call finishes what was begun.

The label, the appearance and the group are independent of each other: every 8 recordings hold
each programme and each appearance once, every 64 hold each pair of them once, and every 12 share
a camera. A larger world begins with the recordings of the smaller one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.errors import DataError
from mainspring.recordings.demo.files import as_csv, encode, trajectory, write_whole
from mainspring.recordings.demo.physics import STEPS, framed, simulate
from mainspring.recordings.demo.picture import (
    APPEARANCES,
    FPS,
    MARGIN,
    SIZE,
    draw,
    draw_camera,
    seen,
)
from mainspring.recordings.demo.plan import GROUP_SIZE, Entry, plan_world
from mainspring.recordings.demo.sound import pitch_of, soundtrack
from mainspring.recordings.demo.tables import Track, write_streams, write_tables
from mainspring.recordings.processes import cores, may_start

VERSION = 2  # raised whenever the same parameters would give other files
FEW = 24  # below this, starting workers takes longer than they save


def make_world(
    folder: str | Path,
    recordings: int = 600,
    seed: int = 0,
    seconds: float = 4.0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a world of short films, sounds and series, or returns at once if it is there.

    Args:
        folder: Where to.
        recordings: How many.
        seed: The same seed gives the same files, whatever the number of workers.
        seconds: Length of each recording.
        workers: Processes; None means one a core (and none besides this one for a small world).
        progress: Called with recordings done and recordings in all.

    Returns:
        The folder.

    Raises:
        DataError: The folder holds something else, or a world with other parameters.
        ValueError: A parameter is out of range.
    """
    if recordings < 1 or seed < 0 or round(seconds * FPS) < 1:
        raise ValueError(
            f"A world needs at least 1 recording, a seed of 0 or more and {1 / FPS} s; "
            f"got recordings={recordings}, seed={seed}, seconds={seconds}."
        )
    root = Path(folder)
    parameters = {
        "version": VERSION, "recordings": recordings, "seed": seed, "seconds": float(seconds)
    }  # fmt: skip
    if _finished(root, parameters):
        with contextlib.suppress(OSError):  # a world that may only be read stays as it is
            write_streams(root, plan_world(recordings, seed))  # older ones were made without
        return root
    for part in ("videos", "series"):
        (root / part).mkdir(parents=True, exist_ok=True)
        for left in (root / part).glob(".*.partial"):
            left.unlink()
    write_whole(root / "world.partial.json", json.dumps(parameters).encode())

    entries = plan_world(recordings, seed)
    impacts: list[dict[str, Any]] = []
    tracks: list[Track] = []
    for done, (heard, track) in enumerate(_made(root, entries, seed, seconds, workers), 1):
        impacts += heard
        tracks.append(track)
        if progress is not None:
            progress(done, recordings)
    write_tables(root, entries, impacts, tracks)
    write_whole(root / "world.json", json.dumps(parameters, indent=1).encode())
    (root / "world.partial.json").unlink()
    return root


def _finished(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether the world is there; raises if something else is."""
    for name in ("world.json", "world.partial.json"):
        marker = root / name
        if marker.exists():
            found = json.loads(marker.read_text())
            changed = [
                f"{key} is {found.get(key)!r} there and {value!r} here"
                for key, value in parameters.items()
                if found.get(key) != value
            ]
            if changed:
                raise DataError(
                    f"{root} holds a world made with other parameters: {'; '.join(changed)}. "
                    "Choose another folder, or delete this one to make it anew."
                )
            return name == "world.json"
    taken = [name for name in ("videos", "series", "labels.csv") if (root / name).exists()]
    if taken:
        raise DataError(
            f"{root} already holds {', '.join(taken)}, and no world.json says they are a world's. "
            "Choose an empty folder."
        )
    return False


def _made(
    root: Path, entries: list[Entry], seed: int, seconds: float, workers: int | None
) -> Iterator[tuple[list[dict[str, Any]], Track]]:
    """Makes all recordings in order, in this process or in several."""
    make = partial(make_recording, root, seed=seed, seconds=seconds)
    if workers is None:
        workers = 1 if len(entries) < FEW else cores()
    done = 0
    if workers > 1 and may_start():
        # Spawned, because forking a process that runs threads (torch's) can hang.
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        try:
            for result in pool.map(make, entries, chunksize=8):
                done += 1
                yield result
        except BrokenProcessPool:
            # A script without `if __name__ == "__main__"` cannot be imported by spawned workers:
            # this process makes the rest.
            pass
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupted call leaves at once
    yield from map(make, entries[done:])


def make_recording(
    root: Path, entry: Entry, seed: int, seconds: float
) -> tuple[list[dict[str, Any]], Track]:
    """Makes the files of one recording, unless they are there.

    Args:
        root: The world's folder.
        entry: What to make.
        seed: Of the world.
        seconds: Length.

    Returns:
        The rows of the truth, and the balls' track.
    """
    rng = np.random.default_rng((seed, entry.index))
    group = entry.index // GROUP_SIZE
    camera = draw_camera(np.random.default_rng((seed, group, 1)))
    look = APPEARANCES[entry.appearance]
    seconds = round(seconds * FPS) / FPS
    # Pixels' centres are at whole numbers, so the picture spans 0 to SIZE - 1.
    motion = framed(simulate(entry.label, seconds, rng), SIZE - 1, MARGIN, rng)
    one, other = (pitch_of(radius, float(rng.uniform(0.9, 1.1))) for radius in motion.radii)
    pitches = (one, other)
    sounding = int(rng.integers(2))
    places = seen(motion, camera)
    series = trajectory(places, motion, rng)
    if not (root / entry.series).exists():
        write_whole(root / entry.series, as_csv(series))
    if not (root / entry.video).exists():
        frames = draw(motion, look, camera, seconds, rng)
        sound = soundtrack(motion, seconds, pitches, sounding)
        write_whole(root / entry.video, encode(frames, sound))

    impacts = []
    for impact in motion.impacts:
        x, y = places[impact.object, round(impact.time * STEPS)]
        impacts.append(
            {
                "uri": entry.video,
                "time": impact.time,
                "x": float(x),
                "y": float(y),
                "object": impact.object,
                "kind": impact.kind,
                "energy": impact.energy,
                "pitch": pitches[impact.object],
            }
        )
    steps = np.arange(round(seconds * FPS)) * (STEPS // FPS)
    track = Track(entry.video, steps / STEPS, places[:, steps], motion.radii, sounding)
    return impacts, track
