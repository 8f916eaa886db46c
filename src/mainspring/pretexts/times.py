"""The same times of a recording in all of its streams, as positions at which clips start.

seconds = times(timeline, clips, count=2, gap=0.5, rng=rng)      # two starts, half a second apart
starts_at(timeline, clips, "audio", seconds)                     # where they lie in the sound
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from mainspring.clips import ClipSpec, Timeline
from mainspring.errors import DataError
from mainspring.pretexts.hierarchy import spaced

Seconds = Float[np.ndarray, "shift"]


def times(
    timeline: Timeline,
    clips: Mapping[str, ClipSpec],
    count: int,
    gap: float,
    rng: np.random.Generator,
) -> Seconds:
    """Seconds at which clips can start in all streams, every set of such times alike.

    Args:
        timeline: Of the recording.
        clips: How each of its streams is cut, at least as long as a clip each. Times lie on the
            grid of the first, such as the frames of a video. Sentences are found for any time, so
            text has no say where there is anything else.
        count: How many times.
        gap: Seconds from one to the next at least; less where the recording has no room for it.
        rng: Source of the draw.

    Raises:
        DataError: If so many different times do not fit.
    """
    timed = [stream for stream in clips if stream != "text"] or list(clips)
    if not timed:
        return np.zeros(count)
    rate = timeline[timed[0]].rate
    free = min((timeline[s].length - clips[s].span) / timeline[s].rate for s in timed)
    room = math.floor(free * rate + 1e-6)
    apart = max(1, math.ceil(gap * rate - 1e-6))
    if count > 1:
        apart = min(apart, room // (count - 1))
    if apart < 1:
        raise DataError(
            f"{count} different times do not fit: clips leave {room} positions of {timed[0]} to "
            "move in. Take shorter clips."
        )
    return spaced(room, count, apart, rng) / rate


def starts_at(
    timeline: Timeline, clips: Mapping[str, ClipSpec], stream: str, seconds: Seconds
) -> Int64[np.ndarray, "shift"]:
    """Positions at which a stream's clips start that start at these times; of text, the start of
    the sentence that stands for the middle of the longest clip of the other streams."""
    extent, spec = timeline[stream], clips[stream]
    if stream != "text":
        starts = np.floor(seconds * extent.rate + 0.5).astype(np.int64)
        return np.minimum(starts, extent.length - spec.span)
    spans = [clips[other].span / timeline[other].rate for other in clips if other != "text"]
    middles = seconds + max(spans, default=0.0) / 2
    sentence = np.floor(middles * extent.rate / spec.length + 1e-9).astype(np.int64)
    return np.minimum(sentence, extent.length // spec.length - 1) * spec.length
