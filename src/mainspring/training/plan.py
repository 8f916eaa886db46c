"""From settings and data to everything a run needs: recordings, clips, encoders, pretext, reader.

Whatever the user left open is chosen here, from the data, and said in `notes`.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mainspring.clips import ClipSpec
from mainspring.encoders import catalog as encoder_catalog
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.pretexts import catalog as pretext_catalog
from mainspring.pretexts.pretext import Pretext
from mainspring.recordings.cache import Cache
from mainspring.recordings.catalogue import Catalogue, open_catalogue, windowed
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.survey import survey
from mainspring.training.order import seeded, torch_seed
from mainspring.training.settings import Settings, make, with_clip

SHORTEST_SHARE = 0.1
LEAST_RECORDINGS = 2


@dataclass
class Plan:
    """A run, ready to start.

    Attributes:
        settings: What was asked.
        catalogue: The recordings to learn from.
        held: Recordings kept back to ask the questions of at the end.
        aside: How many recordings were set aside, by reason.
        problems: The unusable ones: name and reason.
        clips: How each stream is cut.
        encoders: One a stream.
        pretext: What is asked.
        reader: Serves samples.
        cached: Whether decoded samples are kept on disk, and how many bytes they take.
        notes: What was chosen, in words.
    """

    settings: Settings
    catalogue: Catalogue
    held: Catalogue
    aside: dict[str, int]
    problems: list[tuple[str, str]]
    clips: dict[str, ClipSpec]
    encoders: dict[str, Encoder]
    pretext: Pretext
    reader: Reader
    cached: tuple[bool, int]
    notes: list[str] = field(default_factory=list)


def make_plan(
    settings: Settings, remember: Path | None = None, progress: Callable | None = None
) -> Plan:
    """Looks at the data and builds everything a run needs.

    Args:
        settings: What was asked.
        remember: Folder where facts about files are kept for the next time.
        progress: Called with (done, total) while files are looked at.

    Raises:
        DataError: If there is nothing to learn from; the message counts the reasons.
        ConfigError: If settings name what does not exist or contradict each other.
    """
    notes: list[str] = []
    kind = pretext_catalog.find(settings.pretext)
    config = make(kind.Config, settings.question, "question")
    found = survey(
        open_catalogue(settings.data),
        workers=os.cpu_count() or 1,
        progress=progress,
        **({} if remember is None else {"store": remember}),
    )
    recordings = list(found)
    problems = [(r.name, r.problem) for r in recordings if r.problem]
    good = [i for i, r in enumerate(recordings) if not r.problem]
    if not good:
        raise DataError(
            f"None of the {len(recordings)} recordings in {settings.data} can be used. "
            + _reasons(Counter(reason for _, reason in problems))
            + " `mainspring check` lists them."
        )
    streams = _streams(settings, kind, [recordings[i] for i in good], notes)
    kept = [i for i in good if all(s in recordings[i].streams for s in streams)]
    aside: Counter[str] = Counter()
    if len(kept) < len(good):
        aside[f"no {' and '.join(streams)} stream"] = len(good) - len(kept)

    encoders = _encoders(settings, streams, [recordings[i] for i in kept], notes)
    clips = {s: with_clip(encoders[s].clip, settings.clip.get(s, {}), s) for s in streams}
    dims = {s: encoders[s].dim for s in streams}

    def ask(clips: Mapping[str, ClipSpec], count: int) -> Pretext:
        torch.manual_seed(torch_seed(settings.seed, 0, 1))
        return kind(clips, dims, count, config)

    for stream in streams:
        clips[stream] = _fit(
            stream,
            clips,
            ask,
            [
                recordings[i].streams[stream].seconds
                if recordings[i].end is None and recordings[i].start == 0
                else _seconds(recordings[i], stream)
                for i in kept
            ],
            settings,
            [recordings[i].streams[stream].rate for i in kept],
            notes,
        )
    pretext = ask(clips, len(kept))
    selected = windowed(found.select(kept), settings.loading.window, None)
    reader = Reader(clips)
    long_enough = []
    for row, recording in enumerate(selected):
        timeline = reader.timeline(recording)
        if all(timeline[s].length >= pretext.needs(s) for s in streams):
            long_enough.append(row)
    if len(long_enough) < len(selected):
        need = ", ".join(_need(s, pretext.needs(s), clips[s]) for s in streams)
        aside[f"shorter than {settings.pretext} needs ({need})"] = len(selected) - len(long_enough)
    if len(long_enough) < LEAST_RECORDINGS:
        raise DataError(
            f"Only {len(long_enough)} of {len(recordings)} recordings in {settings.data} can be "
            f"used, and {settings.pretext} needs at least {LEAST_RECORDINGS}. "
            + _reasons(Counter(reason for _, reason in problems) + aside)
        )
    usable = selected.select(long_enough)
    train, held = _hold_out(usable, settings)
    if isinstance(settings.batch, int) and len(train) < settings.batch:
        notes.append(
            f"The batch of {settings.batch} is larger than the {len(train)} recordings: some "
            "recordings stand in a batch twice."
        )
    pretext = ask(clips, len(train))
    pretext.attach(encoders)
    reader, cached = _cache(settings, usable, clips, notes)
    return Plan(
        settings,
        train,
        held,
        dict(aside),
        problems,
        clips,
        encoders,
        pretext,
        reader,
        cached,
        notes,
    )


def _streams(
    settings: Settings, kind: type[Pretext], recordings: list[Recording], notes: list[str]
) -> list[str]:
    """Which streams to learn from."""
    there = Counter(stream for r in recordings for stream in r.streams)
    held = ", ".join(f"{name} in {count}" for name, count in there.most_common())
    for stream in settings.stream:
        if stream not in there:
            raise DataError(f"No recording has a stream {stream!r}. There is {held}.")
        if stream not in kind.accepts:
            raise ConfigError(f"{settings.pretext} reads {', '.join(kind.accepts)}, not {stream}.")
    if settings.stream:
        return list(settings.stream)
    named = [encoder_catalog.find(name).stream for name in settings.encoder]
    for stream in named or kind.accepts:
        if stream in there:
            if len(there) > 1:
                notes.append(f"Learning from {stream} (there is {held}); --stream takes another.")
            return named or [stream]
    raise DataError(
        f"{settings.pretext} reads {', '.join(named or kind.accepts)}, but the recordings have "
        f"{held}. `mainspring pretexts` lists what suits them."
    )


def _encoders(
    settings: Settings, streams: list[str], recordings: list[Recording], notes: list[str]
) -> dict[str, Encoder]:
    """One encoder a stream, with weights that depend on the seed alone."""
    named = {encoder_catalog.find(name).stream: name for name in settings.encoder}
    for stream, name in named.items():
        if stream not in streams:
            raise ConfigError(
                f"Encoder {name!r} reads {stream}, but learning is from {', '.join(streams)}."
            )
    built = {}
    for index, stream in enumerate(streams):
        name = named.get(stream) or encoder_catalog.default(stream, torch.cuda.is_available())
        if stream not in named:
            notes.append(f"Encoder for {stream}: {name} (--encoder takes another).")
        options = dict(settings.architecture.get(stream, {}))
        if stream == "series":
            options.setdefault("channels", recordings[0].streams[stream].channels)
        torch.manual_seed(torch_seed(settings.seed, 0, 0, index))
        try:
            built[stream] = encoder_catalog.find(name)(**options)
        except TypeError as error:
            raise ConfigError(f"architecture.{stream}: {error}") from error
    return built


def _fit(
    stream: str,
    clips: dict[str, ClipSpec],
    ask: Callable[[Mapping[str, ClipSpec], int], Pretext],
    seconds: list[float],
    settings: Settings,
    rates: list[float],
    notes: list[str],
) -> ClipSpec:
    """The clip, made shorter in time if a tenth of the recordings would be too short for it.

    Video keeps its number of frames and takes them closer together; sound and series keep their
    rate and take fewer samples. What the user set himself stays.
    """
    spec = clips[stream]
    native = float(np.median(rates))
    rate = spec.rate or native
    shortest = float(np.quantile(seconds, SHORTEST_SHARE))
    shortest = min(shortest, settings.loading.window)
    need = ask(clips, len(seconds)).needs(stream)
    scale = shortest * rate / need
    if scale >= 1:
        return spec
    mine = settings.clip.get(stream, {})
    if stream == "video" and "rate" not in mine:
        faster = min(rate / scale, max(native, rate))
        changed = dataclasses.replace(spec, rate=round(float(np.nextafter(faster, np.inf)), 3))
        what = f"{spec.length} frames at {changed.rate / changed.stride:.3g} a second"
    elif stream != "video" and "length" not in mine:
        length = int(spec.length * scale)
        while length > 1 and (
            ask({**clips, stream: dataclasses.replace(spec, length=length)}, len(seconds)).needs(
                stream
            )
            > shortest * rate + 1e-6
        ):
            length -= max(1, length // 50)
        changed = dataclasses.replace(spec, length=max(2, length))
        what = f"{changed.length} samples"
    else:
        return spec
    notes.append(
        f"Clips of {stream} are {what}, shorter in time than usual, because a tenth of the "
        f"recordings last less than {shortest:.3g} s (clip.{stream} in the config sets it)."
    )
    return changed


def _seconds(recording: Recording, stream: str) -> float:
    whole = recording.streams[stream].seconds
    end = whole if recording.end is None else min(recording.end, whole)
    return max(0.0, end - recording.start)


def _need(stream: str, positions: int, spec: ClipSpec) -> str:
    if spec.rate is None:
        return f"{positions} samples of {stream}"
    return f"{positions / spec.rate:.3g} s of {stream}"


def _reasons(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])[:5]
    return "Reasons: " + "; ".join(f"{count} x {reason}" for reason, count in ranked) + "."


def _hold_out(usable: Catalogue, settings: Settings) -> tuple[Catalogue, Catalogue]:
    """Keeps a share of the groups (files where there are none) out of training."""
    keys = [r.group or r.uri for r in usable]
    names = sorted(set(keys))
    count = round(len(names) * settings.loading.holdout)
    if count == 0 or len(names) - count < LEAST_RECORDINGS:
        return usable, usable.select([])
    order = seeded(settings.seed, 0, 2).permutation(len(names))
    back = {names[i] for i in order[:count]}
    rows = np.array([key in back for key in keys])
    return usable.select(np.flatnonzero(~rows).tolist()), usable.select(
        np.flatnonzero(rows).tolist()
    )


def _cache(
    settings: Settings, usable: Catalogue, clips: dict[str, ClipSpec], notes: list[str]
) -> tuple[Reader, tuple[bool, int]]:
    """A reader with a cache where the decoded recordings fit the budget."""
    budget = int(settings.loading.cache_gb * 1e9)
    folder = Path(settings.loading.cache or default_cache())
    cache = Cache(folder, budget)
    fits, size = cache.fits(usable, clips)
    if fits and budget:
        return Reader(clips, cache), (True, size)
    if budget:
        notes.append(
            f"Decoded, the recordings would take {size / 1e9:.1f} GB, more than the cache's "
            f"{settings.loading.cache_gb:g} GB: they are decoded as they are needed."
        )
    return Reader(clips), (False, size)


def default_cache() -> Path:
    """Where decoded samples and facts about files are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mainspring"


def describe(plan: Plan) -> dict[str, Any]:
    """What the data held and what was set aside, for check.json."""
    return {
        "recordings": len(plan.catalogue),
        "held_back": len(plan.held),
        "set_aside": plan.aside,
        "problems": [{"recording": name, "reason": reason} for name, reason in plan.problems],
        "clips": plan.clips,
        "cached": plan.cached[0],
        "decoded_bytes": plan.cached[1],
        "notes": plan.notes,
    }
