"""How a recording is cut into the windows that get a vector each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mainspring import clips
from mainspring.clips import Clips, ClipSpec, Timeline
from mainspring.errors import ConfigError, DataError
from mainspring.recordings.recording import Recording


@dataclass(frozen=True)
class Windows:
    """The windows of one recording.

    Attributes:
        clips: Which positions each looks at.
        starts: Seconds from the file's beginning.
        ends: Seconds from the file's beginning.
    """

    clips: Clips
    starts: Float64[np.ndarray, "view"]
    ends: Float64[np.ndarray, "view"]

    def __len__(self) -> int:
        return len(self.clips)


def cut(
    recording: Recording,
    timeline: Timeline,
    stream: str,
    clip: ClipSpec,
    hop_seconds: float | None = None,
) -> Windows:
    """Windows of one clip each that cover the recording from its first sample to its last.

    A recording shorter than a clip is one window: pictures and sound are held at their last
    sample, series are padded with nothing.

    Args:
        recording: What to cut; its start places the windows in the file.
        timeline: How far its streams reach.
        stream: Which one to cut.
        clip: Length and stride of a window.
        hop_seconds: From one window's start to the next; a clip's span unless given.

    Raises:
        DataError: If the recording has no such stream, or nothing in it.
        ConfigError: If the hop is not positive or not finite.
    """
    if hop_seconds is not None and not 0 < hop_seconds < np.inf:
        raise ConfigError(f"hop_seconds must be positive and finite, not {hop_seconds:g}.")
    if stream not in timeline:
        there = ", ".join(recording.streams or timeline.extents)
        has = f"; its streams: {there}" if there else ""
        raise DataError(f"no {stream} stream to embed{has}")
    extent = timeline[stream]
    if extent.length < 1:
        raise DataError(f"its {stream} stream is empty")
    hop = clip.span if hop_seconds is None else max(1, round(hop_seconds * extent.rate))
    spans = np.array(clips.windows(extent.length, clip.span, hop), np.int64)
    offsets = clips.regular(0, clip.length, clip.stride)
    beyond = "nothing" if stream == "series" else "hold"
    return Windows(
        clips=clips.fit(spans[:, :1] + offsets, extent.length, beyond),
        starts=recording.start + spans[:, 0] / extent.rate,
        ends=recording.start + spans[:, 1] / extent.rate,
    )
