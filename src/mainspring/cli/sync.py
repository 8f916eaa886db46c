"""`mainspring sync`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from mainspring.cli.extra import refuse

LISTED = 10
"""Recordings out of step that are named; all of them are in sync.csv."""


@dataclass(frozen=True)
class Flags:
    """Whether sound and picture are in step, and which recordings have slipped, by how much.

    Takes a run of av_sync. Give recordings that it was not trained on.
    """

    run: Positional[str]
    """Run folder."""
    data: Positional[str]
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
    from mainspring.evaluate.intervals import FEWEST_GROUPS

    count, moments = result["recordings"], result["moments"]
    title = f"{moments} moments of {count} recordings"
    lines = [f"{title:36}{'right':>8}{'interval':>18}{'chance':>9}"]
    for size, share in result["accuracy"].items():
        lines.append(_row(f"in step or {size} s off", share))
    lines.append(_row("in step among all offsets", result["best"]))
    error = result["error_seconds"]
    lines.append(
        f"{'best offset, off by':36}{error['value']:6.2f} s"
        f"{_interval(error, '{:.2f}', ' s'):>18}{error['chance']:7.2f} s"
    )
    if result["groups"] < FEWEST_GROUPS:
        lines.append(
            f"No intervals: the recordings are of {result['groups']} group(s), and fewer than "
            f"{FEWEST_GROUPS} cannot tell how sure the numbers are."
        )
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
    if result["silent"]:
        lines.append(f"{result['silent']} moments left out: nothing is heard in them.")
    if result["problems"]:
        lines.append(f"{len(result['problems'])} recordings left out:")
        lines += [f"  {name}: {why}" for name, why in result["problems"].items()]
    if result["seen"]:
        lines.append("The run was trained on these recordings; unseen ones say more.")
    return "\n".join(lines)


def _row(name: str, share: dict[str, Any]) -> str:
    interval = _interval(share, "{:.1%}")
    return f"{name:36}{share['value']:8.1%}{interval:>18}{share['chance']:9.1%}"


def _above(share: dict[str, Any]) -> bool:
    """Whether a share is above chance, with its whole interval where there is one."""
    return bool(share.get("interval", [share["value"]])[0] > share["chance"])


def _interval(value: dict[str, Any], form: str, unit: str = "") -> str:
    """From low to high; nothing where there are too few groups."""
    if "interval" not in value:
        return ""
    return "-".join(form.format(end) for end in value["interval"]) + unit
