"""From settings and data to everything a run needs: recordings, clips, encoders, pretext, reader.

Whatever the user left open is chosen here, from the data, and said in `notes`.
"""

from __future__ import annotations

import dataclasses
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
from mainspring.encoders.weights import load_weights
from mainspring.errors import ConfigError, DataError
from mainspring.pretexts import catalog as pretext_catalog
from mainspring.pretexts.pretext import Pretext
from mainspring.recordings.cache import DECODED, Cache
from mainspring.recordings.catalogue import Catalogue, windowed
from mainspring.recordings.reader import Reader
from mainspring.recordings.store import default_cache
from mainspring.training import streams as streams_of
from mainspring.training.order import seeded, torch_seed
from mainspring.training.settings import Settings, make, with_clip

SHORTEST_SHARE = 0.1
"""Of the recordings, how many may be too short for a clip before clips are shortened."""
LEAST_RECORDINGS = 2
"""A single one is cut in so many, where it is long enough."""
SHORTEST_CLIP = 8
"""Clips are shortened to an eighth of the encoder's own at most."""
CLIPS_A_WINDOW = 8
"""A window of a long recording holds at least so many times what the pretext needs."""
WHOLES_A_WINDOW = 1.5
"""The same where a clip is a whole recording. Windows are the recordings of such a pretext, so
there should be many, but some room to move in."""
DEFAULTS = {
    "video": ("r2plus1d_tiny", "r2plus1d18"),
    "audio": ("logmel", "logmel"),
    "series": ("dilated", "dilated"),
    "text": ("words", "words"),
}
"""Encoder of a stream where none is named: on a CPU, on a GPU."""


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


