"""`mainspring check`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli.extra import settings
from mainspring.errors import DataError


@dataclass(frozen=True)
class Flags:
    """What is in DATA, what is broken, and what training would cost."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file."""
    pretext: str = "taco"
    """Pretext whose cost is measured."""
    encoder: tuple[str, ...] = ()
    """Encoders whose cost is measured; chosen by stream otherwise."""
    batch: int | None = None
    """Recordings a step; 64, or as many as the pretext's paper has."""
    quick: bool = False
    """Only look at files; run no training steps."""
    config: Path | None = None
    """TOML file with the same fields, and those of pretrain."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Looks at data."""
    from mainspring import api
    from mainspring.recordings.survey import render
    from mainspring.training.progress import Log
    from mainspring.training.run import plain

    extra.pop("out", None)  # of pretrain, and nothing is written here
    report = api.check(
        flags.data,
        flags.pretext,
        cost=not flags.quick,
        log=Log(),
        encoder=flags.encoder,
        batch=flags.batch,
        **settings(extra),
    )
    text = "\n".join([render(report), *_times(report), *_cost(report)])
    if not report["usable"]:
        print(json.dumps(report, default=plain) if flags.json else text)
        raise DataError(f"Nothing in {flags.data} is usable; the reasons are above.")
    return report, text


def _times(report: dict[str, Any]) -> list[str]:
    """What was done to irregular time stamps, in words."""
    from mainspring.recordings.recording import many
    from mainspring.recordings.timestamps import RESAMPLED, SETTING

    said = [f"{many(count, 'recording')} {note}" for note, count in report["times"].items()]
    if RESAMPLED in report["times"]:
        said.append(f"   {SETTING}=gap keeps their rows and gives the gaps as a channel instead")
    return [f"{'' if at else 'times':12}{text}" for at, text in enumerate(said)]


def _cost(report: dict[str, Any]) -> list[str]:
    """What training would cost, in words."""
    cost = report.get("cost")
    if cost is None:
        return (
            [f"Cost of {report['pretext']}: {report['cost_problem']}"]
            if "cost_problem" in report
            else []
        )
    from mainspring.recordings.recording import many

    minutes = cost["minutes"]
    lines = [
        f"Training {report['pretext']} here: {many(cost['steps'], 'step')} of "
        f"{cost['step_seconds']:.2f} s, about {minutes:.0f} min"
        + (f" ({minutes / 60:.1f} h)" if minutes >= 120 else "")
        + f"; {cost['parameters'] / 1e6:.2f} M weights, {cost['memory_gb']:.1f} GB of memory"
        + (f", {cost['device_gb']:.1f} GB on the device" if cost["device_gb"] else "")
        + f", {cost['disk_gb']:.2f} GB of disk for decoded samples."
    ]
    plan = report["plan"]
    lines += [f"Note: {note}" for note in plan["notes"]]
    lines += [f"Set aside {count}: {reason}" for reason, count in plan["set_aside"].items()]
    return lines
