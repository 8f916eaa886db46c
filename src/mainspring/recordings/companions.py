"""Files that hold one stream of a recording: what they add to it, or why they cannot.

A film may be one file and what was measured meanwhile another. If the second cannot be used, the
recording still can: only that stream is left out, and the catalogue's notes say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from mainspring.recordings.facts import FileFacts
from mainspring.recordings.recording import StreamInfo, many
from mainspring.recordings.series_file import split_uri

_EXAMPLES = 3


class Failure(NamedTuple):
    """A stream that had to be left out: which, of what file, and why."""

    stream: str
    uri: str
    reason: str


def streams(
    others: Iterable[tuple[str, str]],
    facts: Mapping[str, FileFacts],
    disagreements: Mapping[str, str],
) -> tuple[dict[str, StreamInfo], list[Failure]]:
    """The streams of a recording that lie in files of their own.

    Args:
        others: Streams and the uris of their files.
        facts: What is known of each file, by path.
        disagreements: Why the series of a file cannot stand beside most, by path.

    Returns:
        Facts of those that can be used, and the others.
    """
    found: dict[str, StreamInfo] = {}
    failures = []
    for stream, uri in others:
        path, key = split_uri(uri)
        info = _info(stream, facts[path], key, disagreements.get(path))
        if isinstance(info, str):
            failures.append(Failure(stream, uri, info))
        else:
            found[stream] = replace(info, uri=uri)
    return found, failures


def _info(
    stream: str, about: FileFacts, key: str | None, disagreement: str | None
) -> StreamInfo | str:
    """The facts of a stream in a file, or why they cannot be had."""
    if about.problem is not None:
        return about.problem
    if stream == "series" and disagreement is not None:
        return disagreement
    chosen = about.chosen(key)
    if not chosen:
        return f"The file has no series {key!r}; it holds {len(about.keys)}."
    if len(chosen) > 1:
        return f"The file holds {len(about.keys)} series: name one, as in #{about.keys[0]}."
    index = chosen[0]
    if stream not in about.streams[index]:
        has = " and ".join(about.streams[index]) or "nothing"
        return f"The file has no {stream} ({has} only)."
    return about.problems[index] or about.streams[index][stream]


def notes(failures: Iterable[Failure]) -> list[str]:
    """What was left out, in a sentence for each stream and reason."""
    uris: dict[tuple[str, str], list[str]] = defaultdict(list)
    for failure in failures:
        uris[failure.stream, failure.reason].append(failure.uri)
    sentences = []
    for (stream, reason), who in uris.items():
        count = many(len(who), "recording")
        distinct = [*dict.fromkeys(who)]
        named = ", ".join(distinct[:_EXAMPLES]) + (", ..." if len(distinct) > _EXAMPLES else "")
        sentences.append(f"left out {stream} of {count} ({named}): {reason}")
    return sentences
