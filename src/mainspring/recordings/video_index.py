"""Which frames a video holds and where decoding can begin, from its packets alone.

Reading a file's packets without decoding them costs about a hundredth of decoding them, and tells
the time of each frame, whatever the frame rate does. The frame shown at time t is the last one
whose time is not later than t; the first frame stands for earlier times, the last for later ones.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from jaxtyping import Bool, Float64, Int64

from mainspring.errors import DataError
from mainspring.recordings.container import choose, opened, origin
from mainspring.recordings.recent import Recent

# Containers that count milliseconds round a frame's time to the nearest: up to half a millisecond
# early is on time. Finer clocks round by half a tick.
ROUNDING_SECONDS = 0.0005
# Indices of files with fewer packets are made again faster than they are found on disk.
STORED_PACKETS = 20_000


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a video stream in the order in which they are decoded.

    Attributes:
        pts: When each packet's frame is shown, in ticks.
        dts: When each is decoded, in ticks; pts where a packet does not say.
        size: Bytes of each.
        key: Whether decoding can begin with it.
        shown: Whether its frame is shown at all (an edit list may hide the first ones).
        tick: Seconds a tick.
        origin: The file's beginning on its own clock, in seconds.
        end: When the last frame ends, in seconds from the file's beginning.
        exact: Whether every packet states a time of its own. Where not, `pts` counts decoded
            frames.
    """

    pts: Int64[np.ndarray, "packet"]
    dts: Int64[np.ndarray, "packet"]
    size: Int64[np.ndarray, "packet"]
    key: Bool[np.ndarray, "packet"]
    shown: Bool[np.ndarray, "packet"]
    tick: float
    origin: float
    end: float
    exact: bool

    @cached_property
    def order(self) -> Int64[np.ndarray, "frame"]:
        """The pts of the frames in the order in which they are shown."""
        return np.unique(self.pts[self.shown])

    @cached_property
    def times(self) -> Float64[np.ndarray, "frame"]:
        """When each frame begins to be shown, in seconds from the file's beginning, less what the
        container's clock may have rounded away."""
        slack = min(self.tick / 2, ROUNDING_SECONDS) + 1e-7
        return self.order * self.tick - self.origin - slack

    @cached_property
    def _by_pts(self) -> tuple[Int64[np.ndarray, "packet"], Int64[np.ndarray, "packet"]]:
        places = np.argsort(self.pts, kind="stable")
        return self.pts[places], places

    def at(self, seconds: Float64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """Which frame is shown at each time, by number in the order shown."""
        return shown_at(self.times, seconds)

    def places(self, pts: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """The place in decoding order of the packets with these pts, or -1."""
        values, places = self._by_pts
        found = np.minimum(np.searchsorted(values, pts), len(values) - 1)
        return np.where(values[found] == pts, places[found], -1)

    def begins(self, places: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """For the frame of each packet, the packet at which decoding must begin for it to be exact.

        It is the last key packet that comes no later in the file and is shown no later: frames
        that an open group of pictures shows before its key frame lean on the group before.
        """
        keys = np.concatenate([[0], np.flatnonzero(self.key)])
        which = np.searchsorted(keys, places, side="right") - 1
        while (late := (which > 0) & (self.pts[keys[which]] > self.pts[places])).any():
            which = which - late
        return keys[which]

    @cached_property
    def packets(self) -> list[tuple[int, int]]:
        """The pts and bytes of each packet, by which it is known again after a jump."""
        return list(zip(self.pts.tolist(), self.size.tolist(), strict=True))


def shown_at(
    times: Float64[np.ndarray, "frame"], seconds: Float64[np.ndarray, "n"]
) -> Int64[np.ndarray, "n"]:
    """Which of the frames that begin at `times` is shown at each moment."""
    return np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(times) - 1)


def index_packets(path: str, container: InputContainer, stream: Stream) -> PacketIndex:
    """The index of a stream, leaving the container read to its end.

    Raises:
        DataError: If the stream holds no frame.
    """
    rows = [
        (
            packet.pts,
            packet.pts if packet.dts is None else packet.dts,
            packet.size,
            packet.duration or 0,
            packet.is_keyframe,
            not packet.is_discard,
        )
        for packet in container.demux(stream)
        if packet.size
    ]
    if _reordered_in_avi(container, stream) or any(row[0] is None for row in rows):
        return _count_frames(path)
    pts = np.array([row[0] for row in rows], dtype=np.int64)
    shown = np.array([row[5] for row in rows], dtype=bool)
    if not shown.any():
        raise DataError(f"{path} has a video stream without a single frame.")
    if len(np.unique(pts[shown])) < shown.sum():
        return _count_frames(path)
    tick = float(stream.time_base or 0) or 1e-6
    first = int(pts[shown].min()) * tick
    start = origin(container) if choose(container, "audio") is not None else first
    last = int(np.argmax(np.where(shown, pts, pts.min())))
    frame = float(stream.average_rate or stream.base_rate or 25)
    held = rows[last][3] * tick or 1 / frame
    return PacketIndex(
        pts=pts,
        dts=np.array([row[1] for row in rows], dtype=np.int64),
        size=np.array([row[2] for row in rows], dtype=np.int64),
        key=np.array([row[4] for row in rows], dtype=bool),
        shown=shown,
        tick=tick,
        origin=start,
        end=int(pts[last]) * tick + held - start,
        exact=True,
    )


def _reordered_in_avi(container: InputContainer, stream: Stream) -> bool:
    """AVI numbers packets in decoding order; of H.264 and HEVC with reordered frames FFmpeg takes
    that for the order shown."""
    context = stream.codec_context
    return (
        container.format.name == "avi"
        and context.name in ("h264", "hevc")
        and bool(getattr(context, "has_b_frames", False))
    )


def _count_frames(path: str) -> PacketIndex:
    """An index of a stream whose packets state no times, or the same one twice: its frames,
    counted while decoding, at the rate that its header states."""
    with opened(path) as container:
        stream = choose(container, "video")
        assert isinstance(stream, VideoStream)
        rate = float(stream.average_rate or stream.base_rate or 25)
        count = sum(1 for _ in container.decode(stream))
    if count == 0:
        raise DataError(f"{path} has a video stream without a single frame that can be decoded.")
    every = np.ones(count, dtype=bool)
    number = np.arange(count)
    return PacketIndex(number, number, number, every, every, 1 / rate, 0.0, count / rate, False)


class IndexStore:
    """Indices of the files used last, in memory and, for long files, on disk.

    Args:
        limit: Bytes kept in memory.
        folder: Where indices of long files are kept between runs; None keeps them in memory only.
    """

    def __init__(self, limit: int = 128 << 20, folder: Path | None = None) -> None:
        self.folder = folder
        self._recent: Recent[PacketIndex] = Recent(limit)

    def get(self, path: str, container: InputContainer, stream: Stream) -> tuple[PacketIndex, bool]:
        """The index of a file that is open.

        Returns:
            The index, and whether the container was read to its end to make it.
        """
        facts = os.stat(path)
        key = f"{os.path.abspath(path)}\0{facts.st_size}\0{facts.st_mtime_ns}\0{stream.index}"
        known = self._recent.get(key)
        if known is not None:
            return known, False
        stored = self._stored(key)
        index = _load(stored) if stored is not None and stored.exists() else None
        moved = index is None
        if index is None:
            index = index_packets(path, container, stream)
            if stored is not None and len(index.pts) >= STORED_PACKETS:
                _save(index, stored)
        return self._recent.put(key, index, 200 * len(index.pts) + 1000), moved

    def _stored(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.npz"


def _save(index: PacketIndex, target: Path) -> None:
    """Writes an index; one that cannot be written is only made again next time."""
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            facts = np.array([index.tick, index.origin, index.end, index.exact], dtype=np.float64)
            np.savez(
                file,
                pts=index.pts,
                dts=index.dts,
                size=index.size,
                key=index.key,
                shown=index.shown,
                facts=facts,
            )
        os.replace(part, target)
    except OSError:
        part.unlink(missing_ok=True)


def _load(path: Path) -> PacketIndex | None:
    """An index written before, or None where the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            tick, start, end, exact = (float(value) for value in file["facts"])
            arrays = {name: file[name] for name in ("pts", "dts", "size", "key", "shown")}
            return PacketIndex(**arrays, tick=tick, origin=start, end=end, exact=bool(exact))
    except (OSError, ValueError, KeyError, EOFError):
        return None
