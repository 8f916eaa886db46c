"""`mainspring pretexts`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Every pretext: its question, its streams, its citation, its presets."""

    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Lists pretexts."""
    from mainspring.pretexts import catalog

    refuse(extra, Flags, "pretexts")
    found = {
        name: {
            "question": (kind := catalog.find(name)).question,
            "streams": list(kind.accepts),
            "citation": kind.citation,
            "presets": list(kind.presets),
        }
        for name in catalog.names()
    }
    return found, "\n".join(
        f"{name}\n  {about['question']}\n  {', '.join(about['streams'])}; {about['citation']}"
        + (f"\n  --preset {', '.join(about['presets'])}" if about["presets"] else "")
        for name, about in found.items()
    )
