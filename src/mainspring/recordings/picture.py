"""From a decoded frame to pixels of the working size: scaled, cropped, upright."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

SCALER = Interpolation.AREA
"""Shrinking 360 lines to 112, its mean difference from Lanczos is under 2 of 255; fast-bilinear, a
fifth cheaper a frame, is off by 8 to 10, and small things come and go."""


class Picture:
    """Makes square pictures of one stream's frames.

    The decoder's own scaler (swscale, averaging areas) brings the short side to `size`, keeping the
    aspect that is seen (non-square pixels included); the middle `size` x `size` is kept and turned
    upright as the display matrix asks (rotation by quarters, mirroring). Where the long side
    leaves an odd number of pixels over, the crop begins one pixel nearer the top left of the frame
    as stored.

    Args:
        size: Height and width in pixels.
        first: Any frame of the stream, which states its orientation.
        aspect: Width of a pixel over its height; None or 0 where unknown, taken as square.
    """

    def __init__(self, size: int, first: VideoFrame, aspect: Fraction | None) -> None:
        self.size = size
        self.aspect = float(aspect or 1)
        self.swap, self.flip_x, self.flip_y = orientation(first)
        self._scaler = VideoReformatter()

    def pixels(self, frame: VideoFrame) -> UInt8[np.ndarray, "size size 3"]:
        """One frame, RGB."""
        width, height = scaled(frame.width * self.aspect, frame.height, self.size)
        small = self._scaler.reformat(
            frame, width, height, "rgb24", interpolation=SCALER, threads=1
        ).to_ndarray()
        left, top = (width - self.size) // 2, (height - self.size) // 2
        square = small[top : top + self.size, left : left + self.size]
        return upright(square, self.swap, self.flip_x, self.flip_y)


def scaled(width: float, height: float, size: int) -> tuple[int, int]:
    """Width and height with the short side at `size` and the aspect kept, to the nearest pixel."""
    short = min(width, height)
    return max(size, round(width * size / short)), max(size, round(height * size / short))


def orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """What turns a stored frame upright: swap the axes, then mirror left-right, then up-down.

    The display matrix maps stored (x, y) to shown (a x + c y, b x + d y); FFmpeg's
    libavutil/display.h. Anything between quarter turns goes to the nearer one.
    """
    parts: Any = frame.side_data  # PyAV's stubs know of motion vectors only
    for place in range(len(parts)):
        data = parts[place]
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return False, a < 0, d < 0
            return True, c < 0, b < 0
    return False, False, False


def upright(
    stored: UInt8[np.ndarray, "height width 3"], swap: bool, flip_x: bool, flip_y: bool
) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """Pixels as they are meant to be seen; see `orientation`."""
    shown = stored.swapaxes(0, 1) if swap else stored
    if flip_x:
        shown = shown[:, ::-1]
    return shown[::-1] if flip_y else shown
