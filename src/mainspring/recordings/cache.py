"""Decoded frames and samples on disk, so that training reads memory instead of decoding.

A file is kept in stretches of `CHUNK_SECONDS`, decoded when first needed or ahead of time by
`build`. Short files are one stretch; of long ones only the stretches that recordings touch are
kept, each once, however many windows overlap in it.

Frames are uint8 at the working size, all of them, whatever the clip's rate (112 x 112: 38 kB a
frame). Sound is int16 with a scale of its own for each stretch: the error is at most 1 / 65534 of
the stretch's peak (-96 dB), against 1 / 2048 of each sample for float16 at the same size.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import soundfile
from jaxtyping import Float32, Int64, UInt8

from mainspring.clips import ClipSpec
from mainspring.errors import DataError, RunError
from mainspring.recordings import audio, container, picture, video
from mainspring.recordings.guard import within
from mainspring.recordings.processes import may_start
from mainspring.recordings.recording import Recording, StreamInfo
from mainspring.recordings.store import Entry, Stamps, Store
from mainspring.recordings.unsurveyed import look
from mainspring.recordings.video_index import IndexStore, shown_at

DECODED = frozenset({"video", "audio"})
"""Streams that are kept; others are read as they lie."""

CHUNK_SECONDS = 20.0
# Raised when what is kept, or how it is made, changes.
LAYOUT = 1

# Stretches that a process decodes between two reports.
BATCHED = 16


@dataclass(frozen=True)
class Chunk:
    """A stretch of one stream of a file.

    Attributes:
        path: The file.
        stream: "video" or "audio".
        number: Which stretch: it begins number * CHUNK_SECONDS after the file's beginning.
        setting: Working size of video in pixels; rate of sound in samples per second.
    """

    path: str
    stream: str
    number: int
    setting: float


class Cache:
    """Decoded stretches of files, kept in a folder.

    Entries are found by the content of the file (size, time of change, a hash of its head, middle
    and tail), the decoder's version and the working size or rate, so that a changed file, decoder
    or setting never meets what was decoded before.

    Args:
        folder: Where they are kept; several processes may share it.
        budget_bytes: How much disk they may take. What does not fit is decoded anew each time.
        timeout_seconds: How long decoding one stretch may take.

    Raises:
        RunError: If the folder cannot be made.
    """

    def __init__(
        self, folder: str | os.PathLike[str], budget_bytes: int, timeout_seconds: float = 300.0
    ) -> None:
        self.folder = os.fspath(folder)
        self.budget_bytes = budget_bytes
        self.timeout_seconds = timeout_seconds
        self._store = Store(folder, budget_bytes)
        self._stamps = Stamps()
        versions = [container.version(), soundfile.__libsndfile_version__]
        self._making = [LAYOUT, CHUNK_SECONDS, picture.SCALER.name, *versions]
        self._indices = IndexStore(folder=self._store.folder / "index")

    def video(self, path: str, number: int, size: int) -> Entry | None:
        """The frames shown during one stretch: `facts` float64 (frame,), when each begins in
        seconds from the file's beginning; `data` uint8 (frame, size, size, 3).

        Returns:
            None where the budget is used up.

        Raises:
            DataError: If the file cannot be decoded.
            RunError: If the cache cannot be written.
        """
        return self._entry(Chunk(path, "video", number, size))

    def audio(self, path: str, number: int, rate: float) -> Entry | None:
        """The samples of one stretch: `facts` float32 (1,), the scale; `data` int16 (time,).
        See `video` for what comes back and what is raised."""
        return self._entry(Chunk(path, "audio", number, rate))

    def _entry(self, chunk: Chunk) -> Entry | None:
        key = self._key(chunk)
        entry = self._store.get(key)
        if entry is None:
            decode = self._frames if chunk.stream == "video" else self._samples
            facts, data = within(self.timeout_seconds, decode, chunk.path, chunk)
            entry = self._store.put(key, facts, data)
        return entry

    def _key(self, chunk: Chunk) -> str:
        content = json.dumps(
            [
                *self._making,
                self._stamps[chunk.path],
                chunk.stream,
                chunk.number,
                float(chunk.setting),
            ]
        )
        return hashlib.blake2b(content.encode(), digest_size=20).hexdigest()

    def _frames(self, path: str, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
        with container.opened(path) as opened:
            file = video.VideoFile(path, opened, self._indices)
            start = chunk.number * CHUNK_SECONDS
            ends = np.array([start, start + CHUNK_SECONDS])
            first, last = file.index.at(ends).tolist()
            shown = np.arange(first, last + 1)
            return file.index.times[shown], file.read(shown, int(chunk.setting))

    def _samples(self, path: str, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
        count = samples_a_chunk(chunk.setting)
        sound = audio.read_samples(path, chunk.number * count, count, chunk.setting)
        sound = np.trim_zeros(sound, "b")
        peak = float(np.abs(sound).max(initial=0.0))
        scale = np.float32(peak / 32767) if peak > 0 else np.float32(1)
        return np.array([scale], np.float32), np.round(sound / scale).astype(np.int16)

    def fits(
        self, recordings: Iterable[Recording], clips: Mapping[str, ClipSpec]
    ) -> tuple[bool, int]:
        """Whether all recordings, decoded, stay within the budget, and how many bytes they take.

        Recordings whose `streams` are not filled in are opened to find out; those that cannot be
        opened count nothing.
        """
        total = 0
        seen: set[Chunk] = set()
        for recording in recordings:
            for chunk, info in _needed(recording, clips):
                if chunk not in seen:
                    seen.add(chunk)
                    total += _size(chunk, info)
        return total <= self.budget_bytes, total

    def build(
        self,
        recordings: Iterable[Recording],
        clips: Mapping[str, ClipSpec],
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, str]:
        """Decodes ahead of time all that reading `clips` from `recordings` needs.

        Entries of other data or settings make room, oldest first, if they must. What is there
        already is not made again, so a build that was stopped goes on where it stood.

        Args:
            recordings: What will be read.
            clips: How; only "video" and "audio" are kept.
            workers: Processes that decode.
            progress: Called with (stretches done, stretches in all).

        Returns:
            The reason for each file that could not be decoded.

        Raises:
            RunError: If the disk is full; what was finished stays.
        """
        needed: dict[Chunk, int] = {}
        for recording in recordings:
            needed.update({chunk: _size(chunk, info) for chunk, info in _needed(recording, clips)})
        problems: dict[str, str] = {}
        todo, wanted, keep = [], 0, set()
        for chunk, size in needed.items():
            try:
                key = self._key(chunk)
            except DataError as error:
                problems[chunk.path] = str(error)
                continue
            keep.add(key)
            if self._store.get(key) is None:
                todo.append(chunk)
                wanted += size
        self._store.make_room(wanted, keep)
        done = len(needed) - len(todo)
        for chunk, problem in self._built(todo, workers):
            done += 1
            if problem:
                problems[chunk.path] = problem
            if progress is not None:
                progress(done, len(needed))
        return problems

    def _built(self, todo: list[Chunk], workers: int) -> Iterator[tuple[Chunk, str | None]]:
        if workers <= 1 or len(todo) <= 1 or not may_start():
            yield from ((chunk, self._problem(chunk)) for chunk in todo)
            return
        step = max(1, min(BATCHED, len(todo) // (4 * workers)))
        batches = [todo[at : at + step] for at in range(0, len(todo), step)]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(batches)), mp_context=spawn) as pool:
            try:
                answers = pool.map(self._problems, batches)
                for batch, problems in zip(batches, answers, strict=True):
                    yield from zip(batch, problems, strict=True)
            except BrokenProcessPool as error:
                raise RunError(
                    "A process that decoded for the cache ended early. A script must do its work "
                    "under `if __name__ == '__main__':`, or the processes it starts run it again; "
                    "otherwise memory was most likely short: run again with fewer workers. What "
                    "was finished is kept."
                ) from error

    def _problems(self, chunks: list[Chunk]) -> list[str | None]:
        return [self._problem(chunk) for chunk in chunks]

    def _problem(self, chunk: Chunk) -> str | None:
        """Decodes one stretch; returns why it could not."""
        try:
            self._entry(chunk)
        except DataError as error:
            return str(error)
        return None

    def __getstate__(self) -> tuple[str, int, float]:
        return self.folder, self.budget_bytes, self.timeout_seconds

    def __setstate__(self, state: tuple[str, int, float]) -> None:
        Cache.__init__(self, *state)


def frames_at(entry: Entry, seconds: np.ndarray, out: UInt8[np.ndarray, "n size size 3"]) -> None:
    """Fills `out` with the frames shown at `seconds`, all within the entry's stretch."""
    np.take(entry.data, shown_at(entry.facts, seconds), axis=0, out=out, mode="clip")