def make_plan(settings: Settings, found: Catalogue) -> Plan:
    """Looks at the recordings and builds everything a run needs.

    Args:
        settings: What was asked.
        found: The surveyed catalogue.

    Raises:
        DataError: If there is nothing to learn from; the message counts the reasons.
        ConfigError: If settings name what does not exist or contradict each other.
    """
    notes = list(found.notes)
    kind = pretext_catalog.find(settings.pretext)
    config = make(kind.Config, settings.question, "question")
    reasons = found.column("problem")
    problems = [
        (found[row].name, str(reasons[row])) for row in np.flatnonzero(_known(reasons)).tolist()
    ]
    failed = Counter(reason for _, reason in problems)
    good = found.usable()
    if not len(good):
        raise DataError(
            f"None of the {len(found)} recordings in {settings.data} can be used. "
            f"{_reasons(failed)} `mainspring check` lists them."
        )
    streams = streams_of.choose(settings, kind, config, good, notes)
    together, word = (np.logical_or, "or") if kind.partial else (np.logical_and, "and")
    there = together.reduce([np.isfinite(good.column(f"{s}.seconds")) for s in streams])
    aside: Counter[str] = Counter()
    if not there.all():
        aside[streams_of.lacking(streams, kind.partial)] = int((~there).sum())
    recordings = good.select(there)

    notes += [
        f"{section}.{stream} has no effect: learning is from {' and '.join(streams)}."
        for section in ("architecture", "clip")
        for stream in getattr(settings, section)
        if stream not in streams
    ]
    encoders = _encoders(settings, streams, recordings, notes)
    clips = {s: with_clip(encoders[s].clip, settings.clip.get(s, {}), s) for s in streams}
    dims = {s: encoders[s].dim for s in streams}

    def ask(clips: Mapping[str, ClipSpec], count: int) -> Pretext:
        torch.manual_seed(torch_seed(settings.seed, 0, 1))
        return kind(clips, dims, count, config)

    for stream in streams:
        if kind.whole and "length" not in settings.clip.get(stream, {}):
            most = int(_positions(recordings, stream, clips[stream]).max())
            if len(recordings) == 1:
                most = max(1, most // LEAST_RECORDINGS)
            clips[stream] = dataclasses.replace(clips[stream], length=min(kind.whole, most))
        clips[stream] = _fit(stream, clips, ask, recordings, settings, notes)
    pretext = ask(clips, len(recordings))
    window, least = settings.loading.window, 0.0
    for stream in streams:
        rate, needs = _rate(recordings, stream, clips[stream]), pretext.needs(stream)
        whole, some = WHOLES_A_WINDOW * clips[stream].span, CLIPS_A_WINDOW * needs
        window = max(window, (whole if kind.whole else some) / rate)
        least = max(least, needs / rate)
    if len(recordings) == 1:
        window = min(window, max(least, float(recordings.seconds()[0]) / LEAST_RECORDINGS))
    recordings = windowed(recordings, window)
    long = {s: _positions(recordings, s, clips[s]) >= pretext.needs(s) for s in streams}
    enough = together.reduce(list(long.values()))
    if kind.partial:
        for stream, has in long.items():
            if lacking := int((enough & ~has).sum()):
                notes.append(
                    f"{lacking} of {int(enough.sum())} recordings have no {stream}, or less than "
                    f"{_need(stream, pretext.needs(stream), clips[stream])}: they are left out of "
                    f"what is asked of {stream}."
                )
    if not enough.all():
        need = f" {word} ".join(_need(s, pretext.needs(s), clips[s]) for s in streams)
        aside[f"shorter than {settings.pretext} needs ({need})"] = int((~enough).sum())
    if enough.sum() < LEAST_RECORDINGS:
        said = (
            f"Only {enough.sum()} of {len(found)} recordings in {settings.data} can be used, and "
            f"{settings.pretext} needs at least {LEAST_RECORDINGS}. {_reasons(failed + aside)}"
        )
        raise DataError(said.rstrip() + ("" if enough.all() else _shorten(pretext, clips)))
    usable = recordings.select(enough)
    train, held = _hold_out(usable, settings, notes)
    if len(train) < settings.batch and kind.apart:
        count = len(train)
        notes.append(
            f"Batches are of {count}, not {settings.batch}: {settings.pretext} tells recordings "
            "apart, and there are no more."
        )
        settings = dataclasses.replace(settings, batch=count, parts=min(settings.parts, count))
    elif len(train) < settings.batch:
        notes.append(
            f"The batch of {settings.batch} is larger than the {len(train)} recordings: some "
            "stand in a batch twice."
        )
    if kind.at_once and settings.parts == 1:
        parts = -(-settings.batch * max(spec.length for spec in clips.values()) // kind.at_once)
        if parts > 1:
            settings = dataclasses.replace(settings, parts=min(parts, settings.batch))
            notes.append(f"A batch is encoded in {settings.parts} parts, to spare memory.")
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


def _shorten(pretext: Pretext, clips: Mapping[str, ClipSpec]) -> str:
    """What to change where recordings are too short."""
    lengths = " and ".join(f"clip.{stream}.length" for stream in clips)
    most = max(clips, key=lambda stream: pretext.needs(stream) / clips[stream].span)
    needed, span = pretext.needs(most), clips[most].span
    if needed <= span:
        return f" Set shorter clips ({lengths})."
    return (
        f" Of {needed} positions of {most} a clip takes {span}: set shorter clips ({lengths}), or "
        "let the question ask for fewer of them or nearer to each other ([question] of the config "
        "file)."
    )


def _known(column: np.ndarray) -> np.ndarray:
    """Where a column of text holds any."""
    return np.array([value is not None for value in column], bool)


def _seconds(recordings: Catalogue, stream: str) -> np.ndarray:
    """How long a stream lasts within each recording's span."""
    stop = np.fmin(recordings.column(f"{stream}.seconds"), recordings.column("end"))
    return np.maximum(stop - recordings.column("start"), 0.0)


def _positions(recordings: Catalogue, stream: str, spec: ClipSpec) -> np.ndarray:
    """Positions each recording has on the grid of a clip, as the reader counts them; 0 where the
    stream is not there."""
    rate = spec.rate or recordings.column(f"{stream}.rate") * _grain(stream, spec)
    count = np.floor(_seconds(recordings, stream) * rate + 1e-6)
    return np.nan_to_num(np.maximum(count, _grain(stream, spec))).astype(np.int64)


def _rate(recordings: Catalogue, stream: str, spec: ClipSpec) -> float:
    """Positions a second of a typical recording."""
    native = float(np.nanmedian(recordings.column(f"{stream}.rate")))
    return spec.rate or native * _grain(stream, spec)


def _grain(stream: str, spec: ClipSpec) -> int:
    """Positions that a sample of the file takes on the grid: a sentence is as many as a clip has
    words, anything else is one."""
    return spec.length if stream == "text" else 1


def _encoders(
    settings: Settings, streams: list[str], recordings: Catalogue, notes: list[str]
) -> dict[str, Encoder]:
    """One encoder a stream, with weights that depend on the seed alone."""
    named: dict[str, str] = {}
    for name in settings.encoder:
        stream = encoder_catalog.find(name).stream
        if stream in named:
            raise ConfigError(f"{named[stream]} and {name} both read {stream}: name one of them.")
        named[stream] = name
    for stream, name in named.items():
        if stream not in streams:
            raise ConfigError(
                f"Encoder {name!r} reads {stream}, but learning is from {', '.join(streams)}."
            )
    built = {}
    for index, stream in enumerate(streams):
        name = named.get(stream) or DEFAULTS[stream][torch.cuda.is_available()]
        if stream not in named:
            notes.append(f"Encoder for {stream}: {name} (--encoder takes another).")
        options = dict(settings.architecture.get(stream, {}))
        if stream == "series":
            options.setdefault("channels", streams_of.channels_of(recordings))
        if stream == "audio" and "rate" in settings.clip.get(stream, {}):
            options.setdefault("rate", int(settings.clip[stream]["rate"]))
        torch.manual_seed(torch_seed(settings.seed, 0, 0, index))
        try:
            built[stream] = encoder_catalog.find(name)(**options)
        except TypeError as error:
            raise ConfigError(f"architecture.{stream}: {error}") from error
        if settings.start:
            source = Path(settings.start)
            inside = source / "encoder" / stream  # where a run keeps it
            report = load_weights(built[stream], inside if inside.is_dir() else source)
            notes.append(f"Weights for {stream}: {report}")
    return built


def _fit(
    stream: str,
    clips: dict[str, ClipSpec],
    ask: Callable[[Mapping[str, ClipSpec], int], Pretext],
    recordings: Catalogue,
    settings: Settings,
    notes: list[str],
) -> ClipSpec:
    """The clip, made shorter in time if a tenth of the recordings would be too short for it, not
    counting those that are too short for any.

    Video keeps its number of frames and takes them closer together; sound and series keep their
    rate and take fewer samples. What the user set himself stays.
    """
    spec, mine = clips[stream], settings.clip.get(stream, {})
    rate = _rate(recordings, stream, spec)
    native = _rate(recordings, stream, dataclasses.replace(spec, rate=None))
    shortest = float(np.nanquantile(_seconds(recordings, stream), SHORTEST_SHARE))

    def need(changed: ClipSpec) -> int:
        return ask({**clips, stream: changed}, len(recordings)).needs(stream)

    there = np.isfinite(recordings.column(f"{stream}.seconds"))
    counts = _positions(recordings, stream, spec)[there]
    if np.quantile(counts, SHORTEST_SHARE) >= need(spec):
        return spec
    if stream == "video" and "rate" not in mine:
        faster = min((need(spec) + 1) / max(shortest, 1e-6), max(native, rate))
        changed = dataclasses.replace(spec, rate=round(faster, 3))
        what = f"{spec.length} frames at {faster / spec.stride:.3g} a second"
    elif stream != "video" and "length" not in mine:
        low, high = max(2, spec.length // SHORTEST_CLIP), spec.length  # `need` grows with it
        enough = counts[counts >= need(dataclasses.replace(spec, length=low))]
        if not len(enough):
            return spec
        room = int(np.quantile(enough, SHORTEST_SHARE))
        while low < high:
            middle = (low + high + 1) // 2
            if need(dataclasses.replace(spec, length=middle)) <= room:
                low = middle
            else:
                high = middle - 1
        if low == spec.length:
            return spec
        changed = dataclasses.replace(spec, length=low)
        what = f"{low} samples"
    else:
        return spec
    notes.append(
        f"Clips of {stream} are {what}, shorter in time than usual, because a tenth of the "
        f"recordings last {shortest:.3g} s or less (clip.{stream} in the config sets it)."
    )
    return changed


def _need(stream: str, positions: int, spec: ClipSpec) -> str:
    if stream == "text":
        count = -(-positions // spec.length)
        return "a sentence of text" if count == 1 else f"{count} sentences of text"
    if spec.rate is None:
        return f"{positions} samples of {stream}"
    return f"{positions / spec.rate:.3g} s of {stream}"


def _reasons(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    ranked = sorted(counts.items(), key=lambda item: -item[1])[:5]
    return "Reasons: " + "; ".join(f"{n} x {reason.rstrip('.')}" for reason, n in ranked) + "."


def _hold_out(
    usable: Catalogue, settings: Settings, notes: list[str]
) -> tuple[Catalogue, Catalogue]:
    """Keeps a share of the groups (files where there are none) out of training."""
    pairs = zip(usable.column("group"), usable.column("uri"), strict=True)
    keys = [group if group is not None else uri for group, uri in pairs]
    names = sorted(set(keys))
    count = round(len(names) * settings.loading.holdout)
    if count and len(names) - count < LEAST_RECORDINGS:
        notes.append(
            f"Nothing is kept back: {settings.loading.holdout:g} (loading.holdout) of "
            f"{len(names)} groups would leave too few to learn from."
        )
        count = 0
    order = seeded(settings.seed, 0, 2).permutation(len(names))
    back = {names[i] for i in order[:count]}
    rows = np.array([key in back for key in keys], bool)
    return usable.select(~rows), usable.select(rows)


def _cache(
    settings: Settings, usable: Catalogue, clips: dict[str, ClipSpec], notes: list[str]
) -> tuple[Reader, tuple[bool, int]]:
    """A reader with a cache where the decoded recordings fit the budget. Where nothing is decoded,
    or nothing may be kept, no folder is made."""
    budget = int(settings.loading.cache_gb * 1e9)
    channels = streams_of.channels_of(usable) if "series" in clips else 0
    if not budget or not clips.keys() & DECODED:
        return Reader(clips, channels=channels), (False, 0)
    cache = Cache(Path(settings.loading.cache or default_cache() / "decoded"), budget)
    fits, size = cache.fits(usable, clips)
    if fits and size:
        return Reader(clips, cache, channels=channels), (True, size)
    if size:
        notes.append(
            f"Decoded, the recordings would take {size / 1e9:.1f} GB, more than the cache's "
            f"{settings.loading.cache_gb:g} GB: they are decoded as they are needed."
        )
    return Reader(clips, channels=channels), (False, size)


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
