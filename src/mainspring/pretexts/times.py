"""The same times of a recording in all of its streams, as positions of clips.

    seconds = times(timeline, clips, count=2, gap=0.5, rng=rng)  # two starts, half a second apart
    starts_at(timeline, clips, "audio", seconds)                 # where they lie in the sound
    around(seconds, timeline["audio"], clips["audio"], "audio")  # clips with their middles there

Text is cut into sentences: with W words a sentence (the clip's length), positions k * W to
k * W + W - 1 are sentence k, and sentences are taken to be spread evenly over the recording.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64

from mainspring.clips import NOTHING, Clips, ClipSpec, Extent, Timeline, fit, regular, span
from mainspring.errors import DataError
from mainspring.pretexts.hierarchy import spaced

Seconds = Float[np.ndarray, "shift"]

TEXT_RATE = 1000.0
"""Times a second to choose from where a recording has nothing but text."""
ROUNDING = 1e-9
"""Sentences by which a moment may lie before the beginning of the one that stands for it."""


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
    if not clips:
        return np.zeros(count)
    timed = [stream for stream in clips if stream != "text"]
    if timed:
        rate = timeline[timed[0]].rate
        free = min((timeline[s].length - clips[s].span) / timeline[s].rate for s in timed)
    else:
        rate, free = TEXT_RATE, timeline["text"].seconds
    room = math.floor(free * rate + 1e-6)
    apart = max(1, math.ceil(gap * rate - 1e-6))
    if count > 1:
        apart = min(apart, room // (count - 1))
    if apart < 1:
        raise DataError(
            f"{count} different times do not fit: clips leave {room} positions of "
            f"{(timed or ['text'])[0]} to move in. Take shorter clips."
        )
    return spaced(room, count, apart, rng) / rate


def starts_at(
    timeline: Timeline, clips: Mapping[str, ClipSpec], stream: str, seconds: Seconds
) -> Int64[np.ndarray, "shift"]:
    """Positions at which a stream's clips start that start at these times; of text, the start of
    the sentence that stands for the middle of the longest clip of the other streams.

    Args:
        timeline: Of the recording.
        clips: How each of its streams is cut.
        stream: One of them.
        seconds: From `times`.
    """
    extent, spec = timeline[stream], clips[stream]
    if stream != "text":
        starts = np.floor(seconds * extent.rate + 0.5).astype(np.int64)
        return np.minimum(starts, extent.length - spec.span)
    spans = [clips[other].span / timeline[other].rate for other in clips if other != "text"]
    return sentence_at(seconds + max(spans, default=0.0) / 2, extent, spec) * spec.length


def around(
    middles: Seconds, extent: Extent, spec: ClipSpec, stream: str, share: float = 1.0
) -> Clips:
    """Clips with their middles at these times, moved in where they would leave the recording; of
    text the sentence that stands for each. In a stream shorter than a clip its end is held, or
    padded in a series.

    Args:
        middles: Seconds after the recording's start.
        extent: Of the stream.
        spec: How its clips are cut.
        stream: Videos keep their frames at any `share`, others end in padding.
        share: Of a clip's whole length.
    """
    if stream == "text":
        return _words(sentence_at(middles, extent, spec), spec)
    stride, length = spec.stride * share, spec.length
    if stream != "video":
        stride, length = spec.stride, max(1, round(share * length))
    reach = span(length, stride)
    starts = np.floor(middles * extent.rate - reach / 2 + 0.5)
    starts = np.clip(starts, 0, max(0, extent.length - reach)).tolist()
    clips = np.stack([regular(start, length, stride) for start in starts])
    clips = fit(clips, extent.length, "nothing" if stream == "series" else "hold")
    return np.pad(clips, ((0, 0), (0, spec.length - length)), constant_values=NOTHING)


def sentences(extent: Extent, spec: ClipSpec) -> tuple[int, float]:
    """How many sentences a text has, and for how many seconds each stands.

    Args:
        extent: Of the text, in words.
        spec: How it is cut; its length is the words of a sentence.
    """
    return extent.length // spec.length, spec.length / extent.rate


def sentence_at(moments: Seconds, extent: Extent, spec: ClipSpec) -> Int64[np.ndarray, "shift"]:
    """Which sentence stands for each moment, the first or last for moments outside of the text.

    Args:
        moments: Seconds after the recording's start.
        extent: Of the text.
        spec: How it is cut.
    """
    count, seconds = sentences(extent, spec)
    return np.clip(np.floor(moments / seconds + ROUNDING), 0, count - 1).astype(np.int64)


def nearest_sentences(moment: float, extent: Extent, spec: ClipSpec, count: int) -> Clips:
    """The sentences nearest to a moment, in their order, and then padding if there are fewer.

    Args:
        moment: Seconds after the recording's start.
        extent: Of the text.
        spec: How it is cut.
        count: How many.
    """
    there, seconds = sentences(extent, spec)
    distance = np.abs((np.arange(there) + 0.5) * seconds - moment)
    nearest = np.sort(np.argsort(distance, kind="stable")[:count])
    missing = ((0, count - len(nearest)), (0, 0))
    return np.pad(_words(nearest, spec), missing, constant_values=NOTHING)


def _words(sentence: Int64[np.ndarray, "view"], spec: ClipSpec) -> Clips:
    """Positions of all words of sentences."""
    return sentence[:, None] * spec.length + np.arange(spec.length)
