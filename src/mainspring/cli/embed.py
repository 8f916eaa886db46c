"""`mainspring embed`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """One vector a window of every recording, as Parquet in RUN/embeddings. Restartable."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file."""
    stream: str | None = None
    """Which encoder, where the run has several."""
    joint: bool = False
    """In the space that streams share, for search --among."""
    hop: float | None = None
    """Seconds from one window to the next; a clip's length otherwise."""
    batch: int = 64
    """Windows a forward pass."""
    out: str | None = None
    """Another folder for the vectors."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Embeds."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "embed")
    vectors = api.embed(
        flags.run,
        flags.data,
        stream=flags.stream,
        joint=flags.joint,
        hop=flags.hop,
        batch=flags.batch,
        out=flags.out,
        log=Log(),
    )
    result = {
        "windows": len(vectors),
        "dim": int(vectors.matrix.shape[1]),
        "recordings": len(set(vectors.rows.tolist())),
        "problems": vectors.problems,
    }
    lines = [
        f"{len(vectors)} vectors of {result['dim']} numbers, {result['recordings']} recordings.",
        *shares.left_out(vectors.problems),
        f"Next: mainspring search {shlex.quote(flags.run)} {_query(flags, vectors.stream)}",
    ]
    return result, "\n".join(lines)


def _query(flags: Flags, stream: str) -> str:
    """What search needs to find what was embedded."""
    from mainspring.training.run import Run

    if flags.joint:
        return f"FILE@START-END --among {stream}"
    example = '"WORDS"' if stream == "text" else "FILE@START-END"
    several = len(Run(flags.run).streams()) > 1
    return f"{example} --stream {stream}" if several or stream == "text" else example
