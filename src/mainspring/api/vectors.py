"""From recordings and a run's encoders to vectors, and search among them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainspring.api import sentences
from mainspring.api.data import catalogue, counter, sparing, usable
from mainspring.clips import ClipSpec
from mainspring.encoders.saved import Saved, load_encoder
from mainspring.errors import DataError, RunError, unknown
from mainspring.evaluate.embed import embed as embed_windows
from mainspring.evaluate.search import Hit, embed_query, embed_words, parse_query
from mainspring.evaluate.search import search as search_vectors
from mainspring.evaluate.vectors import PATTERN, Vectors
from mainspring.pretexts import catalog as pretexts
from mainspring.pretexts.pretext import Pretext
from mainspring.recordings.cache import DECODED, Cache
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import STREAMS
from mainspring.recordings.series_file import split_uri
from mainspring.recordings.store import default_cache
from mainspring.training.progress import Log
from mainspring.training.run import Run
from mainspring.training.settings import Loading
from mainspring.training.streams import channels_of


def load(run: str | Path, stream: str | None = None) -> Saved:
    """The encoder of a run, with the clip it was trained on.

    Raises:
        RunError: If there is none, or several and no stream is named.
    """
    place = Run(run)
    place.config()
    there = place.streams()
    if not there:
        raise RunError(f"{run} has no encoder yet. Give its pretrain command again to finish it.")
    if stream is None and len(there) > 1:
        raise RunError(f"{run} has encoders for {', '.join(there)}; name one with --stream.")
    if stream is not None and stream not in there:
        if stream in STREAMS:
            raise RunError(f"{run} has no encoder of {stream}, only of {' and '.join(there)}.")
        raise unknown("stream", stream, there)
    return load_encoder(place.encoder(stream or there[0]))


def shared(run: str | Path, streams: Iterable[str] = ()) -> dict[str, Saved]:
    """The encoders of a run that have a head into the space that streams share, each with it, by
    stream.

    Args:
        run: Run folder.
        streams: Those that have to be among them.

    Raises:
        RunError: If there are no heads, or none for such a stream.
        ConfigError: If there is no such stream at all.
    """
    place = Run(run)
    asked = place.config().get("pretext")
    found = {name: load(run, name) for name in place.streams()} or {"": load(run)}
    heads = {
        name: found[name].shared()
        for name in STREAMS
        if name in found and found[name].joint is not None
    }
    if not heads:
        raise RunError(
            f"{run} has no heads into a space that its streams share. {_headless(place, asked)}"
        )
    for stream in streams:
        if stream not in STREAMS:
            raise unknown("stream", stream, heads)
        if stream not in heads and len(heads) == 1:
            raise RunError(
                f"{run} has learnt from {next(iter(heads))} only: to compare it with {stream}, "
                "train on both."
            )
        if stream not in heads:
            raise RunError(
                f"{run} shares a space between {' and '.join(heads)}, not with {stream}."
            )
    return heads


def _headless(run: Run, pretext: Any) -> str:
    """Why a run has no heads, and what to do."""
    joining = [name for name in pretexts.names() if pretexts.find(name).joint is not Pretext.joint]
    if pretext not in joining:
        return f"Its pretext, {pretext}, learns none; these do: {', '.join(joining)}."
    if run.read_json("summary.json") is None:
        return "Give its pretrain command again to finish it."
    preset = run.config().get("preset")
    how = f"with --preset {preset}" if preset else "as [question] of its config.toml has it"
    return f"Its pretext, {pretext}, learns none {how}; with its defaults it does."


def embed(
    run: str | Path,
    data: Any,
    *,
    stream: str | None = None,
    joint: bool = False,
    hop: float | None = None,
    batch: int = 64,
    out: str | Path | None = None,
    log: Log | None = None,
) -> Vectors:
    """One vector a window of every recording, kept as Parquet in the run; restartable.

    Args:
        run: Run folder.
        data: Recordings, as `catalogue` takes them.
        stream: Which encoder, where the run has several.
        joint: In the space that streams share, where vectors of different streams compare.
        hop: Seconds from one window to the next; a clip's length unless given.
        batch: Windows a forward pass.
        out: Another folder for the shards.
        log: Where to say how far it is.

    Raises:
        RunError: If the run has no encoder or no such space, or the shards cannot be written.
        DataError: If not one recording could be embedded.
    """
    saved = load(run, stream)
    if joint:
        saved = shared(run, [saved.encoder.stream])[saved.encoder.stream]
    found, problems = usable(data, log)
    reader = reader_for(saved, found)
    if out is None:
        kind = f"{saved.encoder.stream}-joint" if joint else saved.encoder.stream
        hopped = "" if hop is None else f"-hop{hop:g}"
        out = Run(run).embeddings / f"{kind}-{_stamp(found)}{hopped}"
    told = counter(log, "embedding")
    vectors = embed_windows(
        saved.encoder,
        saved.clip,
        found,
        reader,
        Path(out),
        hop,
        batch,
        stamps={"encoder": saved.stamp},
        progress=told,
    )
    if saved.encoder.stream == "text":
        sentences.keep(Path(out), vectors, found)
    with sparing(log, "What is searched without --data"):
        _remember(Run(run), Path(out), data, saved.encoder.stream, joint)
    return replace(vectors, problems=problems | vectors.problems)


def search(
    run: str | Path,
    query: str,
    *,
    k: int = 10,
    data: Any = None,
    stream: str | None = None,
    among: str | None = None,
    log: Log | None = None,
) -> list[Hit]:
    """The windows most like an example: `clip.mp4`, or a span of it as `clip.mp4@2.0-4.0`.

    With `among`, the windows of another stream that belong to it: pictures that go with a sound,
    or that words describe, in the space that the run's streams share. The recording that the
    example comes from is then a hit like any other.

    Args:
        run: Run folder; searched is what was embedded last, unless `data` is given.
        query: The example; words if `stream` is "text".
        k: How many.
        data: Recordings to search instead; embedded first if they are not yet.
        stream: Which encoder reads the example. With `among` it need not be named: it is the
            stream of the file that is not the one searched, if the file has one.
        among: Which stream is searched; the example's own unless given.
        log: Where to say how far it is.

    Raises:
        DataError: If the query cannot be read.
        RunError: If nothing was embedded yet, or the streams share no space.
    """
    if among is None:
        heads, saved = {}, load(run, stream)
    else:
        heads = shared(run, [among] if stream is None else [among, stream])
        saved = heads[stream or _asking(run, query, among, heads)]
        if stream is None and log is not None:
            log.say(f"Asked by the {saved.encoder.stream} of the file (--stream takes another).")
    gallery, source = heads.get(among or "", saved), saved.encoder.stream
    vectors = _searched(run, gallery, data, among is not None, log)
    own = None
    if source == "text":
        vector = embed_words(saved.encoder, saved.clip, query)
    else:
        asked = parse_query(query)
        asked = asked._replace(uri=str(Path(asked.uri).absolute()))
        vector = embed_query(saved.encoder, saved.clip, Reader({source: saved.clip}), asked)
        own = asked if source == gallery.encoder.stream else None
    hits = search_vectors(vectors, vector, k, exclude=own)
    if gallery.encoder.stream != "text":
        return hits
    return sentences.spoken(_latest(Run(run), "text", among is not None), hits)


def _asking(run: str | Path, query: str, among: str, heads: Mapping[str, Saved]) -> str:
    """Which stream of a file asks among another: one that is not it, if the file has one."""
    uri = parse_query(query).uri
    if not os.path.exists(split_uri(uri)[0]):
        words = (
            "to ask with words, add --stream text"
            if "text" in heads
            else "it has no encoder for text, so it cannot be asked with words"
        )
        raise DataError(
            f"There is no file {uri!r}. {run} is asked with a file, or a span of it as in "
            f"clip.mp4@2.0-4.0; {words}."
        )
    there = catalogue(uri)[0]
    if there.problem is not None:
        raise DataError(f"{uri} cannot be read: {there.problem}")
    fits = [name for name in heads if name in there.streams]
    if not fits:
        raise DataError(
            f"{uri} has {' and '.join(there.streams)}, but {run} shares a space between "
            f"{' and '.join(heads)}. Give a file that has one of them."
        )
    return next((name for name in fits if name != among), among)


def _searched(run: str | Path, gallery: Saved, data: Any, joint: bool, log: Log | None) -> Vectors:
    """What is searched: embedded now where there is data, otherwise what was embedded last."""
    stream = gallery.encoder.stream
    if data is not None:
        return embed(run, data, stream=stream, joint=joint, log=log)
    folder = _latest(Run(run), stream, joint)
    vectors = Vectors.load(folder)
    if vectors.stamps.get("encoder") != gallery.stamp:
        raise RunError(
            f"{folder} was embedded with another encoder than {run} has now: it was trained on "
            f"since. Delete the {PATTERN} there and embed again: "
            f"{_command(Run(run), stream, joint)}."
        )
    return vectors


def reader_for(saved: Saved, found: Catalogue) -> Reader:
    """A reader for an encoder's clip, with the cache where it serves."""
    return reader_of({saved.encoder.stream: saved.clip}, found)


