"""The tables beside the files: labels, where each sound comes from, where each ball is."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from mainspring.recordings.demo.files import write_whole
from mainspring.recordings.demo.plan import Entry

TRUTH = pa.schema(
    {
        "uri": pa.string(),
        "time": pa.float64(),
        "x": pa.float64(),
        "y": pa.float64(),
        "object": pa.int32(),
        "kind": pa.string(),
        "energy": pa.float64(),
        "pitch": pa.float64(),
    }
)


@dataclass(frozen=True)
class Track:
    """Where the two balls of a recording are, frame by frame.

    Attributes:
        uri: Of the film.
        times: Seconds.
        places: Px right and down.
        radii: Px.
        sounding: Which ball hums.
    """

    uri: str
    times: Float[np.ndarray, " frames"]
    places: Float[np.ndarray, "2 frames 2"]
    radii: tuple[float, float]
    sounding: int


def write_tables(
    root: Path, entries: list[Entry], impacts: list[dict[str, Any]], tracks: list[Track]
) -> None:
    """Writes labels.csv, series_labels.csv, streams.csv, truth.parquet and tracks.parquet.

    Args:
        root: The world's folder.
        entries: One a recording.
        impacts: Rows of the truth, with the columns of `TRUTH`.
        tracks: One a recording.
    """
    _write_labels(root / "labels.csv", entries, [entry.video for entry in entries])
    _write_labels(root / "series_labels.csv", entries, [entry.series for entry in entries])
    write_streams(root, entries)
    _write_parquet(root / "truth.parquet", pa.Table.from_pylist(impacts, schema=TRUTH))
    balls = pa.concat_tables([_ball(track, which) for track in tracks for which in (0, 1)])
    _write_parquet(root / "tracks.parquet", balls)


def write_streams(root: Path, entries: list[Entry]) -> None:
    """Writes streams.csv, the manifest of recordings with all their streams, unless it is there.

    Args:
        root: The world's folder.
        entries: One a recording.
    """
    path = root / "streams.csv"
    if path.exists():
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["uri", "series_uri", "label", "appearance", "group", "caption"])
    for entry in entries:
        words = (entry.label, entry.appearance, entry.group, entry.caption)
        table.writerow([entry.video, entry.series, *words])
    write_whole(path, text.getvalue().encode())


def _write_labels(path: Path, entries: list[Entry], uris: list[str]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["uri", "label", "appearance", "group", "caption"])
    for uri, entry in zip(uris, entries, strict=True):
        table.writerow([uri, entry.label, entry.appearance, entry.group, entry.caption])
    write_whole(path, text.getvalue().encode())


def _ball(track: Track, which: int) -> pa.Table:
    frames = len(track.times)
    return pa.table(
        {
            "uri": pa.array([track.uri] * frames),
            "time": track.times,
            "object": np.full(frames, which, np.int32),
            "x": track.places[which, :, 0],
            "y": track.places[which, :, 1],
            "radius": np.full(frames, track.radii[which]),
            "sounding": np.full(frames, which == track.sounding),
        }
    )


def _write_parquet(path: Path, table: pa.Table) -> None:
    memory = pa.BufferOutputStream()
    pq.write_table(table, memory)
    write_whole(path, memory.getvalue().to_pybytes())
