"""Facts about media files, and frames of a video at given times.

    streams = probe_media("clip.mp4")                 # {"video": StreamInfo, "audio": StreamInfo}
    frames = read_frames("clip.mp4", np.array([0.0, 0.5, 0.25]), size=112)

Every frame needed is decoded once, however often it is asked for, in one forward pass from the key
frame before it. Frames on the way that nothing leans on are not decoded at all (`skip_frame`), and
the way between two needed frames is jumped where a key frame lies on it. Both change nothing in
the frames asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Float64, Int64, UInt8

from mainspring.errors import DataError
from mainspring.recordings.audio import AudioTrack, probe_soundfile
from mainspring.recordings.container import (
    GUESSING,
    LATE_SECONDS,
    check_file,
    choose,
    cut_off,
    mistaken,
    opened,
    origin,
)
from mainspring.recordings.picture import Picture, orientation
from mainspring.recordings.recording import StreamInfo
from mainspring.recordings.video_index import IndexStore, PacketIndex, index_packets

# Packets looked through for a first frame before a stream counts as undecodable.
PROBED_PACKETS = 1000
# How much earlier to aim where a jump lands behind the key frame it was meant for.
EARLY_SECONDS = 1.5

Take = Callable[[VideoFrame, int], None]


def probe_media(path: str) -> dict[str, StreamInfo]:
    """The video and the sound of a file: any container that PyAV opens, any sound file that
    soundfile opens. One frame of each is decoded, so what is listed can be read.

    Cover art, subtitles and data streams are passed over. Of several tracks the default one
    counts, else the first. A stream's seconds run from the file's beginning to the stream's end.

    Returns:
        Facts under "video" and "audio", as far as the file has them.

    Raises:
        DataError: If the file is missing, forbidden, empty, cut off, not a media file, or has no
            stream that can be decoded.
    """
    check_file(path)
    sound = probe_soundfile(path)
    if sound is not None:
        return {"audio": sound}
    with opened(path) as container:
        video, audio = choose(container, "video"), choose(container, "audio")
        found: dict[str, StreamInfo] = {}
        frames = _first_frames(container, [s for s in (video, audio) if s is not None])
        if isinstance(video, VideoStream) and video.index in frames:
            found["video"] = _video_info(path, container, video, frames[video.index])
        if audio is not None and audio.index in frames:
            found["audio"] = AudioTrack(path, container, audio).info(frames[audio.index])
        if not found:
            kinds = ", ".join(stream.type for stream in container.streams) or "none"
            sensible = any(stream.type not in ("video", "audio") for stream in container.streams)
            raise DataError(
                (None if sensible else mistaken(path))
                or f"{path} has no video or sound that can be decoded (its streams: {kinds})."
            )
    return found


def read_frames(
    path: str, seconds: Float64[np.ndarray, "n"], size: int, indices: IndexStore | None = None
) -> UInt8[np.ndarray, "n size size 3"]:
    """The frames shown at given times, RGB, scaled so that the short side is `size` and cropped to
    the middle `size` x `size` (see `Picture`).

    Args:
        path: A file with video.
        seconds: Times from the file's beginning, in any order. The frame shown at time t is the
            last one that begins at or before t; the first one before the beginning, the last one
            after the end.
        size: Height and width in pixels.
        indices: Packet indices of other calls, to use and add to.

    Raises:
        DataError: If the file cannot be read or has no video.
    """
    if len(seconds) == 0:
        return np.zeros((0, size, size, 3), dtype=np.uint8)
    with opened(path) as container:
        video = VideoFile(path, container, indices)
        wanted, copies = np.unique(video.index.at(seconds), return_inverse=True)
        frames = video.read(wanted, size)
    if len(wanted) == len(seconds) and np.array_equal(copies, np.arange(len(copies))):
        return frames
    return frames[copies]


@dataclass(frozen=True)
class Pass:
    """Packets fed to the decoder in one go.

    Attributes:
        first: Place of the first packet, a key packet.
        last: Place of the last packet of a frame asked for.
        pts: Of the frames asked for.
    """

    first: int
    last: int
    pts: frozenset[int]


def plan_passes(index: PacketIndex, wanted: Int64[np.ndarray, "frame"]) -> list[Pass]:
    """How to reach the frames `wanted` (numbers in the order shown): a new pass begins where a key
    packet lies beyond everything needed before it."""
    steps: dict[int, list[tuple[int, int]]] = {}
    asked = index.order[wanted]
    places = index.places(asked)
    begins = index.begins(places)
    for begin, place, pts in zip(begins.tolist(), places.tolist(), asked.tolist(), strict=True):
        steps.setdefault(begin, []).append((place, pts))
    passes: list[Pass] = []
    for first, frames in sorted(steps.items()):
        last, pts = max(place for place, _ in frames), frozenset(pts for _, pts in frames)
        if passes and first <= passes[-1].last + 1:
            before = passes.pop()
            first, last, pts = before.first, max(last, before.last), pts | before.pts
        passes.append(Pass(first, last, pts))
    return passes


class VideoFile:
    """A video that is open for reading.

    Attributes:
        path: Where it is.
        container: The file, opened.
        index: Its packets.
    """

    def __init__(
        self, path: str, container: InputContainer, indices: IndexStore | None = None
    ) -> None:
        self.path = path
        self.container = container
        self._stream = _video_stream(path, container)
        self.index, self._moved = (indices or IndexStore()).get(path, container, self._stream)

    def read(
        self, wanted: Int64[np.ndarray, "frame"], size: int
    ) -> UInt8[np.ndarray, "frame size size 3"]:
        """Frames by number in the order shown; `wanted` is sorted and without repeats."""
        frames = np.empty((len(wanted), size, size, 3), dtype=np.uint8)
        row_of = {pts: row for row, pts in enumerate(self.index.order[wanted].tolist())}
        missing = set(row_of)
        picture: Picture | None = None

        def take(frame: VideoFrame, pts: int) -> None:
            nonlocal picture
            if picture is None:
                picture = Picture(size, frame, self._stream.sample_aspect_ratio)
            frames[row_of[pts]] = picture.pixels(frame)
            missing.discard(pts)

        if self.index.exact:
            for step in plan_passes(self.index, wanted):
                self._play(step, missing, take)
        if missing:
            self._play_all(missing, take)
        return frames

    def _play(self, step: Pass, missing: set[int], take: Take) -> None:
        """Feeds one pass to the decoder. Frames that do not come out stay missing."""
        context = self._stream.codec_context
        asked: bool | None = None
        for place, packet in enumerate(self._packets_from(step.first), start=step.first):
            if asked != (packet.pts in step.pts):
                asked = packet.pts in step.pts
                context.skip_frame = "DEFAULT" if asked else "NONREF"
            for frame in _decoded(self._stream, packet):
                if frame.pts in missing and frame.pts in step.pts:
                    take(frame, frame.pts)
            if place >= step.last:
                break
        for frame in _decoded(self._stream, None):
            if frame.pts in missing and frame.pts in step.pts:
                take(frame, frame.pts)

    def _packets_from(self, first: int) -> Iterator[Packet[VideoStream]]:
        """Packets in decoding order from place `first` on; nothing where no jump leads there.

        Containers differ in the clock they jump by, and some land late: so three tries.
        """
        pts, dts = int(self.index.pts[first]), int(self.index.dts[first])
        fresh, self._moved = first == 0 and not self._moved, True
        if fresh:
            yield from self._expected(first)
            return
        for target in (pts, dts, min(pts, dts) - round(EARLY_SECONDS / self.index.tick)):
            try:
                self.container.seek(target, stream=self._stream, backward=True)
            except av.FFmpegError:
                continue
            packets = self._expected(first)
            packet = next(packets, None)
            if packet is not None:
                yield packet
                yield from packets
                return

    def _expected(self, first: int) -> Iterator[Packet[VideoStream]]:
        """The packets that come now, from place `first` on, as long as they are those that the
        index expects; nothing if that place has gone by."""
        packets = self.index.packets
        place = -1
        for packet in self.container.demux(self._stream):
            if not packet.size or packet.pts is None:
                continue
            if place >= 0:
                place += 1
            else:
                place = int(self.index.places(np.array([packet.pts]))[0])
                if place < 0 or place > first:
                    return
            if place >= len(packets) or packets[place] != (packet.pts, packet.size):
                return
            if place >= first:
                yield packet

    def _play_all(self, missing: set[int], take: Take) -> None:
        """Decodes everything from the beginning: for files whose packets state no times, for
        those that cannot be searched, and for frames that are damaged, which the frame before
        them (or the first good one) stands for."""
        with opened(self.path) as container:
            stream = _video_stream(self.path, container)
            before: VideoFrame | None = None
            for count, frame in enumerate(_frames(container, stream)):
                now = frame.pts if self.index.exact else count
                if now is None:
                    continue
                for pts in [pts for pts in missing if pts < now]:
                    take(before or frame, pts)
                if now in missing:
                    take(frame, now)
                if not missing:
                    return
                before = frame
            if before is None:
                raise DataError(f"{self.path} has a video stream, but none of it can be decoded.")
            for pts in list(missing):
                take(before, pts)


def _video_stream(path: str, container: InputContainer) -> VideoStream:
    stream = choose(container, "video")
    if not isinstance(stream, VideoStream):
        raise DataError(f"{path} has no video.")
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def _decoded(stream: VideoStream, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
    """What the decoder hands out on a packet (None: what it still holds); nothing for a damaged
    one."""
    try:
        return stream.decode(packet)
    except (av.error.InvalidDataError, av.error.EOFError):
        return []


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in container.demux(stream):
        yield from _decoded(stream, packet)


def _first_frames(container: InputContainer, streams: list[Stream]) -> dict[int, Frame]:
    """The first frame of each stream by the stream's index, of those that can be decoded."""
    frames: dict[int, Frame] = {}
    if not streams:
        return frames
    for count, packet in enumerate(container.demux(*streams)):
        if packet.stream_index not in frames:
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                continue
            if decoded and isinstance(decoded[0], Frame):
                frames[packet.stream_index] = decoded[0]
        if len(frames) == len(streams) or count > PROBED_PACKETS:
            break
    return frames


