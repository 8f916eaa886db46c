"""From recordings and a run's encoder to vectors, and search among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mainspring.api.data import catalogue, counter
from mainspring.encoders.saved import Saved, load_encoder
from mainspring.errors import RunError, unknown
from mainspring.evaluate.embed import embed as embed_windows
from mainspring.evaluate.search import Hit, embed_query, parse_query
from mainspring.evaluate.search import search as search_vectors
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.cache import Cache
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.reader import Reader
from mainspring.training.plan import default_cache
from mainspring.training.progress import Log
from mainspring.training.run import Run
from mainspring.training.settings import Loading


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
        raise unknown("stream", stream, there)
    return load_encoder(place.encoder(stream or there[0]))


def embed(
    run: str | Path,
    data: Any,
    *,
    stream: str | None = None,
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
        hop: Seconds from one window to the next; a clip's length unless given.
        batch: Windows a forward pass.
        out: Another folder for the shards.
        log: Where to say how far it is.

    Raises:
        RunError: If the run has no encoder, or the shards cannot be written.
        DataError: If not one recording could be embedded.
    """
    saved, found = load(run, stream), catalogue(data, log).usable()
    reader = reader_for(saved, found)
    if out is None:
        hopped = "" if hop is None else f"-hop{hop:g}"
        out = Run(run).embeddings / f"{saved.encoder.stream}-{found.fingerprint()[:8]}{hopped}"
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
    _remember(Run(run), Path(out), data)
    return vectors


def search(
    run: str | Path,
    query: str,
    *,
    k: int = 10,
    data: Any = None,
    stream: str | None = None,
    log: Log | None = None,
) -> list[Hit]:
    """The windows most like an example: `clip.mp4`, or a span of it as `clip.mp4@2.0-4.0`.

    Args:
        run: Run folder; searched is what was embedded last, unless `data` is given.
        query: The example.
        k: How many.
        data: Recordings to search instead; embedded first if they are not yet.
        stream: Which encoder, where the run has several.
        log: Where to say how far it is.

    Raises:
        DataError: If the query cannot be read.
        RunError: If nothing was embedded yet.
    """
    saved, asked = load(run, stream), parse_query(query)
    vectors = (
        Vectors.load(_latest(Run(run), saved.encoder.stream))
        if data is None
        else embed(run, data, stream=stream, log=log)
    )
    asked = asked._replace(uri=str(Path(asked.uri).absolute()))
    vector = embed_query(
        saved.encoder, saved.clip, Reader({saved.encoder.stream: saved.clip}), asked
    )
    return search_vectors(vectors, vector, k, exclude=asked)


def reader_for(saved: Saved, found: Catalogue) -> Reader:
    """A reader for an encoder's clip, with the cache where it serves."""
    clips = {saved.encoder.stream: saved.clip}
    cache = Cache(default_cache() / "decoded", int(Loading().cache_gb * 1e9))
    return Reader(clips, cache if cache.fits(found, clips)[0] else None)


def _remember(run: Run, folder: Path, data: Any) -> None:
    """Notes which embeddings are the latest, and of what."""
    entries = [
        e for e in run.read_json("embeddings/index.json") or [] if e["folder"] != str(folder)
    ]
    named = str(data) if isinstance(data, str | Path) else f"{type(data).__name__} in memory"
    run.write_json("embeddings/index.json", [*entries, {"folder": str(folder), "data": named}])


def _latest(run: Run, stream: str) -> Path:
    entries = run.read_json("embeddings/index.json") or []
    for entry in reversed(entries):
        if Path(entry["folder"]).name.startswith(stream):
            return Path(entry["folder"])
    raise RunError(
        f"Nothing was embedded in {run.folder} yet: `mainspring embed {run.folder} DATA`."
    )
