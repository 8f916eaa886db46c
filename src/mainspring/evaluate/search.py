"""Search by example or by words: the windows most like a span of a file or a sentence."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from mainspring.clips import NOTHING, ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.forward import Reads, encode, read_windows
from mainspring.evaluate.neighbours import nearest
from mainspring.evaluate.vectors import Vectors
from mainspring.evaluate.windows import cut
from mainspring.recordings.recording import STREAMS, Recording
from mainspring.recordings.text import numbers, sentences
from mainspring.recordings.unsurveyed import look

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
SPAN = re.compile(rf"(?P<start>{NUMBER})?-(?P<end>{NUMBER})?")
LIKE_A_SPAN = re.compile(r"[-+.\d]*")


class Query(NamedTuple):
    """A span of a file: seconds from its beginning, `end` None for its end."""

    uri: str
    start: float
    end: float | None


@dataclass(frozen=True)
class Hit:
    """A window that was found.

    Attributes:
        uri: Its file.
        start: Seconds from the file's beginning.
        end: Seconds from the file's beginning.
        score: Cosine similarity to the query.
        text: What it says, if it is of text and that was kept.
    """

    uri: str
    start: float
    end: float
    score: float
    text: str = ""


def parse_query(text: str) -> Query:
    """`clip.mp4@2.0-4.0`, `clip.mp4@2-` (until the end), `clip.mp4@-4` or `clip.mp4` (all of it).

    A file whose name holds an @ is taken as written if it exists.

    Raises:
        DataError: If what follows the last @ is meant as a span but is none.
    """
    uri, mark, tail = text.rpartition("@")
    if not mark or "/" in tail or "\\" in tail or os.path.exists(text):
        return Query(text, 0.0, None)
    span = SPAN.fullmatch(tail)
    if span is None or not (span["start"] or span["end"]) or not uri:
        if LIKE_A_SPAN.match(tail).end() == 0 and tail:  # type: ignore[union-attr]
            return Query(text, 0.0, None)
        raise DataError(
            f"{text!r}: {tail!r} is not a span of seconds. Write {uri or 'clip.mp4'}@2.0-4.0, "
            f"or @2.0- for everything from second 2 on."
        )
    start = float(span["start"] or 0)
    end = None if span["end"] is None else float(span["end"])
    if end is not None and end <= start:
        raise DataError(
            f"{text!r}: the span ends at {end:g} s, which is not after its start at {start:g} s."
        )
    return Query(uri, start, end)


def embed_query(
    encoder: Encoder, clip: ClipSpec, reader: Reads, query: Query, bf16: bool = False
) -> Float32[np.ndarray, "dim"]:
    """The mean vector of the windows of a span, cut as `embed` cuts recordings.

    Raises:
        DataError: If the file cannot be read or the span lies beyond its end.
    """
    recording = Recording(*query)
    timeline = reader.timeline(recording)
    if encoder.stream not in timeline:  # the reader looks for this stream alone
        with contextlib.suppress(DataError):
            recording = replace(recording, streams=look(recording.uri, {}, STREAMS))
    try:
        windows = cut(recording, timeline, encoder.stream, clip)
    except DataError as error:
        raise DataError(f"{recording.name}: {error}") from error
    found = []
    for at in range(0, len(windows), 64):
        part = windows.clips[at : at + 64]
        samples = torch.from_numpy(read_windows(reader, recording, encoder.stream, part))
        found.append(encode(encoder, samples, torch.from_numpy(part != NOTHING), clip.crop, bf16))
    return np.concatenate(found).mean(axis=0)


def embed_words(encoder: Encoder, clip: ClipSpec, words: str) -> Float32[np.ndarray, "dim"]:
    """The vector of a sentence; of several, a line each, their mean.

    Raises:
        DataError: If there is no word.
    """
    lines = sentences(words)
    if not lines:
        raise DataError(f"There is no word to search for in {words!r}.")
    rows = torch.from_numpy(np.stack([numbers(line, clip.length) for line in lines]))
    return encode(encoder, rows, torch.ones_like(rows, dtype=torch.bool)).mean(axis=0)


def search(
    vectors: Vectors,
    query_vector: Float32[np.ndarray, "dim"],
    k: int = 10,
    exclude: Query | None = None,
    distinct: bool = True,
) -> list[Hit]:
    """The k windows nearest to a vector by cosine, nearest first; fewer if there are no more.

    Args:
        vectors: Where to look.
        query_vector: What to look for.
        k: Hits wanted.
        exclude: Windows that overlap this span of this file are no hits (the query itself).
        distinct: Of windows that overlap in one file, only the nearest is a hit.

    Raises:
        ConfigError: If k is below 1.
        DataError: If the vectors are of another width than the query.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; it is a number of hits, at least 1.")
    if vectors.matrix.shape[1] != len(query_vector):
        raise DataError(
            f"The query's vector has {len(query_vector)} numbers, the embeddings "
            f"{vectors.matrix.shape[1]}: they are of different encoders. Embed the recordings "
            f"with the encoder that the query is embedded with."
        )
    wanted = max(4 * k, 64)
    while True:
        wanted = min(wanted, len(vectors))
        hits = _hits(vectors, query_vector, k, wanted, exclude, distinct)
        if len(hits) == k or wanted == len(vectors):
            return hits
        wanted *= 8


def _hits(
    vectors: Vectors,
    query_vector: Float32[np.ndarray, "dim"],
    k: int,
    wanted: int,
    exclude: Query | None,
    distinct: bool,
) -> list[Hit]:
    """Hits among the `wanted` nearest windows."""
    index, score = nearest(query_vector[None], vectors.matrix, wanted)
    barred = None if exclude is None else os.path.abspath(exclude.uri)
    hits: list[Hit] = []
    for row, value in zip(index[0], score[0], strict=True):
        start, end = float(vectors.starts[row]), float(vectors.ends[row])
        hit = Hit(str(vectors.uris[row]), start, end, float(value))
        if exclude is not None and os.path.abspath(hit.uri) == barred:
            until = np.inf if exclude.end is None else exclude.end
            if hit.start < until and hit.end > exclude.start:
                continue
        if distinct and any(
            kept.uri == hit.uri and hit.start < kept.end and hit.end > kept.start for kept in hits
        ):
            continue
        hits.append(hit)
        if len(hits) == k:
            break
    return hits
