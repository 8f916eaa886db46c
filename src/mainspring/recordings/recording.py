"""One recording: something with a timeline and one or more streams."""

from __future__ import annotations

from dataclasses import dataclass, field

STREAMS = ("video", "audio", "series", "text")


@dataclass(frozen=True)
class StreamInfo:
    """Facts about one stream of a file, as its container or header states them.

    Attributes:
        kind: One of `STREAMS`.
        length: Native samples (frames, audio samples, rows), estimated if the container is silent.
        rate: Native samples per second (mean rate for variable frame rates; 1.0 for series
            without a time column).
        seconds: Duration.
        width: Video only, after rotation.
        height: Video only, after rotation.
        channels: Audio channels or series variables.
        codec: Name of the codec or format.
    """

    kind: str
    length: int
    rate: float
    seconds: float
    width: int = 0
    height: int = 0
    channels: int = 0
    codec: str = ""


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
        caption: A sentence about it.
        problem: Why it cannot be used, if so.
    """

    uri: str
    start: float = 0.0
    end: float | None = None
    streams: dict[str, StreamInfo] = field(default_factory=dict)
    group: str | None = None
    label: str | None = None
    caption: str | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        """How the recording is written in messages: uri@start-end."""
        if self.start == 0 and self.end is None:
            return self.uri
        end = "" if self.end is None else f"{self.end:g}"
        return f"{self.uri}@{self.start:g}-{end}"
