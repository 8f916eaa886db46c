"""One recording: something with a timeline and one or more streams.

Its streams may lie in one file, as picture and sound of a film do, or in several: a film and a
table of what was measured meanwhile. All files of a recording begin at the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STREAMS = ("video", "audio", "series", "text")


@dataclass(frozen=True)
class StreamInfo:
    """Facts about one stream of a recording, as its container or header states them.

    Attributes:
        kind: One of `STREAMS`.
        length: Native samples (frames, audio samples, rows, sentences), estimated if the container
            is silent.
        rate: Native samples per second (mean rate for variable frame rates; 1.0 for series
            without a time column).
        seconds: When it ends, from the file's beginning.
        width: Video only, after rotation.
        height: Video only, after rotation.
        channels: Audio channels or series variables.
        codec: Name of the codec or format.
        uri: The file that holds it, where that is not the recording's own.
    """

    kind: str
    length: int
    rate: float
    seconds: float
    width: int = 0
    height: int = 0
    channels: int = 0
    codec: str = ""
    uri: str = ""

    def facts(self) -> dict[str, Any]:
        """All but the kind, by name."""
        return {name: value for name, value in vars(self).items() if name != "kind"}


@dataclass(frozen=True)
class Recording:
    """A file, a span of a long file, or a row of an array.

    Attributes:
        uri: Path, with `#row` where one file holds many recordings.
        start: Seconds from the file's beginning.
        end: Seconds from the file's beginning; None means until the end.
        streams: What is known of its streams; empty when the file has not been opened yet.
        group: What must stay on one side of a split (a source, a subject); None if unknown.
        label: Class name for evaluation only.
        caption: Sentences about it, one a line; they are its text.
        problem: Why it cannot be used, if so.
        companions: The files of streams that the recording's own file does not hold, by stream.
    """

    uri: str
    start: float = 0.0
    end: float | None = None
    streams: dict[str, StreamInfo] = field(default_factory=dict)
    group: str | None = None
    label: str | None = None
    caption: str | None = None
    problem: str | None = None
    companions: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How the recording is written in messages: uri@start-end."""
        if self.start == 0 and self.end is None:
            return self.uri
        end = "" if self.end is None else f"{self.end:g}"
        return f"{self.uri}@{self.start:g}-{end}"

    def source(self, stream: str) -> str:
        """The uri of the file that holds a stream."""
        info = self.streams.get(stream)
        if info is not None:
            return info.uri or self.uri
        return self.companions.get(stream, self.uri)


def many(count: int, noun: str) -> str:
    """A number of things.

    >>> many(1, "file"), many(2, "file")
    ('1 file', '2 files')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
