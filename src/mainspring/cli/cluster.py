"""`mainspring cluster`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Groups of series whose vectors lie together, and whether a label agrees."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file of series."""
    labels: Path | None = None
    """CSV with uri and label; the catalogue's own labels otherwise."""
    column: str = "label"
    """Which column of that file is the label."""
    k: int | None = None
    """How many clusters; chosen by silhouette from 2 to 10 otherwise."""
    out: str | None = None
    """Another file for the clusters than RUN/clusters.csv."""
    seed: int = 0
    """Seed of k-means and of random weights."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Clusters."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "cluster")
    found = api.cluster(
        flags.run,
        flags.data,
        labels=flags.labels,
        column=flags.column,
        k=flags.k,
        out=flags.out,
        seed=flags.seed,
        log=Log(),
    )
    rows = [f"{'':18}{'clusters':>9}{'silhouette':>12}{'NMI':>16}{'ARI':>16}{'purity':>16}"]
    for name, told in found.clusterings.items():
        row = f"{name:18}{told.k:9}{told.silhouette:12.3f}"
        chance = told.chance or {}
        for measure in ("nmi", "ari", "purity"):
            value = getattr(told, measure)
            shown = "-" if value is None else f"{value:.3f} ({chance[measure]:.3f})"
            row += f"{shown:>16}"
        rows.append(row)
    rows.append(f"In brackets what chance gives. Who is where: {found.path}")
    rows += shares.left_out(found.problems)
    return found.to_dict(), "\n".join(rows)
