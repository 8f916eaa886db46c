"""The sound of a file between two times: mono, at the asked rate.

soundfile reads what it can (WAV, FLAC, OGG, MP3, AIFF ...), PyAV the rest and the sound of videos.
Positions count a grid that begins with the file, so a span read on its own equals the same span
cut from the whole file resampled: the filter sees its true neighbourhood, in its true phase.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import soundfile
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.stream import Stream
from jaxtyping import Float32
from scipy.signal import resample_poly

from mainspring.errors import DataError
from mainspring.recordings.container import (
    GUESSING,
    LATE_SECONDS,
    check_file,
    choose,
    cut_off,
    opened,
    origin,
)
from mainspring.recordings.recording import StreamInfo

# Reach of resample_poly's default filter to either side, in samples of the slower rate.
FILTER_REACH = 10
# Decoders of overlapping blocks need blocks before the first one wanted: MP3's reservoir reaches
# back furthest, Opus asks for 80 ms.
PREROLL_SECONDS = 0.25
# soundfile's formats whose header states a length, which a file that was cut short does not have.
STATED = ("FLAC", "MP3")
BLOCK_FRAMES = 4096
# soundfile's formats whose blocks lean on those before.
LEANING = ("MP3", "OGG")
# A gap between blocks longer than this is silence in the file, not rounding of its clock.
GAP_SECONDS = 0.02
# Greatest up or down factor of the rational resampling; 44.1 to 16 kHz is 160 / 441.
LARGEST_FACTOR = 2000

# What libsndfile states where a FLAC that was written to a pipe states no length.
UNSTATED_FRAMES = 2**63 - 1

INTEGER_SCALE = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31}


def probe_soundfile(path: str) -> StreamInfo | None:
    """Facts of a sound file, or None where soundfile cannot open it or tell its length. A file that
    was cut short is as long as what is left of it.

    Raises:
        DataError: If it can be opened but holds no sample.
    """
    try:
        facts = soundfile.info(path)
    except soundfile.LibsndfileError:
        return None
    if facts.frames == UNSTATED_FRAMES:
        return None
    frames = _left(path, facts.frames) if facts.format in STATED else facts.frames
    if frames <= 0:
        raise DataError(f"{path} is a sound file without a single sample.")
    return StreamInfo(
        kind="audio",
        length=frames,
        rate=float(facts.samplerate),
        seconds=frames / facts.samplerate,
        channels=facts.channels,
        codec=f"{facts.format} {facts.subtype}",
    )


def _left(path: str, stated: int) -> int:
    """How many samples can be read of those that a header states."""
    with soundfile.SoundFile(path) as file:
        try:
            file.seek(max(0, stated - 1))
            if len(file.read(1)):
                return stated
        except soundfile.LibsndfileError:
            pass
    found = 0
    with soundfile.SoundFile(path) as file:
        try:
            while count := len(file.read(BLOCK_FRAMES)):
                found += count
        except soundfile.LibsndfileError:
            pass
    return found


def read_sound(path: str, start: float, stop: float, rate: float) -> Float32[np.ndarray, "time"]:
    """Sound between two times, the mean of all channels, about in [-1, 1]. Samples that are no
    finite numbers come as zeros.

    Args:
        path: A sound file, or a container with sound (the default track, else the first).
        start: Seconds from the file's beginning, to the nearest sample of the rate.
        stop: Seconds from the file's beginning; past the end, zeros follow.
        rate: Samples per second.

    Returns:
        round((stop - start) * rate) samples.

    Raises:
        DataError: If the file cannot be read or has no sound.
    """
    count = max(0, round((stop - start) * rate))
    return read_samples(path, math.floor(start * rate + 0.5), count, rate)


def read_samples(path: str, first: int, count: int, rate: float) -> Float32[np.ndarray, "{count}"]:
    """`count` samples from sample `first` on, at `rate` from the file's beginning."""
    check_file(path)
    return np.nan_to_num(_read(path, first, count, rate), posinf=0.0, neginf=0.0)