def _video_info(
    path: str, container: InputContainer, stream: VideoStream, first: Frame
) -> StreamInfo:
    assert isinstance(first, VideoFrame)
    rate = float(stream.average_rate or stream.base_rate or 0)
    seconds, length = _stated_seconds(container, stream), stream.frames
    if seconds <= 0 or rate <= 0 or cut_off(path, stream):
        with opened(path) as again:
            index = index_packets(path, again, _video_stream(path, again))
        seconds, length = index.end, len(index.order)
        rate = rate if rate > 0 else max(length / seconds, 1.0)
    swap, _, _ = orientation(first)
    width, height = (first.height, first.width) if swap else (first.width, first.height)
    return StreamInfo(
        kind="video",
        length=max(1, length or round(seconds * rate)),
        rate=rate,
        seconds=seconds,
        width=width,
        height=height,
        codec=stream.codec_context.name,
    )


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float:
    """When the stream ends, from the file's beginning, as far as the container says so without
    doubt; else 0."""
    if container.format.name in GUESSING:
        return 0.0
    tick = float(stream.time_base or 0)
    start = (stream.start_time or 0) * tick
    begin = origin(container) if choose(container, "audio") is not None else start
    if stream.duration:
        return start - begin + stream.duration * tick
    if begin >= LATE_SECONDS:
        return 0.0
    stated = stream.metadata.get("DURATION", "").split(":")
    if len(stated) == 3:
        try:
            return int(stated[0]) * 3600 + int(stated[1]) * 60 + float(stated[2])
        except ValueError:
            return 0.0
    return container.duration / av.time_base if container.duration else 0.0
