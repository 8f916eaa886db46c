"""`mainspring demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """A generated world of videos with sound, and the whole path on it, on a laptop."""

    out: str = "runs/demo"
    """Folder of the demo."""
    recordings: int = 600
    """How many videos to generate."""
    minutes: float = 6.0
    """Time the whole may take."""
    seed: int = 0
    """Seed of everything."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Runs the demonstration."""
    from mainspring.demo import run_demo
    from mainspring.training.progress import Log

    refuse(extra, Flags, "demo")
    summary = run_demo(
        flags.out, recordings=flags.recordings, minutes=flags.minutes, seed=flags.seed, log=Log()
    )
    return summary, summary["text"]
