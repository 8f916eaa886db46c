"""`mainspring search`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """The windows most like an example: a file, or a span of it as clip.mp4@2.0-4.0.

    With --among those of another stream: `search RUN bark.wav --among video`, or by words
    `search RUN "a dog barks" --stream text --among video`.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    query: Annotated[Positional[str], arg(metavar="EXAMPLE")]
    """The example; words with --stream text."""
    k: int = 10
    """How many windows."""
    data: str | None = None
    """What to search; otherwise what was embedded last."""
    stream: str | None = None
    """Which encoder, where the run has several: which stream of the example asks."""
    among: str | None = None
    """Which stream to search, where that is not the example's own: video, audio, series, text."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Searches."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "search")
    hits = api.search(
        flags.run,
        flags.query,
        k=flags.k,
        data=flags.data,
        stream=flags.stream,
        among=flags.among,
        log=Log(),
    )
    lines = [
        f"{hit.score:6.3f}  {hit.uri}@{hit.start:.2f}-{hit.end:.2f}  {hit.text}".rstrip()
        for hit in hits
    ]
    return {"hits": [vars(hit) for hit in hits]}, "\n".join(lines)
