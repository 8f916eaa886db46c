"""The survey: opens every file of a catalogue once and fills in what it finds, or why it cannot.

found = survey(open_catalogue("videos/"), store=".mainspring")
print(render(report(found)))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.recordings.catalogue_table import FACTS, Catalogue
from mainspring.recordings.facts import FactStore, FileFacts, probe
from mainspring.recordings.recording import STREAMS, StreamInfo
from mainspring.recordings.report import render, report
from mainspring.recordings.series_file import split_uri

__all__ = ["render", "report", "survey"]

_REMEMBERED = 256  # files between two writes of the store


def survey(
    catalogue: Catalogue,
    workers: int = 2,
    progress: Callable[[int, int], Any] | None = None,
    store: str | Path | None = None,
) -> Catalogue:
    """The catalogue with the facts of each recording's streams and the problem of each that cannot
    be used. Nothing about a file raises an error here.

    A row that names a file of many series becomes as many rows. Files of series must agree: those
    with other variables than most are a problem.

    Args:
        catalogue: Any catalogue; facts that it has are found anew.
        workers: Files opened at the same time.
        progress: Called with (files done, files in all).
        store: Folder where facts are remembered, so that a file that did not change is not opened
            again; None remembers nothing.
    """
    uris = catalogue.column("uri")
    paths = list(dict.fromkeys(split_uri(uri)[0] for uri in uris))
    facts = _probe_all(paths, workers, progress, FactStore(store))
    disagreements = _disagreements(facts)

    found: dict[str, list[int]] = {}  # for each uri its places in the lists below
    places: list[str] = []
    streams: list[dict[str, StreamInfo]] = []
    labels: list[str | None] = []
    problems: list[str | None] = []

    def add(uri: str, held: dict[str, StreamInfo], label: str | None, problem: str | None) -> int:
        wanted = {k: v for k, v in held.items() if not catalogue.streams or k in catalogue.streams}
        if not problem and not wanted:
            asked, has = " or ".join(catalogue.streams or ()), " and ".join(held) or "nothing"
            problem = f"The file has no {asked} ({has} only)."
        places.append(uri)
        streams.append(wanted)
        labels.append(label)
        problems.append(problem)
        return len(places) - 1

    for uri in dict.fromkeys(uris):
        path, key = split_uri(uri)
        about = facts[path]
        whole = about.problem or disagreements.get(path)
        chosen = _chosen(about, key)
        if whole or not chosen:
            reason = whole or f"The file has no series {key!r}; it holds {len(about.keys)}."
            found[uri] = [add(uri, {}, None, reason)]
            continue
        found[uri] = [
            add(
                uri if key or len(about.keys) == 1 else f"{path}#{about.keys[i]}",
                about.streams[i],
                about.labels[i],
                about.problems[i],
            )
            for i in chosen
        ]
    return _filled(catalogue, [found[uri] for uri in uris], places, streams, labels, problems)


def _probe_all(
    paths: list[str],
    workers: int,
    progress: Callable[[int, int], Any] | None,
    store: FactStore,
) -> dict[str, FileFacts]:
    facts: dict[str, FileFacts] = {}
    fresh: dict[str, FileFacts] = {}

    def look(path: str) -> tuple[FileFacts, bool]:
        known = store.get(path)
        return (known, False) if known is not None else (probe(path), True)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for done, (path, (about, new)) in enumerate(
            zip(paths, pool.map(look, paths), strict=True), start=1
        ):
            facts[path] = about
            if new:
                fresh[path] = about
            if len(fresh) >= _REMEMBERED:
                store.put(fresh)
                fresh = {}
            if progress is not None:
                progress(done, len(paths))
    store.put(fresh)
    return facts


def _chosen(about: FileFacts, key: str | None) -> list[int]:
    """Which of a file's recordings a uri names."""
    if key is None or (len(about.keys) == 1 and key == "0"):
        return list(range(len(about.keys)))
    if key.isdecimal() and int(key) < len(about.keys) and about.keys[int(key)] == key:
        return [int(key)]
    return [about.keys.index(key)] if key in about.keys else []


def _disagreements(facts: dict[str, FileFacts]) -> dict[str, str]:
    """Files of series whose variables are not those of most files, and in what they differ."""
    tables = {
        path: (about.streams[0]["series"].channels, about.columns)
        for path, about in facts.items()
        if about.problem is None and "series" in about.streams[0]
    }
    if not tables:
        return {}
    counts = Counter(channels for channels, _ in tables.values())
    usual = max(counts, key=lambda channels: (counts[channels], channels))
    names = Counter(columns for channels, columns in tables.values() if channels == usual)
    usual_names = names.most_common(1)[0][0]
    problems = {}
    for path, (channels, columns) in tables.items():
        lacks = [name for name in usual_names if name not in columns]
        extra = [name for name in columns if name not in usual_names]
        if channels != usual:
            reason = f"It has {channels} variables where most have {usual}"
            if columns and lacks:
                reason += f": lacks {', '.join(map(repr, lacks[:5]))}"
            elif columns and usual_names and extra:
                reason += f": has {', '.join(map(repr, extra[:5]))} besides"
            problems[path] = f"{reason}."
        elif columns != usual_names and sorted(columns) == sorted(usual_names):
            problems[path] = (
                f"Its columns come in another order ({', '.join(columns[:4])}, ...) than in most "
                f"files ({', '.join(usual_names[:4])}, ...)."
            )
    return problems


def _filled(
    catalogue: Catalogue,
    rows: list[list[int]],
    uris: list[str],
    streams: list[dict[str, StreamInfo]],
    labels: list[str | None],
    problems: list[str | None],
) -> Catalogue:
    """The catalogue's rows, each as often as recordings were found under its uri."""
    place = np.array([place for group in rows for place in group], dtype=np.int64)
    again = np.repeat(np.arange(len(rows)), [len(group) for group in rows])
    spread = catalogue.select(again) if len(place) != len(rows) else catalogue
    columns = {name: spread.column(name) for name in ("group", "caption", "start")}
    columns["end"] = pa.array(spread.column("end"), from_pandas=True)
    columns["uri"] = pa.array(uris, pa.large_string()).take(pa.array(place))
    columns["label"] = _first(spread.column("label"), labels, place)
    columns["problem"] = _first(spread.column("problem"), problems, place)
    for stream in STREAMS:
        facts = [_plain(one[stream]) if stream in one else None for one in streams]
        if any(fact is not None for fact in facts):
            columns[stream] = pa.array(facts, FACTS).take(pa.array(place))
    measured = catalogue.replaced(columns)
    late = np.flatnonzero(
        (measured.seconds() == 0) & (measured.column("problem") == None)  # noqa: E711
    )
    if len(late):
        reasons = measured.column("problem")
        for row in late:
            start = measured[int(row)].start
            reasons[row] = f"It starts at {start:g} s, where its file has ended."
        measured = catalogue.replaced(columns | {"problem": reasons})
    return measured


def _first(given: np.ndarray, found: Sequence[str | None], place: np.ndarray) -> np.ndarray:
    """What the catalogue said of each row, else what the file said."""
    said = np.array([*found, None], dtype=object)[:-1][place]
    return np.where(given == None, said, given)  # noqa: E711


def _plain(info: StreamInfo) -> dict[str, Any]:
    facts = asdict(info)
    del facts["kind"]
    return facts
