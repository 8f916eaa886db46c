"""`mainspring pretrain`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mainspring.cli.extra import settings


@dataclass(frozen=True)
class Flags:
    """Trains an encoder by asking a question of unlabelled recordings. The same command resumes."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Folder, glob, manifest or file."""
    out: str
    """Run folder."""
    pretext: str = "taco"
    """What is asked; `mainspring pretexts` lists them."""
    preset: str = ""
    """One of the pretext's presets, such as a row of its paper's table."""
    encoder: tuple[str, ...] = ()
    """One a stream; `mainspring encoders` lists them. Chosen by stream and device otherwise."""
    stream: tuple[str, ...] = ()
    """Streams to learn from (video, audio, series, text)."""
    steps: int | None = None
    """Budget in steps; a config file may say epochs. Chosen from the data otherwise."""
    minutes: float | None = None
    """Budget in time on this machine."""
    batch: int | None = None
    """Recordings a step over all processes; 64, or as many as the pretext's paper has."""
    seed: int = 0
    """Seed of everything."""
    start: Annotated[str | None, arg(name="from")] = None
    """Start from a run, an encoder folder or a file of weights."""
    config: Path | None = None
    """TOML file: these fields, and [question] [clip] [architecture] [optimiser] [loading]."""
    json: bool = False
    """Print one JSON object."""


def run(flags: Flags, extra: dict[str, Any]) -> tuple[Any, str]:
    """Trains."""
    from mainspring import api
    from mainspring.training.progress import Log

    given = {f.name: getattr(flags, f.name) for f in fields(flags)}
    for name in ("data", "out", "pretext", "config", "json"):
        given.pop(name)
    summary = api.pretrain(
        flags.data, flags.pretext, out=flags.out, log=Log(), **(settings(extra) | given)
    )
    return summary, (
        f"The encoder is in {flags.out}/encoder, the report in {flags.out}/report.html.\n"
        f"{_next(flags.out, flags.data)}"
    )


def _next(out: str, data: str) -> str:
    """What can be done with the run."""
    from mainspring.encoders.saved import has_joint
    from mainspring.recordings.recording import STREAMS
    from mainspring.training.run import Run

    run = Run(out)
    out, data = shlex.quote(out), shlex.quote(data)
    streams = [stream for stream in STREAMS if stream in run.streams()]
    named = f" --stream {streams[0]}" if len(streams) > 1 else ""
    others = f"   (or {', '.join(streams[1:])})" if named else ""
    text = f"Next: mainspring embed {out} {data}{named}{others}"
    if sum(has_joint(run.encoder(stream)) for stream in streams) > 1:
        text += f"\n      mainspring across {out} DATA   (of recordings it has not seen)"
    if run.config()["pretext"] == "av_sync":
        text += f"\n      mainspring sync {out} DATA   (of recordings it has not seen)"
    return text
