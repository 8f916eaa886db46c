"""`mainspring classify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Classifiers on frozen vectors of series, beside random weights, DTW and MiniRocket."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    train: Annotated[Positional[str], arg(metavar="TRAIN")]
    """Labelled series to fit to: UCR .tsv or .ts, or a manifest with a column label."""
    test: Annotated[Positional[str], arg(metavar="TEST")]
    """Labelled series to tell the class of."""
    quick: bool = False
    """Leave DTW and MiniRocket out."""
    seed: int = 0
    """Seed of random weights and of MiniRocket."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Classifies."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "classify")
    found = api.classify(
        flags.run, flags.train, flags.test, quick=flags.quick, seed=flags.seed, log=Log()
    )
    rows = [f"{'':28}{'accuracy':>10}{'AUPRC':>8}"]
    chance = 0.0
    for arm, hows in found.arms.items():
        for how, told in hows.items():
            rows.append(f"{f'{arm}, {how}':28}{told.accuracy:10.1%}{told.auprc:8.3f}")
            chance = told.chance
    rows.append(f"{'commonest class of train':28}{chance:10.1%}")
    rows.append(f"{found.train} series of train, {found.test} of test.")
    rows += shares.left_out(found.problems)
    return found.to_dict(), "\n".join(rows)
