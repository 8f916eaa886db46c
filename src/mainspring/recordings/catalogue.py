"""Opening a catalogue: the table of recordings, from whatever the user points at.

catalogue = open_catalogue("videos/")            # or a glob, a manifest, an array, paths, ...
catalogue[0]                                     # a Recording, built when asked for
catalogue.column("label")                        # one column as an array
windowed(catalogue, seconds=10.0)                # long recordings as windows
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.errors import DataError, unknown
from mainspring.recordings import arrays, folder, manifest, text
from mainspring.recordings.catalogue_table import FACTS, Catalogue
from mainspring.recordings.recording import STREAMS
from mainspring.recordings.series import probe_series
from mainspring.recordings.series_file import split_uri

__all__ = ["Catalogue", "open_catalogue", "windowed"]

_MICRO = 1_000_000  # windows are cut on a grid of microseconds
_ALMOST = 1e-6  # of a window: what seconds that are no round numbers may lack


def open_catalogue(
    data: str | Path | Sequence[Any] | np.ndarray | arrays.Frame,
    streams: Sequence[str] | None = None,
) -> Catalogue:
    """The recordings that `data` points at. Files are named, not opened, except for files that
    hold many series, which are counted.

    Args:
        data: A folder (with its subfolders), a file, a glob, a manifest (CSV, Parquet or JSON
            lines with a column uri), an array (series, time) or (series, time, channel), a list of
            arrays of unequal length, a list of paths, or a data frame (one series, a row a step).
        streams: Which of video, audio, series and text to use; None uses what is there.

    Raises:
        DataError: If it holds no recording; says what it holds and what to do.
        ConfigError: If a stream is unknown.
    """
    for stream in streams or ():
        if stream not in STREAMS:
            raise unknown("stream", stream, STREAMS)
    if isinstance(data, (str, Path)):
        return _from_path(os.fspath(data), streams)
    if isinstance(data, arrays.Frame):
        temporary = arrays.TemporaryFolder()
        return _from_files([arrays.store_frame(data, temporary.path)], streams, (), temporary)
    items = data if isinstance(data, np.ndarray) and data.dtype != object else list(data)
    if len(items) and all(isinstance(item, (str, Path)) for item in items):
        return _from_files([os.fspath(item) for item in items], streams)
    temporary = arrays.TemporaryFolder()
    if isinstance(items, np.ndarray):
        stored = arrays.store_array(items, temporary.path)
    elif len(items) and not any(isinstance(item, (str, Path, int, float)) for item in items):
        stored = arrays.store_ragged(items, temporary.path)
    else:
        kinds = ", ".join(sorted({type(item).__name__ for item in items})) or "nothing"
        raise DataError(
            f"A list of {len(items)} ({kinds}) was given, where paths, or arrays (time,) or (time, "
            "channel), were expected."
        )
    return _from_files([stored], streams, (), temporary)


def windowed(catalogue: Catalogue, seconds: float) -> Catalogue:
    """Recordings that hold `seconds` twice or more as windows, all of a recording equally long and
    none over another: learning that tells recordings apart could not tell apart what they share.
    Each window keeps the sentences of the caption that are about it.

    Args:
        catalogue: Surveyed, so that lengths are known. Recordings with a problem stay as they are.
        seconds: The least length of a window; it is less than twice as long.

    Raises:
        DataError: If a length is unknown.
    """
    durations = catalogue.seconds()
    bad = catalogue.column("problem") != None  # noqa: E711
    unmeasured = np.flatnonzero(np.isnan(durations) & ~bad)
    if len(unmeasured):
        raise DataError(
            f"The length of {catalogue[int(unmeasured[0])].name} is unknown: survey the catalogue "
            "before cutting it into windows."
        )
    extents = np.where(bad, 0, np.nan_to_num(durations) * _MICRO).round().astype(np.int64)
    fit = np.floor(extents / (seconds * _MICRO) + _ALMOST).astype(np.int64)
    counts = np.maximum(fit, 1)
    long = np.flatnonzero(counts > 1).tolist()
    edges = {row: np.linspace(0, extents[row], counts[row] + 1).round().tolist() for row in long}
    spans = {row: list(itertools.pairwise(cuts)) for row, cuts in edges.items()}
    rows = np.repeat(np.arange(len(catalogue)), counts)
    start, end = catalogue.column("start")[rows], catalogue.column("end")[rows]
    first = np.cumsum(counts) - counts
    for row, cut in spans.items():
        at = slice(int(first[row]), int(first[row] + counts[row]))
        start[at], end[at] = start[at][0] + np.array(cut).T / _MICRO
    table = catalogue.select(rows).table
    columns = {name: table.column(name) for name in table.column_names}
    columns |= {"start": start, "end": pa.array(end, from_pandas=True)}
    return catalogue.replaced(columns | _retold(columns, spans, counts, extents))


def _retold(
    columns: dict[str, Any], spans: dict[int, list[tuple[float, float]]], counts: Any, extents: Any
) -> dict[str, pa.Array]:
    """The captions and texts of windows.

    Args:
        columns: Those of the windows, as far as they are known.
        spans: How some recordings were cut, by row, in whole microseconds.
        counts: Windows of each recording.
        extents: Length of each recording, in microseconds.
    """
    if "caption" not in columns or not spans:
        return {}
    captions = columns["caption"].to_pylist()
    texts = columns["text"].to_pylist() if "text" in columns else None
    first = np.cumsum(counts) - counts
    for row, cut in spans.items():
        at = range(int(first[row]), int(first[row] + counts[row]))
        if not (captions[at[0]] or "").strip():
            continue
        seconds = [(start / _MICRO, stop / _MICRO) for start, stop in cut]
        whole = float(extents[row]) / _MICRO
        for window, caption in zip(at, text.cut(captions[at[0]], whole, seconds), strict=True):
            captions[window] = caption
            if texts is not None and texts[window] is not None:
                start, end = float(columns["start"][window]), columns["end"][window].as_py()
                info = text.text_info(caption, start, end)
                texts[window] = None if info is None else info.facts()
    told = {"caption": pa.array(captions, pa.large_string())}
    return told if texts is None else told | {"text": pa.array(texts, FACTS)}


def _from_path(path: str, streams: Sequence[str] | None) -> Catalogue:
    try:
        if os.path.isdir(path):
            found = folder.scan(path, streams)
            return _from_files(found.files, streams, found.notes, problems=found.problems)
        if os.path.isfile(path):
            return _from_file(path, streams)
    except PermissionError as error:
        raise DataError(
            f"There is no permission to read {error.filename or path}: give yourself the right to "
            "read it, or copy it to where you have it."
        ) from error
    if glob.has_magic(path):
        found = folder.matching(path, streams)
        return _from_files(found.files, streams, found.notes, problems=found.problems)
    if os.path.exists(split_uri(path)[0]):
        return _from_files([path], streams)
    raise DataError(f"There is no {path}. {folder.neighbours(path)}")


def _from_file(path: str, streams: Sequence[str] | None) -> Catalogue:
    if manifest.is_manifest(path):
        table, notes = manifest.read_manifest(path)
        return Catalogue(table, streams, notes)
    if os.path.splitext(path)[1].lower() in (".csv", *manifest.PARQUET):
        names = manifest.column_names(path)
        if manifest.nearest_to_uri(names) is not None and not _is_series(path):
            raise manifest.without_uri(path, names)
    return _from_files([path], streams)


def _is_series(path: str) -> bool:
    try:
        probe_series(path)
    except DataError:
        return False
    return True


def _from_files(
    paths: Iterable[str],
    streams: Sequence[str] | None,
    notes: Sequence[str] = (),
    temporary: arrays.TemporaryFolder | None = None,
    problems: dict[str, str] | None = None,
) -> Catalogue:
    """One row a recording; files of many series are counted, and give their classes."""
    uris: list[str] = []
    labels: list[str | None] = []
    for path in paths:
        keys, classes = _parts(path)
        uris += [f"{path}#{key}" if key else path for key in keys]
        labels += classes
    reasons: list[str | None] = [None] * len(uris)
    for path, reason in (problems or {}).items():
        uris.append(path)
        labels.append(None)
        reasons.append(reason)
    return Catalogue({"uri": uris, "label": labels, "problem": reasons}, streams, notes, temporary)


def _parts(path: str) -> tuple[Sequence[str], Sequence[str | None]]:
    """The keys and classes of the series in a file that can hold many; what cannot be read stays
    one recording, whose problem the survey finds."""
    if not path.lower().endswith((".tsv", ".ts", ".npy", ".npz")):
        return ("",), (None,)
    try:
        probe = probe_series(path)
    except Exception:  # one odd file among many must not hide the others
        return ("",), (None,)
    return probe.keys, probe.labels
