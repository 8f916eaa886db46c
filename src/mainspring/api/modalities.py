"""What a run knows of one stream from another: which picture belongs to this sound, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.api.data import counter, sparing, usable
from mainspring.api.vectors import reader_of, shared
from mainspring.encoders.saved import Saved
from mainspring.errors import ConfigError, RunError
from mainspring.evaluate.crossmodal import (
    InTime,
    Ways,
    cross_retrieval,
    unit,
    within_recordings,
)
from mainspring.evaluate.intervals import FEWEST_GROUPS
from mainspring.evaluate.moments import MOMENTS, Moments, moments
from mainspring.evaluate.spread import Spread, spread
from mainspring.training.progress import Log
from mainspring.training.run import Run

STILL = 1e-5
"""Vectors of length 1 that differ by less in every number are the same: they are of float32."""


@dataclass(frozen=True)
class Across:
    """Retrieval between two streams of a run.

    Attributes:
        streams: Which two; in `ways` and `seconds` the first asks there and the second back.
        recordings: How many had both.
        ways: Retrieval among recordings, one vector each.
        seconds: Retrieval among the moments of a recording, both ways; None where no recording
            has two, or a stream is still.
        spread: By stream, how far its vectors lie apart in time; empty likewise.
        still: Streams whose vectors do not change within any recording, as those of captions of one
            sentence. They cannot say which moment, and are asked neither that nor their spread.
        problems: For each recording left out, its name and the reason.
        silent: Moments left out because nothing is heard in them.
        seen: The run was trained on these very recordings.
    """

    streams: tuple[str, str]
    recordings: int
    ways: Ways
    seconds: tuple[InTime, InTime] | None
    spread: dict[str, Spread]
    still: tuple[str, ...]
    problems: dict[str, str]
    silent: int
    seen: bool

    @property
    def groups(self) -> int:
        """What intervals resample: groups of recordings, or files where none are known."""
        return len(next(iter(self.ways.there.recall.tallies.values())).groups)

    def to_dict(self, seed: int = 0) -> dict[str, Any]:
        """Plain JSON values, with 95 % intervals from resampling groups where there are five."""
        rng = np.random.default_rng(seed)
        first, second = self.streams
        names = (f"{first} to {second}", f"{second} to {first}")
        seconds = self.seconds or (None, None)
        found = {
            "streams": list(self.streams),
            "recordings": self.recordings,
            "groups": self.groups,
            "retrieval": {
                name: way.to_dict(rng)
                for name, way in zip(names, (self.ways.there, self.ways.back), strict=True)
            },
            "seconds": {
                name: way.to_dict(rng)
                for name, way in zip(names, seconds, strict=True)
                if way is not None
            },
            "spread": {stream: some.to_dict(rng) for stream, some in self.spread.items()},
            "still": list(self.still),
            "problems": self.problems,
            "silent": self.silent,
            "seen": self.seen,
        }
        return found if self.groups >= FEWEST_GROUPS else _without(found, "interval")


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
        ConfigError: If the streams are not two, or moments or batch are below 1.
        DataError: If fewer than two recordings have both.
    """
    heads = shared(run, streams)
    pair = _pair(run, heads, streams)
    found, problems = usable(data, log)
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
    taken = replace(taken, problems=problems | taken.problems)
    result = measured(taken, pair, ks, Run(run).learnt_from(data))
    name = f"across-{'-'.join(pair)}.json"
    with sparing(log, name):
        Run(run).write_json(name, result.to_dict())
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

    def is_still(stream: str) -> bool:
        rows = unit(taken.vectors[stream])
        return bool(np.abs(rows - rows[first][place]).max() < STILL)

    still = tuple(stream for stream in pair if several and is_still(stream))
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
        if several and not still
        else None,
        spread={
            stream: spread(taken.vectors[stream], taken.rows, taken.groups)
            for stream in pair
            if several and stream not in still
        },
        still=still,
        problems=taken.problems,
        silent=taken.silent,
        seen=seen,
    )


def _pair(run: str | Path, heads: dict[str, Saved], streams: tuple[str, ...]) -> tuple[str, str]:
    if len(heads) == 1:
        raise RunError(
            f"{run} has learnt from {next(iter(heads))} only, and retrieval is between two "
            "streams: train on two, as with `mainspring pretrain ... --stream video audio`."
        )
    chosen = list(dict.fromkeys(streams)) or list(heads)[:2]
    if len(chosen) != 2:
        raise ConfigError(
            f"Retrieval is between two streams, not {len(chosen)} ({', '.join(chosen)}): give "
            f"--streams two of {', '.join(heads)}."
        )
    return chosen[0], chosen[1]


def _without(value: Any, key: str) -> Any:
    """Nested dicts without a key."""
    if not isinstance(value, dict):
        return value
    return {name: _without(inner, key) for name, inner in value.items() if name != key}