def samples_at(entry: Entry, offsets: Int64[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    """The samples at `offsets` from the beginning of the entry's stretch; zeros past its end."""
    if len(entry.data) == 0:
        return np.zeros(len(offsets), dtype=np.float32)
    samples = np.take(entry.data, offsets, mode="clip") * entry.facts[0]
    samples[offsets >= len(entry.data)] = 0
    return samples


def samples_a_chunk(rate: float) -> int:
    """Samples of sound in a stretch."""
    return round(CHUNK_SECONDS * rate)


def _needed(
    recording: Recording, clips: Mapping[str, ClipSpec]
) -> Iterator[tuple[Chunk, StreamInfo]]:
    """The stretches that reading a recording touches."""
    wanted = [stream for stream in clips if stream in DECODED]
    if not wanted or recording.problem:
        return
    try:
        streams = recording.streams or look(recording.uri, recording.companions, wanted)
    except DataError:
        return
    for stream in wanted:
        info = streams.get(stream)
        if info is None:
            continue
        spec = clips[stream]
        setting = float(spec.size) if stream == "video" else spec.rate or info.rate
        end = info.seconds if recording.end is None else min(recording.end, info.seconds)
        first = math.floor(recording.start / CHUNK_SECONDS)
        last = max(first, math.ceil(end / CHUNK_SECONDS - 1e-9) - 1)
        for number in range(first, last + 1):
            yield Chunk(recording.source(stream), stream, number, setting), info


def _size(chunk: Chunk, info: StreamInfo) -> int:
    """Bytes that a stretch takes, estimated."""
    seconds = min(CHUNK_SECONDS, max(0.0, info.seconds - chunk.number * CHUNK_SECONDS))
    if chunk.stream == "video":
        return (math.ceil(seconds * info.rate) + 1) * (int(chunk.setting) ** 2 * 3 + 8)
    return round(seconds * chunk.setting) * 2
