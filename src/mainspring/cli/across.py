"""`mainspring across`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Which picture belongs to this sound, and which second: retrieval across streams.

    Give recordings that the run was not trained on.
    """

    run: Positional[str]
    """Run folder."""
    data: Positional[str]
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
    from mainspring.evaluate.intervals import FEWEST_GROUPS

    count = result["recordings"]
    lines = [f"{f'Among {count} recordings':32}{'found':>8}{'interval':>18}{'chance':>9}"]
    for way, found in result["retrieval"].items():
        for k, share in found["recall"].items():
            lines.append(_row(f"{way}, R@{k}", share))
        lines.append(
            f"{f'{way}, median rank':32}{found['median_rank']:8g}{'':18}{found['chance_rank']:9g}"
        )
    if result["seconds"]:
        lines += ["", "Within a recording, which moment"]
    for way, found in result["seconds"].items():
        lines.append(_row(f"{way}, R@1", found["recall"]))
        error = found["error_seconds"]
        lines.append(
            f"{f'{way}, off by':32}{error['value']:6.2f} s{_interval(error, '{:.2f}', ' s'):>18}"
            f"{error['chance']:7.2f} s"
        )
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
    if result["groups"] < FEWEST_GROUPS:
        lines.append(
            f"No intervals: the recordings are of {result['groups']} group(s), and fewer than "
            f"{FEWEST_GROUPS} cannot tell how sure the numbers are."
        )
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
    return f"{name:32}{share['value']:8.1%}{interval:>18}{share['chance']:9.1%}"


def _interval(value: dict[str, Any], form: str, unit: str = "") -> str:
    """From low to high; nothing where there are too few groups."""
    if "interval" not in value:
        return ""
    return "-".join(form.format(end) for end in value["interval"]) + unit
