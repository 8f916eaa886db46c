"""`mainspring anomaly`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Steps of series whose vector changes more than usual when they are hidden."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file of series."""
    labels: Path | None = None
    """CSV of uri,label,start,end (seconds): which spans are anomalous."""
    column: str = "label"
    """Which column of that file is the label."""
    delay: int = 7
    """Steps after its start within which a segment must be found."""
    difference: int = 0
    """How often values are replaced by their changes; 1 for levels that wander."""
    cold: bool = False
    """Search from the first tenth on, without a train part; otherwise the second half."""
    past: int = 200
    """Steps before its own that a vector has seen."""
    out: str | None = None
    """Another file for the scores than RUN/anomaly.parquet."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Searches for anomalies."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "anomaly")
    found = api.anomaly(
        flags.run,
        flags.data,
        labels=flags.labels,
        column=flags.column,
        delay=flags.delay,
        difference=flags.difference,
        cold=flags.cold,
        past=flags.past,
        out=flags.out,
        log=Log(),
    )
    lines = []
    if found.scores:
        lines.append(f"{'':28}{'precision':>10}{'recall':>8}{'F1':>8}{'F1 by chance':>14}")
    for name, score in found.scores.items():
        lines.append(
            f"{name:28}{score.precision:10.3f}{score.recall:8.3f}{score.f1:8.3f}{score.chance:14.3f}"
        )
    if found.scores:
        lines.append(
            f"A segment counts as a whole: found if reported within {flags.delay} steps of its "
            "start, missed otherwise."
        )
    lines.append(f"{found.hits} of {found.steps} steps reported. Scores of all: {found.path}")
    lines += shares.left_out(found.problems)
    return found.to_dict(), "\n".join(lines)
