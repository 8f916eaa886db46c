"""From recordings to rows: windows are read in a thread, encoded side by side, put in a table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mainspring.augment.video import centre
from mainspring.clips import NOTHING, Clips, ClipSpec, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate.shards import schema
from mainspring.evaluate.windows import Windows, cut
from mainspring.recordings.recording import Recording

READ_AHEAD = 3
"""Pieces read while the encoder works."""

T = TypeVar("T")


@runtime_checkable
class Reads(Protocol):
    """What is asked of a reader."""

    def timeline(self, recording: Recording) -> Timeline:
        """How far its streams reach."""
        ...

    def read(self, recording: Recording, draws: Mapping[str, Clips]) -> dict[str, np.ndarray]:
        """The samples at these positions, for each stream (view, time, ...)."""
        ...

    def stamp(self) -> dict[str, Any]:
        """Which decoder, at which working size."""
        ...


def encode(
    encoder: Encoder,
    samples: Tensor,
    present: Bool[Tensor, "n time"],
    crop: int = 0,
    bf16: bool = False,
) -> Float32[np.ndarray, "n dim"]:
    """One vector a view, in evaluation mode and without gradients.

    Args:
        encoder: Left in the mode it came in.
        samples: As the reader delivers them.
        present: False where a position was padding.
        crop: Video only: height and width cut out of the middle; 0 takes all.
        bf16: Compute in bfloat16 where autocast allows it.
    """
    parameter = next(encoder.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    if encoder.stream == "video" and crop:
        samples = centre(samples, crop)
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            vectors = encoder(samples.to(device), present.to(device))
    finally:
        encoder.train(training)
    return vectors.float().cpu().numpy()


def read_windows(reader: Reads, recording: Recording, stream: str, clips: Clips) -> np.ndarray:
    """Samples of the windows of one stream."""
    return reader.read(recording, {stream: clips})[stream]


@dataclass
class _Read:
    """Some windows of one recording with their samples."""

    place: int
    windows: Windows
    samples: np.ndarray


@dataclass
class _Failed:
    """A recording that cannot be read, or not beyond what was read of it."""

    place: int
    reason: str


@dataclass(frozen=True)
class Job:
    """How windows become vectors."""

    encoder: Encoder
    clip: ClipSpec
    reader: Reads
    hop_seconds: float | None
    batch: int
    bf16: bool

    def stamps(self) -> dict[str, Any]:
        """What decides the vectors, but for the encoder."""
        return {
            "reader": self.reader.stamp(),
            "preprocessing": {
                "stream": self.encoder.stream,
                "clip": asdict(self.clip),
                "hop_seconds": self.hop_seconds,
                "crop": "centre",
                "precision": "bf16" if self.bf16 else "fp32",
            },
        }

    def tables(
        self,
        recordings: list[Recording],
        first: int,
        problems: dict[str, str],
        tick: Callable[[int], None],
    ) -> Generator[pa.Table, None, None]:
        """Rows of these recordings, a batch of windows a table; fills `problems`."""
        waiting: list[_Read] = []
        with closing(ahead(self._pieces(recordings))) as pieces:
            for piece in pieces:
                tick(piece.place)
                if isinstance(piece, _Failed):
                    problems[recordings[piece.place].name] = piece.reason
                    continue
                # Series may differ in their number of channels; one forward pass takes one kind.
                if waiting and waiting[0].samples.shape[1:] != piece.samples.shape[1:]:
                    yield self._table(waiting, recordings, first, problems)
                    waiting = []
                waiting.append(piece)
                if sum(len(each.samples) for each in waiting) >= self.batch:
                    yield self._table(waiting, recordings, first, problems)
                    waiting = []
        if waiting:
            yield self._table(waiting, recordings, first, problems)

    def _pieces(self, recordings: list[Recording]) -> Iterator[_Read | _Failed]:
        """Reads one recording after the other, at most a batch of windows at a time."""
        stream = self.encoder.stream
        for place, recording in enumerate(recordings):
            if recording.problem is not None:
                yield _Failed(place, recording.problem)
                continue
            try:
                timeline = self.reader.timeline(recording)
                whole = cut(recording, timeline, stream, self.clip, self.hop_seconds)
                for at in range(0, len(whole), self.batch):
                    part = slice(at, at + self.batch)
                    some = Windows(whole.clips[part], whole.starts[part], whole.ends[part])
                    samples = read_windows(self.reader, recording, stream, some.clips)
                    yield _Read(place, some, samples)
            except (DataError, OSError, ValueError) as error:
                yield _Failed(place, str(error))

    def _table(
        self,
        pieces: list[_Read],
        recordings: list[Recording],
        first: int,
        problems: dict[str, str],
    ) -> pa.Table:
        """Encodes the pieces side by side; an encoder that refuses them is their problem."""
        windows = [piece.windows for piece in pieces]
        samples = torch.from_numpy(np.concatenate([piece.samples for piece in pieces]))
        present = torch.from_numpy(np.concatenate([w.clips for w in windows]) != NOTHING)
        try:
            vectors = np.concatenate(
                [
                    encode(
                        self.encoder,
                        samples[at : at + self.batch],
                        present[at : at + self.batch],
                        self.clip.crop,
                        self.bf16,
                    )
                    for at in range(0, len(samples), self.batch)
                ]
            )
        except DataError as error:
            problems |= {recordings[piece.place].name: str(error) for piece in pieces}
            return schema(self.encoder.dim).empty_table()
        places = np.repeat([piece.place for piece in pieces], [len(w) for w in windows])
        finite = np.isfinite(vectors).all(axis=1)
        for place in np.unique(places[~finite]):
            problems[recordings[place].name] = "the encoder gave a vector with NaN or infinity"
        mine = [recordings[place] for place in places[finite]]
        columns = {
            "uri": [item.uri for item in mine],
            "start": np.concatenate([w.starts for w in windows])[finite],
            "end": np.concatenate([w.ends for w in windows])[finite],
            "stream": [self.encoder.stream] * len(mine),
            "row": first + places[finite],
            "group": [item.group for item in mine],
            "label": [item.label for item in mine],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors[finite].ravel()), vectors.shape[1]
            ),
        }
        return pa.table(columns, schema=schema(vectors.shape[1]))


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, made in a thread while the consumer works; errors surface in the consumer."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(READ_AHEAD))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in waiting:
                future.cancel()
