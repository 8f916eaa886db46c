"""`mainspring forecast`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli import shares
from mainspring.cli.extra import refuse


@dataclass(frozen=True)
class Flags:
    """Ridge forecasts from frozen causal vectors, beside forecasts without an encoder."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """One long series, or several of one length that share a regression."""
    parts: tuple[float, float, float] = (0.6, 0.2, 0.2)
    """Train, validation and test, one after the other: shares, or numbers of steps. ETTh: 8640
    2880 2880; ETTm: 34560 11520 11520."""
    horizons: tuple[int, ...] = ()
    """Steps ahead; those of 24, 48, 168, 336 and 720 that fit otherwise."""
    context: int | None = None
    """Steps before its own that a vector has seen; 200, or what patches were trained with."""
    period: int | None = None
    """Steps of a season, for the seasonal baseline; guessed from train otherwise."""
    scale: bool = False
    """Standardise by train before encoding, as TS2Vec does."""
    calendar: bool = False
    """Give the encoder minute, hour, weekday ... of the time column as seven channels more. For
    one trained on arrays with mainspring.evaluate.calendar.calendar_features as last columns."""
    quick: bool = False
    """Leave random weights out."""
    config: Path | None = None
    """TOML file with the same fields."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Forecasts."""
    from mainspring import api
    from mainspring.training.progress import Log

    refuse(extra, Flags, "forecast")
    found = api.forecast(
        flags.run,
        flags.data,
        parts=flags.parts,
        horizons=flags.horizons,
        context=flags.context,
        period=flags.period,
        scale=flags.scale,
        calendar=flags.calendar,
        quick=flags.quick,
        log=Log(),
    )
    horizons = list(next(iter(found.arms.values())))
    rows = [f"{'MSE / MAE, steps ahead':24}" + "".join(f"{h:>16}" for h in horizons)]
    for arm, by in found.arms.items():
        told = [f"{by[h].mse:.3f} / {by[h].mae:.3f}" for h in horizons]
        rows.append(f"{arm:24}" + "".join(f"{each:>16}" for each in told))
    rows.append("Errors are of values standardised by train.")
    rows += [f"Note: {note}." for note in found.notes]
    rows += shares.left_out(found.problems)
    return found.to_dict(), "\n".join(rows)