def _read(path: str, first: int, count: int, rate: float) -> Float32[np.ndarray, "{count}"]:
    try:
        with soundfile.SoundFile(path) as file:
            return _resampled(_SoundFile(file), first, count, rate)
    except soundfile.LibsndfileError:
        pass
    try:
        return _from_container(path, first, count, rate, search=True)
    except Unsearchable:
        return _from_container(path, first, count, rate, search=False)


def _from_container(
    path: str, first: int, count: int, rate: float, search: bool
) -> Float32[np.ndarray, "{count}"]:
    with opened(path) as container:
        stream = choose(container, "audio")
        if stream is None:
            raise DataError(f"{path} has no sound.")
        return _resampled(AudioTrack(path, container, stream, search), first, count, rate)


def _resampled(
    source: _SoundFile | AudioTrack, first: int, count: int, rate: float
) -> Float32[np.ndarray, "{count}"]:
    """Samples [first, first + count) of the whole source resampled, from just the part needed.

    Output block b of `up` samples stands on source block b of `down` samples; cutting the source
    between blocks keeps the filter's phase.
    """
    ratio = Fraction(rate / source.rate).limit_denominator(LARGEST_FACTOR)
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return source.read(first, first + count)
    margin = math.ceil(FILTER_REACH * max(up, down) / up) + 1
    block = max(0, (first // up) - math.ceil(margin / down))
    begin = block * down
    end = math.ceil((first + count) * down / up) + margin
    if end <= begin:
        return np.zeros(count, dtype=np.float32)
    dense = resample_poly(source.read(begin, end), up, down)
    out = np.zeros(count, dtype=np.float32)
    offset = block * up - first
    _place(out, dense, offset)
    return out


def _place(out: np.ndarray, samples: np.ndarray, offset: int) -> None:
    """out[offset : offset + len(samples)] = samples, for the part that lies within `out`."""
    low, high = max(0, offset), min(len(out), offset + len(samples))
    if low < high:
        out[low:high] = samples[low - offset : high - offset]


class _SoundFile:
    """A file open with soundfile, as a source of mono samples."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self.file = file
        self.rate = float(file.samplerate)

    def read(self, begin: int, end: int) -> Float32[np.ndarray, "time"]:
        """Samples [begin, end); zeros outside the file."""
        out = np.zeros(max(0, end - begin), dtype=np.float32)
        low, high = max(0, begin), min(end, self.file.frames)
        if low < high:
            early = round(PREROLL_SECONDS * self.rate) if self.file.format in LEANING else 0
            first = max(0, low - early)
            self.file.seek(first)
            samples = self.file.read(high - first, dtype="float32", always_2d=True)
            _place(out, samples[low - first :].mean(axis=1, dtype=np.float32), low - begin)
        return out


class Unsearchable(Exception):
    """A container does not bring one where it was asked to; it can only be read from its start."""


class AudioTrack:
    """A sound stream of a container just opened, as a source of mono samples.

    Blocks are laid out by their timestamps, so encoder delay, late beginnings and gaps come out
    where they belong.

    Args:
        path: Where the file is.
        container: The file, opened and not read from yet.
        stream: Its sound.
        search: Whether to jump near the samples wanted instead of decoding from the start.
    """

    def __init__(
        self, path: str, container: InputContainer, stream: Stream, search: bool = True
    ) -> None:
        assert isinstance(stream, AudioStream)
        self.path = path
        self.container = container
        self.stream = stream
        self.search = search
        self.rate = float(stream.codec_context.sample_rate)
        self.tick = float(stream.time_base or 0) or 1 / self.rate
        self.start = (stream.start_time or 0) * self.tick
        mixed = choose(container, "video") is not None
        self.origin = origin(container) if mixed else self.start
        self.grid: int | None = None

    def info(self, first: Frame) -> StreamInfo:
        """Facts of the stream, given its first frame."""
        assert isinstance(first, AudioFrame)
        if self.container.format.name in GUESSING or cut_off(self.path, self.stream):
            seconds = self._last_end()
        elif self.stream.duration:
            seconds = self.start - self.origin + self.stream.duration * self.tick
        elif self.container.duration and self.origin < LATE_SECONDS:
            seconds = self.container.duration / av.time_base
        else:
            seconds = self._last_end()
        return StreamInfo(
            kind="audio",
            length=round(seconds * self.rate),
            rate=self.rate,
            seconds=seconds,
            channels=first.layout.nb_channels,
            codec=self.stream.codec_context.name,
        )

    def _last_end(self) -> float:
        """When the last packet ends, in seconds from the file's beginning, by reading them all."""
        end = 0.0
        with opened(self.path) as container:
            for packet in container.demux(container.streams[self.stream.index]):
                if packet.pts is not None:
                    last = (packet.pts + (packet.duration or 0)) * self.tick
                    end = max(end, last - self.origin)
        return end

    def read(self, begin: int, end: int) -> Float32[np.ndarray, "time"]:
        """Samples [begin, end) from the file's beginning; zeros where the stream has none.

        Raises:
            Unsearchable: If jumping did not lead to where it should; read without `search` then.
        """
        out = np.zeros(max(0, end - begin), dtype=np.float32)
        latest: float | None = None
        target = begin / self.rate - PREROLL_SECONDS + self.origin
        if self.search and target > self.start:
            latest = begin - PREROLL_SECONDS / 2 * self.rate
            if self.tick * self.rate > 1:
                self._learn_grid()
            try:
                self.container.seek(int(target / self.tick), stream=self.stream, backward=True)
            except av.FFmpegError:
                raise Unsearchable from None
        here: int | None = None
        for block in self._blocks():
            stated = self._stated(block)
            if here is None:
                if latest is not None and (stated is None or stated > latest):
                    raise Unsearchable
                here = 0 if stated is None else self._snapped(stated, block.samples)
            elif stated is not None and abs(stated - here) > GAP_SECONDS * self.rate:
                here = stated
            if here >= end:
                break
            if here + block.samples > begin:
                _place(out, mono(block), here - begin)
            here += block.samples
        if here is None and latest is not None:
            raise Unsearchable
        return out

    def _blocks(self) -> Iterator[AudioFrame]:
        """Decoded blocks; damaged ones are left out."""
        for packet in self.container.demux(self.stream):
            try:
                blocks = packet.decode()
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
            for block in blocks:
                assert isinstance(block, AudioFrame)
                yield block

    def _stated(self, block: AudioFrame) -> int | None:
        """Where a block begins by its timestamp, in samples from the file's beginning."""
        if block.pts is None:
            return None
        return round((block.pts * self.tick - self.origin) * self.rate)

    def _learn_grid(self) -> None:
        """Where the first block ends. Blocks are equally long but for the first one, from which
        the encoder's delay is cut; in containers whose clock is too coarse to tell samples apart,
        that places every later block to the sample."""
        first = next(self._blocks(), None)
        if first is not None:
            self.grid = (self._stated(first) or 0) + first.samples

    def _snapped(self, stated: int, samples: int) -> int:
        """A block's beginning on the grid, if that is what its timestamp means."""
        if self.grid is None:
            return stated
        near = self.grid + round((stated - self.grid) / samples) * samples
        return near if abs(near - stated) <= self.tick * self.rate else stated


def mono(block: AudioFrame) -> Float32[np.ndarray, "time"]:
    """The mean of a block's channels as floats."""
    values = block.to_ndarray()
    channels = block.layout.nb_channels
    if not block.format.is_planar:
        values = values.reshape(-1, channels).T
    kind = values.dtype.str[1:]
    if kind in INTEGER_SCALE:
        values = values.astype(np.float32) / INTEGER_SCALE[kind]
        if kind == "u1":
            values -= 1
    return values.mean(axis=0, dtype=np.float32)
