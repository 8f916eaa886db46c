"""The survey: opens every file of a catalogue once and fills in what it finds, or why it cannot.

found = survey(open_catalogue("videos/"), store=".mainspring")
print(render(report(found)))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mainspring.recordings import companions
from mainspring.recordings.catalogue_table import FACTS, Catalogue
from mainspring.recordings.facts import FactStore, FileFacts, probe
from mainspring.recordings.manifest import COMPANIONS
from mainspring.recordings.recording import STREAMS, StreamInfo, many
from mainspring.recordings.report import render, report
from mainspring.recordings.series_file import split_uri
from mainspring.recordings.text import sentences, text_info

__all__ = ["render", "report", "survey"]

_REMEMBERED = 256  # files between two writes of the store


class _Source(NamedTuple):
    """Where a recording comes from; windows of one film share it.

    Attributes:
        uri: Its own file.
        others: The files of other streams, as (stream, uri).
        captioned: Whether it has text.
    """

    uri: str
    others: tuple[tuple[str, str], ...]
    captioned: bool


def survey(
    catalogue: Catalogue,
    workers: int = 2,
    progress: Callable[[int, int], Any] | None = None,
    store: str | Path | None = None,
) -> Catalogue:
    """The catalogue with the facts of each recording's streams and the problem of each that cannot
    be used. Nothing about a file raises an error here.

    A row that names a file of many series becomes as many rows. Files of series must agree: those
    with other variables than most are a problem. What is wrong with a file that holds but one
    stream of a recording concerns that stream: it is left out, which the notes say.

    Args:
        catalogue: Any catalogue; facts that it has are found anew.
        workers: Files opened at the same time.
        progress: Called with (files done, files in all).
        store: Folder where facts are remembered, so that a file that did not change is not opened
            again; None remembers nothing. Files that go with the catalogue are not remembered.
    """
    sources = _sources(catalogue)
    paths = list(
        dict.fromkeys(
            split_uri(uri)[0]
            for source in dict.fromkeys(sources)
            for uri in (source.uri, *dict(source.others).values())
        )
    )
    facts = _probe_all(paths, workers, progress, FactStore(None if catalogue.passing else store))
    disagreements = _disagreements(facts)

    found: dict[_Source, list[int]] = {}  # for each source its places in the table below
    failures: dict[_Source, list[companions.Failure]] = {}
    held = _Held([], [], [], [], [])

    def add(source: _Source, uri: str, about: FileFacts, index: int) -> int:
        beside = () if about.problem else source.others
        others, failures[source] = companions.streams(beside, facts, disagreements)
        own = {k: v for k, v in about.streams[index].items() if k not in dict(source.others)}
        return held.add(
            uri,
            own | others,
            about.labels[index],
            about.problems[index],
            catalogue.streams,
            source.captioned,
        )

    for source in dict.fromkeys(sources):
        path, key = split_uri(source.uri)
        about = facts[path]
        whole = about.problem or disagreements.get(path)
        chosen = about.chosen(key)
        if whole or not chosen:
            reason = whole or f"The file has no series {key!r}; it holds {len(about.keys)}."
            about, chosen = FileFacts(reason, problems=(reason,)), [0]
        found[source] = [
            add(
                source,
                source.uri if key or len(about.keys) == 1 else f"{path}#{about.keys[i]}",
                about,
                i,
            )
            for i in chosen
        ]
    measured = _filled(catalogue, [found[source] for source in sources], held)
    notes = companions.notes(failure for source in sources for failure in failures[source])
    return measured.noted(notes)


class _Held(NamedTuple):
    """What was found of each recording, in columns.

    Attributes:
        uris: With the row where a file holds many.
        streams: Those of interest.
        labels: That the file states.
        problems: Why it cannot be used, if so.
        ends: When its longest stream ends, of interest or not.
    """

    uris: list[str]
    streams: list[dict[str, StreamInfo]]
    labels: list[str | None]
    problems: list[str | None]
    ends: list[float]

    def add(
        self,
        uri: str,
        held: dict[str, StreamInfo],
        label: str | None,
        problem: str | None,
        asked: Sequence[str] | None,
        captioned: bool,
    ) -> int:
        """One more; returns its place."""
        wanted = {k: v for k, v in held.items() if not asked or k in asked}
        if not problem and not wanted and not captioned:
            has = " and ".join(held) or "nothing"
            problem = f"The file has no {' or '.join(asked or ('stream',))} ({has} only)."
        self.uris.append(uri)
        self.streams.append(wanted)
        self.labels.append(label)
        self.problems.append(problem)
        self.ends.append(max((info.seconds for info in held.values()), default=0.0))
        return len(self.uris) - 1


def _sources(catalogue: Catalogue) -> list[_Source]:
    """Where each row comes from, as far as it is of interest."""
    asked = catalogue.streams or STREAMS
    columns = {s: catalogue.column(name) for s, name in COMPANIONS.items() if s in asked}
    others = [
        tuple((s, uri) for s, uri in zip(columns, row, strict=True) if uri is not None)
        for row in zip(*columns.values(), strict=True)
    ] or [()] * len(catalogue)
    captions = catalogue.column("caption")
    said = [bool("text" in asked and sentences(caption)) for caption in captions]
    return [*map(_Source, catalogue.column("uri"), others, said)]


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
            reason = f"It has {many(channels, 'variable')} where most have {usual}"
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


def _filled(catalogue: Catalogue, rows: list[list[int]], held: _Held) -> Catalogue:
    """The catalogue's rows, each as often as recordings were found under its source."""
    place = np.array([place for group in rows for place in group], dtype=np.int64)
    again = np.repeat(np.arange(len(rows)), [len(group) for group in rows])
    spread = catalogue.select(again) if len(place) != len(rows) else catalogue
    words = ("group", "caption", "start", *COMPANIONS.values())
    columns = {name: spread.column(name) for name in words}
    columns["end"] = pa.array(spread.column("end"), from_pandas=True)
    columns["uri"] = pa.array(held.uris, pa.large_string()).take(pa.array(place))
    columns["label"] = _first(spread.column("label"), held.labels, place)
    columns["problem"] = _first(spread.column("problem"), held.problems, place)
    for stream in STREAMS:
        facts = [one[stream].facts() if stream in one else None for one in held.streams]
        if any(fact is not None for fact in facts):
            columns[stream] = pa.array(facts, FACTS).take(pa.array(place))
    if catalogue.streams is None or "text" in catalogue.streams:
        stops = np.fmin(np.array(held.ends)[place], spread.column("end"))
        texts = [
            text_info(caption, start, stop) if problem is None else None
            for caption, start, stop, problem in zip(
                columns["caption"], columns["start"], stops, columns["problem"], strict=True
            )
        ]
        if any(info is not None for info in texts):
            plain = [None if info is None else info.facts() for info in texts]
            columns["text"] = pa.array(plain, FACTS)
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
