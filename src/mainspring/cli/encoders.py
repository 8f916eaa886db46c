"""`mainspring encoders`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Every encoder: its stream, its size, its citation."""

    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Lists encoders."""
    from mainspring.encoders import catalog

    refuse(extra, Flags, "encoders")
    found: dict[str, dict[str, Any]] = {}
    for name in catalog.names():
        kind = catalog.find(name)
        built = kind()
        found[name] = {
            "stream": kind.stream,
            "dim": built.dim,
            "parameters": sum(p.numel() for p in built.parameters()),
            "citation": kind.citation,
        }
    return found, "\n".join(
        f"{name:18}{about['stream']:8}{about['parameters'] / 1e6:8.2f} M weights  "
        f"{about['dim']:5} dims  {about['citation']}"
        for name, about in found.items()
    )