def reader_of(clips: Mapping[str, ClipSpec], found: Catalogue) -> Reader:
    """The same for several streams."""
    channels = channels_of(found) if "series" in clips else 0
    if not clips.keys() & DECODED:
        return Reader(clips, channels=channels)
    cache = Cache(default_cache() / "decoded", int(Loading().cache_gb * 1e9))
    return Reader(clips, cache if cache.fits(found, clips)[0] else None, channels=channels)


def _stamp(found: Catalogue) -> str:
    """Tells apart what the shards tell apart: files, spans, and what is said of them. Recordings
    that were relabelled get a folder of their own."""
    words = [found.column(name).tolist() for name in ("group", "label", "caption")]
    stamp = found.fingerprint()
    if any(word is not None for column in words for word in column):
        stamp = hashlib.sha256(json.dumps([stamp, *words]).encode()).hexdigest()
    return stamp[:8]


def _remember(run: Run, folder: Path, data: Any, stream: str, joint: bool) -> None:
    """Notes which embeddings are the latest, and of what; a folder within the run's goes with it
    when it is moved."""
    within = folder.absolute().is_relative_to(run.embeddings.absolute())
    place = (
        folder.absolute().relative_to(run.embeddings.absolute()) if within else folder.absolute()
    )
    entries = [e for e in run.read_json("embeddings/index.json") or [] if e["folder"] != str(place)]
    named = str(data) if isinstance(data, str | Path) else f"{type(data).__name__} in memory"
    entry = {"folder": str(place), "data": named, "stream": stream, "joint": joint}
    run.write_json("embeddings/index.json", [*entries, entry])


def _latest(run: Run, stream: str, joint: bool) -> Path:
    entries = run.read_json("embeddings/index.json") or []
    for entry in reversed(entries):
        if (entry.get("stream"), entry.get("joint")) == (stream, joint):
            return run.embeddings / entry["folder"]
    if joint:
        what = f"No {stream} was embedded in the shared space"
    elif any(entry.get("stream") == stream for entry in entries):
        what = f"No {stream} was embedded without --joint"
    else:
        what = f"No {stream} was embedded" if entries else "Nothing was embedded"
    raise RunError(f"{what} of {run.folder} yet: {_command(run, stream, joint)}, or give --data.")


def _command(run: Run, stream: str, joint: bool) -> str:
    """What embeds a stream."""
    named = f" --stream {stream}" if len(run.streams()) > 1 else ""
    folder = shlex.quote(str(run.folder))
    return f"`mainspring embed {folder} DATA{named}{' --joint' if joint else ''}`"
