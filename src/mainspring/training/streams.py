"""Which streams of the recordings a run learns from, and what to say where they do not suffice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mainspring.encoders import catalog as encoder_catalog
from mainspring.errors import ConfigError, DataError
from mainspring.pretexts.pretext import Pretext
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.recording import STREAMS
from mainspring.training.settings import Settings


def choose(
    settings: Settings,
    kind: type[Pretext],
    config: Any,
    recordings: Catalogue,
    notes: list[str],
) -> list[str]:
    """The streams that were asked for, or those that suit pretext, encoders and data.

    Args:
        settings: What was asked.
        kind: The pretext.
        config: Its settings.
        recordings: Those that can be used.
        notes: Where a choice is said.

    Raises:
        DataError: If the recordings lack what is needed.
        ConfigError: If the pretext does not read a stream that was asked for.
    """
    counts = {s: int(np.isfinite(recordings.column(f"{s}.seconds")).sum()) for s in STREAMS}
    there = {stream: count for stream, count in counts.items() if count}
    held = ", ".join(f"{name} in {count}" for name, count in there.items())
    for stream in settings.stream:
        if stream not in there:
            hint = " Text is the column caption of a manifest." if stream == "text" else ""
            raise DataError(f"No recording has a stream {stream!r}. There is {held}.{hint}")
        if stream not in kind.accepts:
            raise ConfigError(f"{settings.pretext} reads {', '.join(kind.accepts)}, not {stream}.")
    if len(set(settings.stream)) < len(settings.stream):
        raise ConfigError(f"A stream is named twice: {', '.join(settings.stream)}.")
    if settings.stream:
        return list(settings.stream)
    wanted = kind.wants(config, there)
    named = [encoder_catalog.find(name).stream for name in settings.encoder]
    if len(wanted) < 2 and named:
        wanted = named if set(named) & set(there) else []
    if not wanted:
        reads = " and ".join(named) or ", ".join(kind.accepts)
        readable = set(there) & set(kind.accepts)
        if not named and len(readable) == 1:
            needs = f"needs two streams at least, of {reads},"
        elif not named and readable:
            needs = f"needs other ones of {reads} together, as [question] of its config is set,"
        else:
            needs = f"reads {reads},"
        raise DataError(
            f"{settings.pretext} {needs} but the recordings have {held}. "
            "`mainspring pretexts` lists what suits them."
        )
    if set(there) - set(wanted):
        what = " and ".join(wanted)
        notes.append(f"Learning from {what} (there is {held}); --stream takes others.")
    return wanted


def lacking(streams: Sequence[str], partial: bool) -> str:
    """Why recordings are set aside: those that lack a stream, or, where a pretext takes these too
    (`partial`), those that lack all."""
    if len(streams) == 1:
        return f"without {streams[0]}"
    if not partial:
        return f"lacking {' or '.join(streams)}"
    if len(streams) == 2:
        return f"with neither {streams[0]} nor {streams[1]}"
    return f"with none of {', '.join(streams)}"


def channels_of(recordings: Catalogue) -> int:
    """Variables of the first series there is; 0 without any."""
    counts = recordings.column("series.channels")
    some = counts[np.isfinite(counts)]
    return int(some[0]) if len(some) else 0
