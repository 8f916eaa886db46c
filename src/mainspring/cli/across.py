"""`mainspring across`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Which picture belongs to this sound, and which second: retrieval across streams.

    Give recordings that the run was not trained on.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file."""
    streams: tuple[str, ...] = ()
    """Which two, where the run has more."""
    moments: int = 10
    """Moments a recording."""
    batch: int = 64
    """Moments a forward pass."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Measures."""
    from mainspring.api.modalities import across
    from mainspring.training.progress import Log

    refuse(extra, Flags, "across")
    result = across(
        flags.run,
        flags.data,
        streams=flags.streams,
        moments_each=flags.moments,
        batch=flags.batch,
        log=Log(),
    ).to_dict()
    return result, _text(result)


def _text(result: dict[str, Any]) -> str:
    """A table, and what was left out."""
    count = result["recordings"]
    lines = [shares.head(f"Among {count} recordings", "found")]
    for way, found in result["retrieval"].items():
        for k, share in found["recall"].items():
            lines.append(shares.row(f"{way}, R@{k}", share))
        lines.append(
            f"{f'{way}, median rank':{shares.WIDE}}{found['median_rank']:8g}{'':18}"
            f"{found['chance_rank']:9g}"
        )
    if result["seconds"]:
        lines += ["", "Within a recording, which moment"]
    for way, found in result["seconds"].items():
        lines.append(shares.row(f"{way}, R@1", found["recall"]))
        lines.append(shares.off_by(f"{way}, off by", found["error_seconds"]))
    for stream in result["still"]:
        lines.append(
            f"The vectors of {stream} are the same all through each recording, so they cannot say "
            "which moment" + (" (captions of one sentence)." if stream == "text" else ".")
        )
    for stream, found in result["spread"].items():
        lines.append(
            f"{stream} vectors spread {found['within']['value']:.3g} over a recording's time, "
            f"{found['between']:.3g} over recordings."
        )
    lines += shares.few_groups(result)
    return "\n".join(lines + shares.footnotes(result))
