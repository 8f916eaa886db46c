"""`mainspring sync`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse

LISTED = 10
"""Recordings out of step that are named; all of them are in sync.csv."""


@dataclass(frozen=True)
class Flags:
    """Whether sound and picture are in step, and which recordings have slipped, by how much.

    Takes a run of av_sync. Give recordings that it was not trained on.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file."""
    offsets: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    """Seconds by which the sound is moved, early and late."""
    moments: int = 3
    """Moments a recording."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Measures."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "sync")
    result = api.sync(
        flags.run, flags.data, offsets=flags.offsets, moments=flags.moments, log=Log()
    ).to_dict()
    return result, _text(result, flags.run)


def _text(result: dict[str, Any], folder: str) -> str:
    """A table, the recordings that seem out of step, and what was left out."""
    count, moments = result["recordings"], result["moments"]
    lines = [shares.head(f"{moments} moments of {count} recordings", "right")]
    for size, share in result["accuracy"].items():
        lines.append(shares.row(f"in step or {size} s off", share))
    lines.append(shares.row("in step among all offsets", result["best"]))
    lines.append(shares.off_by("best offset, off by", result["error_seconds"]))
    lines += shares.few_groups(result)
    moved = result["out_of_step"]
    lines += [
        "",
        f"{len(moved)} of {count} recordings seem out of step; {folder}/sync.csv has all.",
    ]
    if not any(_above(share) for share in result["accuracy"].values()):
        lines.append(
            "But no offset is told from none better than by chance: the run has learnt too little, "
            "or most of these recordings have slipped."
        )
    elif (best := result["best"]["value"]) < 0.5:
        lines.append(
            f"But only {best:.1%} of moments fit best in step. If the recordings are in step, the "
            "run errs at all others: look and listen before moving a track."
        )
    for slip in moved[:LISTED]:
        offset = slip["offset_seconds"]
        at = f"@{slip['start']:g}" if slip["start"] else ""
        lines.append(
            f"  sound {abs(offset):g} s {'late' if offset > 0 else 'early'} "
            f"(score higher by {slip['by']:.3g}): {slip['uri']}{at}"
        )
    if len(moved) > LISTED:
        lines.append(f"  and {len(moved) - LISTED} more")
    return "\n".join(lines + shares.footnotes(result))


def _above(share: dict[str, Any]) -> bool:
    """Whether a share is above chance, with its whole interval where there is one."""
    return bool(share.get("interval", [share["value"]])[0] > share["chance"])
