"""`mainspring probe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """What the vectors are worth for a label, beside random weights and raw features."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file."""
    labels: Path | None = None
    """CSV with uri and label; the catalogue's own labels otherwise."""
    column: str = "label"
    """Which column of that file is the label."""
    stream: str | None = None
    """Which encoder, where the run has several."""
    seeds: int = 3
    """How many grouped splits."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Probes."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "probe")
    probed = api.probe(
        flags.run,
        flags.data,
        labels=flags.labels,
        column=flags.column,
        stream=flags.stream,
        seeds=tuple(range(flags.seeds)),
        log=Log(),
    )
    rows = [f"{'':16}{'probe':>8}{'interval':>16}{'1-NN':>8}{'R@1':>8}{'R@5':>8}"]
    for name, result in probed.results.items():
        span = "" if (result.low, result.high) == (0, 1) else f"{result.low:.1%}-{result.high:.1%}"
        rows.append(
            f"{name:16}{result.accuracy:8.1%}{span:>16}"
            f"{probed.neighbours[name][1]:8.1%}{probed.recall[name].values[1]:8.1%}"
            f"{probed.recall[name].values[5]:8.1%}"
        )
    trained = next(iter(probed.results))
    luck = probed.recall[trained].chance
    commonest = probed.results[trained].chance_majority
    rows.append(f"{'chance':16}{commonest:8.1%}{'':24}{luck[1]:8.1%}{luck[5]:8.1%}")
    rows += [probed.verdict, *shares.left_out(probed.problems), f"Report: {flags.run}/report.html"]
    return probed.to_dict(), "\n".join(rows)
