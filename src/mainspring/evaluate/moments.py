"""The same moments of recordings in two streams, each as a vector: what retrieval across streams
and over time is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from mainspring.clips import NOTHING, Clips, ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.embed import Recordings
from mainspring.evaluate.forward import Reads, ahead, encode
from mainspring.pretexts.silence import heard
from mainspring.pretexts.times import around
from mainspring.recordings.recording import Recording

GAP = 0.2  # seconds; moments closer than this are one
MOMENTS = 10  # of Figure 3 of GDT (Patrick et al., ICCV 2021)


@dataclass(frozen=True)
class Moments:
    """Vectors of clips of several streams, row for row around the same moment.

    Attributes:
        vectors: For each stream one row a moment.
        times: Seconds from the file's beginning to the middle of the clips.
        rows: The recording's row in the catalogue.
        groups: What must stay on one side of a split: its group, or its file.
        problems: For each recording that was left out, its name and the reason.
        silent: Moments left out because nothing is heard in them.
    """

    vectors: dict[str, Float32[np.ndarray, "n dim"]]
    times: Float64[np.ndarray, "n"]
    rows: Int64[np.ndarray, "n"]
    groups: np.ndarray
    problems: dict[str, str]
    silent: int


def moments(
    encoders: Mapping[str, Encoder],
    specs: Mapping[str, ClipSpec],
    catalogue: Recordings,
    reader: Reads,
    count: int = MOMENTS,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Moments:
    """Embeds up to `count` moments of each recording, evenly spaced, in every stream.

    Args:
        encoders: One a stream.
        specs: How clips of each stream are cut.
        catalogue: The recordings. One that lacks a stream, is silent or cannot be read is left out.
        reader: Reads all of these streams.
        count: Moments a recording; fewer where they would be closer than 0.2 s.
        batch: Moments a forward pass.
        progress: Told after each recording how many of how many are done.

    Raises:
        ConfigError: If `count` or `batch` is below 1.
        DataError: If no recording is left.
    """
    if min(count, batch) < 1:
        raise ConfigError(
            f"There are to be {count} moments a recording and {batch} moments a forward pass; each "
            "is 1 at least."
        )
    problems: dict[str, str] = {}
    parts: dict[str, list[np.ndarray]] = {stream: [] for stream in encoders}
    times, rows = [], []
    groups: list[str] = []
    silent = 0
    with closing(ahead(_read(list(encoders), specs, catalogue, reader, count))) as pieces:
        for row, piece in enumerate(pieces):
            recording = catalogue[row]
            silent += piece.silent
            try:
                found = _encoded(encoders, specs, piece, batch)
            except DataError as error:
                problems[recording.name] = str(error)
            else:
                for stream, vectors in found.items():
                    parts[stream].append(vectors)
                times.append(piece.times)
                rows.append(np.full(len(piece.times), row))
                groups += [recording.group or recording.uri] * len(piece.times)
            if progress is not None:
                progress(row + 1, len(catalogue))
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*problems.items()][:3])
        raise DataError(
            f"None of the {len(catalogue)} recordings has both {' and '.join(encoders)}. {why}."
        )
    return Moments(
        {stream: np.concatenate(some) for stream, some in parts.items()},
        np.concatenate(times),
        np.concatenate(rows),
        np.array(groups, object),
        problems,
        silent,
    )


@dataclass
class _Piece:
    """What was read of one recording, or why there is nothing of it."""

    times: np.ndarray
    clips: dict[str, Clips]
    samples: dict[str, np.ndarray]
    silent: int = 0
    problem: str = ""

    def sounding(self) -> _Piece:
        """Without the moments at which nothing is heard: they belong to no picture."""
        if "audio" not in self.samples:
            return self
        sound, there = self.samples["audio"], self.clips["audio"] != NOTHING
        loud = heard(torch.from_numpy(sound), torch.from_numpy(there)).numpy()
        return _Piece(
            self.times[loud],
            {stream: cut[loud] for stream, cut in self.clips.items()},
            {stream: samples[loud] for stream, samples in self.samples.items()},
            silent=int((~loud).sum()),
            problem="" if loud.any() else "its sound is silent",
        )


def _read(
    streams: list[str],
    specs: Mapping[str, ClipSpec],
    catalogue: Recordings,
    reader: Reads,
    count: int,
) -> Iterator[_Piece]:
    """One piece a recording."""
    for row in range(len(catalogue)):
        recording = catalogue[row]
        if recording.problem is not None:
            yield _Piece(np.empty(0), {}, {}, problem=recording.problem)
            continue
        try:
            times, cuts = _cut(streams, specs, recording, reader.timeline(recording), count)
            yield _Piece(times, cuts, reader.read(recording, cuts)).sounding()
        except (DataError, OSError, ValueError) as error:
            yield _Piece(np.empty(0), {}, {}, problem=str(error))


def _cut(
    streams: list[str],
    specs: Mapping[str, ClipSpec],
    recording: Recording,
    timeline: Timeline,
    count: int,
) -> tuple[np.ndarray, dict[str, Clips]]:
    """Moments at which every stream has a whole clip around it, and the clips."""
    for stream in streams:
        if stream not in timeline or timeline[stream].length < 1:
            there = ", ".join(name for name in streams if name in timeline)
            raise DataError(f"no {stream}, only {there or 'other streams'}")
    half = max(_half(stream, specs[stream], timeline[stream]) for stream in streams)
    first, last = half, max(half, min(timeline[stream].seconds for stream in streams) - half)
    kept = min(count, int((last - first) / GAP + 1e-9) + 1)
    middles = np.linspace(first, last, kept) if kept > 1 else np.array([(first + last) / 2])
    cuts = {s: around(middles, timeline[s], specs[s], s) for s in streams}
    return recording.start + middles, cuts


def _half(stream: str, spec: ClipSpec, extent: Extent) -> float:
    """Seconds from the middle of a clip to its end; 0 for text, which is not cut into."""
    return 0.0 if stream == "text" else spec.span / extent.rate / 2


def _encoded(
    encoders: Mapping[str, Encoder],
    specs: Mapping[str, ClipSpec],
    piece: _Piece,
    batch: int,
) -> dict[str, Float32[np.ndarray, "n dim"]]:
    if piece.problem:
        raise DataError(piece.problem)
    found = {}
    for stream, encoder in encoders.items():
        samples = torch.from_numpy(piece.samples[stream])
        present = torch.from_numpy(piece.clips[stream] != NOTHING)
        vectors = np.concatenate(
            [
                encode(
                    encoder, samples[at : at + batch], present[at : at + batch], specs[stream].crop
                )
                for at in range(0, len(samples), batch)
            ]
        )
        if not np.isfinite(vectors).all():
            raise DataError(f"the encoder for {stream} gave a vector with NaN or infinity")
        found[stream] = vectors
    return found
