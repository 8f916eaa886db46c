"""What a run knows of one stream from another: which picture belongs to this sound, and when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.api.data import catalogue, counter
from mainspring.api.vectors import reader_of, shared
from mainspring.encoders.saved import Saved
from mainspring.errors import ConfigError, unknown
from mainspring.evaluate.crossmodal import InTime, Ways, cross_retrieval, within_recordings
from mainspring.evaluate.moments import MOMENTS, Moments, moments
from mainspring.evaluate.spread import Spread, spread
from mainspring.training.progress import Log
from mainspring.training.run import Run


@dataclass(frozen=True)
class Across:
    """Retrieval between two streams of a run.

    Attributes:
        streams: Which two; in `ways` and `seconds` the first asks there and the second back.
        recordings: How many had both.
        ways: Retrieval among recordings, one vector each.
        seconds: Retrieval among the moments of a recording, both ways; None where no recording
            has two.
        spread: By stream, how far its vectors lie apart in time; empty likewise.
        problems: For each recording left out, its name and the reason.
        silent: Moments left out because nothing is heard in them.
        seen: The run was trained on these very recordings.
    """

    streams: tuple[str, str]
    recordings: int
    ways: Ways
    seconds: tuple[InTime, InTime] | None
    spread: dict[str, Spread]
    problems: dict[str, str]
    silent: int
    seen: bool

    def to_dict(self, seed: int = 0) -> dict[str, Any]:
        """Plain JSON values, with 95 % intervals from resampling groups."""
        rng = np.random.default_rng(seed)
        first, second = self.streams
        names = (f"{first} to {second}", f"{second} to {first}")
        seconds = self.seconds or (None, None)
        return {
            "streams": list(self.streams),
            "recordings": self.recordings,
            "retrieval": {
                name: way.to_dict(rng)
                for name, way in zip(names, (self.ways.there, self.ways.back), strict=True)
            },
            "seconds": {
                name: found.to_dict(rng)
                for name, found in zip(names, seconds, strict=True)
                if found is not None
            },
            "spread": {stream: found.to_dict(rng) for stream, found in self.spread.items()},
            "problems": self.problems,
            "silent": self.silent,
            "seen": self.seen,
        }


def across(
    run: str | Path,
    data: Any,
    *,
    streams: tuple[str, ...] = (),
    moments_each: int = MOMENTS,
    ks: tuple[int, ...] = (1, 5, 10),
    batch: int = 64,
    log: Log | None = None,
) -> Across:
    """Retrieval both ways among recordings and among the moments of each, beside chance; writes
    across-FIRST-SECOND.json.

    Give recordings that the run was not trained on: among those that it knows it may remember
    which sound goes with which picture.

    Args:
        run: Run folder.
        data: Recordings that have both streams.
        streams: Which two; the first two that the run has heads for unless given.
        moments_each: Moments a recording, evenly spaced, at least 0.2 s apart. Its vector is the
            mean of theirs.
        ks: Places that count as found, of which those are used that not every recording is at.
        batch: Moments a forward pass.
        log: Where to say how far it is.

    Raises:
        RunError: If the run's streams share no space.
        ConfigError: If the streams are not two.
        DataError: If fewer than two recordings have both.
    """
    heads = shared(run)
    pair = _pair(heads, streams)
    found = catalogue(data, log).usable()
    clips = {stream: heads[stream].clip for stream in pair}
    taken = moments(
        {stream: heads[stream].encoder for stream in pair},
        clips,
        found,
        reader_of(clips, found),
        moments_each,
        batch,
        counter(log, "embedding"),
    )
    result = measured(taken, pair, ks, _seen(Run(run), data))
    Run(run).write_json(f"across-{'-'.join(pair)}.json", result.to_dict())
    return result


def measured(
    taken: Moments, pair: tuple[str, str], ks: tuple[int, ...] = (1, 5, 10), seen: bool = False
) -> Across:
    """All that is measured, from vectors of the same moments in two streams."""
    names, first, place = np.unique(taken.rows, return_index=True, return_inverse=True)
    several = len(names) < len(place)
    one, other = (taken.vectors[stream] for stream in pair)
    counts = np.bincount(place)[:, None]

    def pooled(vectors: np.ndarray) -> np.ndarray:
        total = np.zeros((len(names), vectors.shape[1]))
        np.add.at(total, place, vectors)
        return (total / counts).astype(np.float32)

    return Across(
        streams=pair,
        recordings=len(names),
        ways=cross_retrieval(
            pooled(one),
            pooled(other),
            [k for k in ks if k < len(names)] or [1],
            taken.groups[first],
        ),
        seconds=(
            within_recordings(one, other, taken.times, taken.rows, taken.groups),
            within_recordings(other, one, taken.times, taken.rows, taken.groups),
        )
        if several
        else None,
        spread={s: spread(taken.vectors[s], taken.rows, taken.groups) for s in pair}
        if several
        else {},
        problems=taken.problems,
        silent=taken.silent,
        seen=seen,
    )


def _pair(heads: dict[str, Saved], streams: tuple[str, ...]) -> tuple[str, str]:
    for stream in streams:
        if stream not in heads:
            raise unknown("stream", stream, heads)
    chosen = list(dict.fromkeys(streams)) or list(heads)[:2]
    if len(chosen) != 2:
        raise ConfigError(
            f"Retrieval is between two streams, not {len(chosen)} ({', '.join(chosen)}): give "
            f"--streams two of {', '.join(heads)}."
        )
    return chosen[0], chosen[1]


def _seen(run: Run, data: Any) -> bool:
    """Whether the run's own data were given."""
    known = run.config().get("data")
    return isinstance(data, str | Path) and known == str(data)
