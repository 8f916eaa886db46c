"""The streams of a recording that no survey has looked at, found by opening its files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace

from mainspring.errors import DataError
from mainspring.recordings import archives, folder
from mainspring.recordings.recording import StreamInfo
from mainspring.recordings.series import probe_series
from mainspring.recordings.series_file import split_uri
from mainspring.recordings.video import probe_media


def look(uri: str, companions: Mapping[str, str], wanted: Collection[str]) -> dict[str, StreamInfo]:
    """The streams of a recording's own file, and those of `wanted` that lie in other files.

    Args:
        uri: The recording's own file.
        companions: The files of other streams, by stream.
        wanted: Streams of interest; other companions are not opened.

    Raises:
        DataError: If a file cannot be opened, or a companion does not hold its stream.
    """
    alone = set(wanted) - {"text"} == {"series"} and "series" not in companions
    held = _held(uri, alone)
    for stream, other in companions.items():
        held.pop(stream, None)
        if stream not in wanted:
            continue
        found = _held(other, stream == "series")
        if stream not in found:
            has = " and ".join(found) or "nothing"
            raise DataError(f"{other} has no {stream} ({has} only), which is to go with {uri}.")
        held[stream] = replace(found[stream], uri=other)
    return held


def _held(uri: str, series: bool) -> dict[str, StreamInfo]:
    """The streams of one file. `series`: take it for a table, whatever its name."""
    path, key = split_uri(uri)
    stream = path.lower().endswith(".ts") and os.path.isfile(path)
    film = stream and archives.is_transport_stream(path)
    if not series and (film or folder.kind(path) != "series"):
        return probe_media(uri)
    probe = probe_series(path)
    if key is not None and key not in probe.keys:
        raise DataError(f"{path} has no series {key!r}, only {', '.join(probe.keys[:5])} ...")
    return {"series": probe.infos[0 if key is None else probe.keys.index(key)]}
