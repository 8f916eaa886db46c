"""From positions to samples: what a pretext drew, read from files or from the cache.

    reader = Reader({"video": ClipSpec(length=8, stride=4, size=112)})
    timeline = reader.timeline(recording)                         # how far each stream reaches
    samples = reader.read(recording, {"video": positions})        # uint8 (view, time, 112, 112, 3)

Positions count a regular grid that begins with the recording; position p lies p / rate seconds
after its start. Whatever several views share is decoded once. Streams of one recording may lie in
several files, which begin at the same moment, so that positions in all of them meet in seconds.

Text is counted in words: with W words a sentence (the clip's length), positions k * W to
k * W + W - 1 are sentence k, of which the last may be empty.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy
import soundfile
from jaxtyping import Float32, Int64, UInt8

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.recordings import audio, cache, container, picture, text, video
from mainspring.recordings.guard import within
from mainspring.recordings.recent import Recent
from mainspring.recordings.recording import Recording, StreamInfo
from mainspring.recordings.series import read_at
from mainspring.recordings.unsurveyed import look
from mainspring.recordings.video_index import IndexStore

READABLE = ("video", "audio", "series", "text")
# Stretches of sound closer than this are read in one go.
JOINED_SECONDS = 2.0
# Recordings whose streams are remembered, for those that come without.
REMEMBERED = 10_000

Positions = Int64[np.ndarray, "view time"]


class Reader:
    """Reads the streams of recordings at positions. Can be sent to other processes.

    Args:
        clips: For each stream to read, the rate of its positions, for video the working size, and
            for text the length: words in a sentence.
        cache: Where decoded samples are kept; None decodes them each time.
        timeout_seconds: How long decoding may take for one recording before it counts as broken.
        channels: Variables of series, to give shape to those that a recording does not have.

    Raises:
        ConfigError: If a stream cannot be read, video comes without a size, or text without a
            length or with a rate.
    """

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        cache: cache.Cache | None = None,
        timeout_seconds: float = 120.0,
        channels: int = 0,
    ) -> None:
        for stream in clips:
            if stream not in READABLE:
                raise ConfigError(f"The reader reads {', '.join(READABLE)}, not {stream!r}.")
        if "video" in clips and clips["video"].size <= 0:
            raise ConfigError("Video clips need a size: ClipSpec(size=112), in pixels.")
        if "text" in clips and (clips["text"].length <= 0 or clips["text"].rate is not None):
            raise ConfigError(
                "Text clips need a length, words in a sentence, and take no rate: sentences are "
                "spread evenly over their recording. Expected ClipSpec(length=20)."
            )
        self.clips = dict(clips)
        self.cache = cache
        self.timeout_seconds = timeout_seconds
        self.channels = channels
        self._indices = IndexStore()
        self._probed: Recent[dict[str, StreamInfo]] = Recent(REMEMBERED)

    def timeline(self, recording: Recording) -> Timeline:
        """How far each stream asked for reaches, on the grid of its clips; streams that the
        recording does not have are left out, and one that ends before the recording begins while
        another goes on is empty.

        Raises:
            DataError: If the recording has to be opened and cannot be, or begins after its end.
        """
        extents: dict[str, Extent] = {}
        late = []
        for stream, info in self._streams(recording).items():
            if stream not in self.clips:
                continue
            if stream == "text":
                words = self.clips[stream].length
                extents[stream] = Extent(info.length * words, info.rate * words)
                continue
            rate = self.clips[stream].rate or info.rate
            end = info.seconds if recording.end is None else min(recording.end, info.seconds)
            length = math.floor((end - recording.start) * rate + 1e-6)
            if stream == "video" and recording.start == 0:
                length = max(length, 1)
            if length < 0:
                late.append(f"{stream} at {info.seconds:g} seconds")
            extents[stream] = Extent(max(length, 0), rate)
        if late and len(late) == len(extents.keys() - {"text"}):
            raise DataError(
                f"{recording.name} begins after the end of its {' and its '.join(late)}."
            )
        return Timeline(extents)

    def read(self, recording: Recording, clips: Mapping[str, Positions]) -> dict[str, np.ndarray]:
        """Samples at positions. Position -1 is padding; clips of padding alone open no file, and
        may be of a stream that the recording does not have.

        Args:
            recording: What to read from.
            clips: Positions in each stream, one row a view.

        Returns:
            video: uint8 (view, time, size, size, 3), zeros for padding; past the end the last
                frame stands still.
            audio: float32 (view, time), zeros for padding and past the end.
            series: float32 (view, time, channel), NaN for padding, missing and past the end.
            text: int64 (view, time), zeros for padding, past the end, and where a sentence has no
                further word; otherwise a word's hash, see `mainspring.recordings.text`.

        Raises:
            DataError: If the recording cannot be read, or lacks a stream of which more than
                padding is asked.
        """
        read = {
            "video": self._video,
            "audio": self._audio,
            "series": self._series,
            "text": self._text,
        }
        infos = self._streams(recording)
        samples: dict[str, np.ndarray] = {}
        for stream, positions in clips.items():
            if stream not in self.clips:
                raise ConfigError(
                    f"This reader was made for {', '.join(self.clips)}, not {stream!r}."
                )
            if not (positions != NOTHING).any():
                samples[stream] = self._padding(stream, positions.shape, infos.get(stream))
                continue
            if stream not in infos:
                raise DataError(
                    f"{recording.name} has no {stream}, only {', '.join(infos) or 'nothing'}."
                )
            rate = self.clips[stream].rate or infos[stream].rate
            samples[stream] = read[stream](recording, positions, rate, infos[stream])
        return samples

    def stamp(self) -> dict[str, Any]:
        """What made the samples: decoders, their versions and the settings. Plain JSON values."""
        read = {"text": text.WAY} if "text" in self.clips else {}
        return read | {
            "video": container.version(),
            "audio": f"soundfile {soundfile.__version__} ({soundfile.__libsndfile_version__})",
            "resampling": f"scipy {scipy.__version__} resample_poly",
            "resize": f"short side to size, middle square, swscale {picture.SCALER.name}",
            "clips": {
                stream: {"rate": spec.rate, "size": spec.size}
                for stream, spec in self.clips.items()
            },
        }

    def _padding(self, stream: str, shape: tuple[int, ...], info: StreamInfo | None) -> np.ndarray:
        """Clips without a single sample."""
        if stream == "video":
            size = self.clips["video"].size
            return np.zeros((*shape, size, size, 3), dtype=np.uint8)
        if stream == "series":
            channels = (info.channels if info is not None else 0) or self.channels
            return np.full((*shape, channels), np.nan, dtype=np.float32)
        return np.zeros(shape, dtype=np.int64 if stream == "text" else np.float32)

    def _video(
        self, recording: Recording, positions: Positions, rate: float, info: StreamInfo
    ) -> UInt8[np.ndarray, "view time size size 3"]:
        size = self.clips["video"].size
        flat = positions.reshape(-1)
        uri = recording.source("video")
        # Padding is read where samples are: it must not make the decoder begin elsewhere.
        there = flat != NOTHING
        seconds = recording.start + np.where(there, flat, flat[there].min()) / rate
        out = np.empty((len(flat), size, size, 3), dtype=np.uint8)
        if not self._cached_video(uri, seconds, out):
            distinct, copies = np.unique(seconds, return_inverse=True)
            frames = within(
                self.timeout_seconds,
                video.read_frames,
                uri,
                distinct,
                size,
                self._indices,
            )
            np.take(frames, copies, axis=0, out=out, mode="clip")
        if not there.all():
            out[~there] = 0
        return out.reshape(*positions.shape, size, size, 3)

    def _cached_video(self, uri: str, seconds: np.ndarray, out: np.ndarray) -> bool:
        """Fills `out` from the cache; False where there is none or it is full."""
        numbers = np.floor_divide(seconds, cache.CHUNK_SECONDS).astype(np.int64)
        for number in _values(numbers):
            entry = self._entry("video", uri, number, out.shape[1])
            if entry is None:
                return False
            rows = numbers == number
            if rows.all():
                cache.frames_at(entry, seconds, out)
            else:
                part = np.empty((int(rows.sum()), *out.shape[1:]), dtype=np.uint8)
                cache.frames_at(entry, seconds[rows], part)
                out[rows] = part
        return True

    def _audio(
        self, recording: Recording, positions: Positions, rate: float, info: StreamInfo
    ) -> Float32[np.ndarray, "view time"]:
        uri = recording.source("audio")
        first = math.floor(recording.start * rate + 0.5)
        out = np.zeros(positions.shape, dtype=np.float32)
        there = positions != NOTHING
        if self._cached_audio(uri, rate, first + positions, there, out):
            return out
        for begin, count, rows in _stretches(positions, there, rate):
            sound = within(
                self.timeout_seconds,
                audio.read_samples,
                uri,
                first + begin,
                count,
                rate,
            )
            offsets = np.clip(positions[rows] - begin, 0, count - 1)
            out[rows] = np.where(there[rows], sound[offsets], 0)
        return out

    def _cached_audio(
        self, uri: str, rate: float, samples: np.ndarray, there: np.ndarray, out: np.ndarray
    ) -> bool:
        """Fills `out` from the cache; False where there is none or it is full."""
        length = cache.samples_a_chunk(rate)
        numbers = np.floor_divide(samples, length)
        for number in _values(numbers[there]):
            entry = self._entry("audio", uri, number, rate)
            if entry is None:
                return False
            places = there & (numbers == number)
            out[places] = cache.samples_at(entry, samples[places] - number * length)
        return True

    def _entry(self, stream: str, uri: str, number: int, setting: float) -> cache.Entry | None:
        """A stretch from the cache, decoded into it if need be; None to read without."""
        if self.cache is None:
            return None
        try:
            if stream == "video":
                return self.cache.video(uri, number, int(setting))
            return self.cache.audio(uri, number, setting)
        except RunError as error:
            self.cache = None
            warnings.warn(f"{error} Reading goes on without a cache.", stacklevel=2)
            return None

    def _series(
        self, recording: Recording, positions: Positions, rate: float, info: StreamInfo
    ) -> Float32[np.ndarray, "view time channel"]:
        wanted = positions
        if rate != info.rate:
            wanted = np.floor(positions * (info.rate / rate) + 0.5).astype(np.int64)
            # On a finer grid the last row stands until the recording ends.
            end = info.seconds if recording.end is None else min(recording.end, info.seconds)
            length, last = (
                math.floor((end - recording.start) * per + 1e-6) for per in (rate, info.rate)
            )
            wanted = np.where(positions < length, np.minimum(wanted, max(last - 1, 0)), wanted)
        there = positions != NOTHING
        uri = recording.source("series")
        rows = read_at(uri, wanted[there], recording.start, recording.end)
        out = np.full((*positions.shape, rows.shape[1]), np.nan, dtype=np.float32)
        out[there] = rows
        return out

    def _text(
        self, recording: Recording, positions: Positions, rate: float, info: StreamInfo
    ) -> Int64[np.ndarray, "view time"]:
        return text.read_words(recording.caption, positions, self.clips["text"].length)

    def _streams(self, recording: Recording) -> dict[str, StreamInfo]:
        """What a recording holds, looked up in its files where it does not say."""
        held = recording.streams
        if not held:
            place = (recording.uri, *sorted(recording.companions.items()))
            known = self._probed.get(place)
            if known is None:
                found = within(
                    self.timeout_seconds, look, recording.uri, recording.companions, [*self.clips]
                )
                known = self._probed.put(place, found)
            held = known
        if "text" not in self.clips or "text" in held or not recording.caption:
            return held
        end = max(info.seconds for info in held.values())
        end = end if recording.end is None else min(end, recording.end)
        info = text.text_info(recording.caption, recording.start, end)
        return held if info is None else {**held, "text": info}


def _values(numbers: np.ndarray) -> list[int]:
    """The distinct values, quickly where there is but one."""
    low, high = int(numbers.min()), int(numbers.max())
    return [low] if low == high else np.unique(numbers).tolist()


def _stretches(
    positions: np.ndarray, there: np.ndarray, rate: float
) -> list[tuple[int, int, np.ndarray]]:
    """What to read in one go: first position, number of positions, and the views that lie in it.

    Views that overlap or nearly touch are read together.
    """
    far = np.iinfo(np.int64).max
    lows = np.where(there, positions, far).min(axis=1)
    highs = np.where(there, positions, -1).max(axis=1)
    stretches: list[tuple[int, int, list[int]]] = []
    for row in np.argsort(lows).tolist():
        low, high = int(lows[row]), int(highs[row])
        if high < 0:
            continue
        if stretches and low - stretches[-1][1] <= JOINED_SECONDS * rate:
            begin, end, rows = stretches.pop()
            stretches.append((begin, max(end, high), [*rows, row]))
        else:
            stretches.append((low, high, [row]))
    return [(low, high - low + 1, np.array(rows)) for low, high, rows in stretches]
