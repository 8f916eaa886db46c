"""Sounds of other times than a clip's: which offsets there are, and where they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mainspring.clips import ClipSpec, Draw, Timeline

ROUNDING = 1e-6
"""Positions that are lost where seconds are not exact."""


@dataclass(frozen=True)
class Offsets:
    """One clip, and sounds of the same length at whole frames from it.

    Attributes:
        clips: How video and audio are cut; both have a rate.
    """

    clips: Mapping[str, ClipSpec]

    @property
    def rate(self) -> float:
        """Frames a second."""
        rate = self.clips["video"].rate
        assert rate is not None, "looked at by the pretext"
        return rate

    def frames(self, least: float, most: float) -> tuple[int, int]:
        """The least and the greatest whole number of frames between so many seconds; the first is
        the larger one where there is none."""
        low = math.ceil(least * self.rate - ROUNDING)
        return low, math.floor(most * self.rate + ROUNDING)

    def needs(self, stream: str, frames: int) -> int:
        """Positions of a stream that a clip takes which can be moved by so many frames."""
        spec = self.clips[stream]
        if stream == "audio":
            assert spec.rate is not None, "looked at by the pretext"
            frames = math.ceil(frames * spec.rate / self.rate)
        return spec.span + frames

    def room(self, timeline: Timeline) -> int:
        """The last frame at which both clips can begin."""
        video, audio = timeline["video"], timeline["audio"]
        free = audio.length - self.clips["audio"].span
        sound = math.floor(free * video.rate / audio.rate + ROUNDING)
        return min(video.length - self.clips["video"].span, sound)

    def views(
        self, timeline: Timeline, place: int, shifts: Int64[np.ndarray, "view"]
    ) -> dict[str, Draw]:
        """The clip that begins at frame `place`, and sounds that begin so many frames later.

        Factor of the sounds: "offset", seconds by which a sound is of a later time than the clip.

        Args:
            timeline: Of a recording with both streams.
            place: From 0 to `room`, as are place + shifts.
            shifts: Frames; negative for an earlier sound.
        """
        video, audio = self.clips["video"], self.clips["audio"]
        begin = timeline.meet(place + shifts, "video", "audio")
        frames = place + video.stride * np.arange(video.length)
        samples = begin[:, None] + audio.stride * np.arange(audio.length)
        factors = {"offset": shifts / timeline["video"].rate}
        return {"video": Draw(frames[None], {}), "audio": Draw(samples, factors)}

    def anywhere(
        self, timeline: Timeline, seconds: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Draw]:
        """A clip and its sound at each of the offsets, wherever all of them fit.

        Args:
            timeline: Of a recording with both streams.
            seconds: (view,) Positive for a later sound.
            rng: Source of the place.

        Raises:
            ValueError: If the recording is too short for them.
        """
        shifts = in_frames(seconds, timeline["video"].rate)
        return self.views(timeline, somewhere(self.room(timeline), shifts, rng), shifts)


def neighbours(
    room: int, gap: int, far: int, count: int, rng: np.random.Generator
) -> tuple[int, Int64[np.ndarray, "count"]]:
    """A place in [0, room] and `count` others, each from `gap` to `far` away on either side.

    A place is as likely as it has others to go with, and its others are all alike, so that each of
    them is as likely to be anywhere as the place itself (a step of a random walk in equilibrium).

    Args:
        room: The last place there may be.
        gap: Least distance, at least 1.
        far: Greatest distance; some place must have another between `gap` and `far` away.
        count: How many others.
        rng: Source of all.
    """
    places = np.arange(room + 1)
    below = np.maximum(places - gap - np.maximum(places - far, 0) + 1, 0)
    above = np.maximum(np.minimum(places + far, room) - (places + gap) + 1, 0)
    chances = (below + above) / (below + above).sum()
    place = int(rng.choice(places, p=chances))
    pick = rng.integers(below[place] + above[place], size=count)
    lower = max(place - far, 0) + pick
    upper = place + gap + pick - below[place]
    return place, np.where(pick < below[place], lower, upper)


def in_frames(seconds: np.ndarray, rate: float) -> Int64[np.ndarray, "count"]:
    """Offsets in whole frames; early and late ones are rounded alike.

    Args:
        seconds: (count,)
        rate: Frames a second.
    """
    sizes = np.floor(np.abs(seconds) * rate + 0.5)
    return (np.sign(seconds) * sizes).astype(np.int64)


def somewhere(room: int, shifts: Int64[np.ndarray, "count"], rng: np.random.Generator) -> int:
    """A place in [0, room], any alike, from which all shifts stay in [0, room].

    Args:
        room: The last frame at which clips can begin.
        shifts: Frames.
        rng: Source of the place.

    Raises:
        ValueError: If there is none.
    """
    low, high = max(0, -int(shifts.min())), room - max(0, int(shifts.max()))
    if high < low:
        raise ValueError(
            f"offsets from {shifts.min()} to {shifts.max()} frames do not fit into a recording "
            f"in which clips can begin at {room + 1} frames"
        )
    return int(rng.integers(low, high + 1))
