"""What the verbs of series share: whole series, and vectors of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from mainspring import clips
from mainspring.api.data import named, usable
from mainspring.clips import ClipSpec
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate import per_step
from mainspring.evaluate.baselines import RANDOM, untrained
from mainspring.evaluate.forward import encode
from mainspring.evaluate.vectors import Vectors
from mainspring.evaluate.verdict import TRAINED
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.reader import Reader
from mainspring.training.progress import Log

Values = Float32[np.ndarray, "_time _channel"]


def vectors_of(
    encoder: Encoder, clip: ClipSpec, series: Sequence[Values]
) -> Float32[np.ndarray, "n dim"]:
    """One vector a series: of the whole of it where the encoder reads any length, and otherwise the
    mean over windows as long as those of training."""
    if isinstance(encoder, Dilated):
        return per_step.whole(encoder, series)
    found = []
    for values in series:
        spans = np.array(clips.windows(len(values), clip.length, clip.length), np.int64)
        at = clips.fit(spans[:, :1] + np.arange(clip.length), len(values), "nothing")
        there = at != clips.NOTHING
        samples = np.where(there[..., None], values[at], np.float32(np.nan))
        vectors = encode(encoder, torch.from_numpy(samples), torch.from_numpy(there))
        found.append(vectors.mean(axis=0))
    return np.stack(found)


def both(encoder: Encoder, seed: int) -> dict[str, Encoder]:
    """The encoder, and the same with random weights."""
    return {TRAINED: encoder, RANDOM: untrained(encoder, seed).eval()}


def say(log: Log | None, doing: str) -> None:
    """On the log's moving line."""
    if log is not None:
        log.update(doing)


def with_series(data: Any, log: Log | None) -> tuple[Catalogue, dict[str, str]]:
    """The recordings that have a series, and of each other one its name and the reason.

    Raises:
        DataError: If there is none.
    """
    found, problems = usable(data, log)
    there = np.array(["series" in recording.streams for recording in found], bool)
    for row in np.flatnonzero(~there):
        recording = found[int(row)]
        problems[recording.name] = f"no series; its streams: {', '.join(recording.streams)}"
    if not there.any():
        why = "; ".join(f"{name}: {reason}" for name, reason in [*problems.items()][:3])
        raise DataError(f"None of the recordings of {named(data)} has a series to read. {why}.")
    return found.select(there), problems


def read_whole(found: Catalogue, clip: ClipSpec) -> list[Values]:
    """Whole recordings, at the rate and stride of training."""
    reader = Reader({"series": clip})
    series = []
    for row in range(len(found)):
        recording = found[row]
        length = reader.timeline(recording)["series"].length
        at = np.arange(0, length, clip.stride, dtype=np.int64)[None]
        series.append(reader.read(recording, {"series": at})["series"][0])
    return series


def as_rows(found: Catalogue, starts: np.ndarray, ends: np.ndarray) -> Vectors:
    """The rows of a catalogue as `read_labels` takes them, without vectors."""
    uris = found.column("uri").astype(object)
    return Vectors(
        np.zeros((len(uris), 1), np.float32),
        uris,
        starts,
        ends,
        np.arange(len(uris)),
        found.column("group").astype(object),
        found.column("label").astype(object),
    )
