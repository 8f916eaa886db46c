"""What Mainspring does, a function a verb. The command line is a thin layer over these.

import mainspring as ms

ms.pretrain("videos/", pretext="taco", out="runs/first")
vectors = ms.embed("runs/first", "videos/")
result = ms.probe("runs/first", "videos/", labels="labels.csv")
hits = ms.search("runs/first", "videos/a.mp4@2.0-4.0")
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.encoders import catalog as encoder_catalog
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.saved import Saved, load_encoder, save_encoder
from mainspring.errors import DataError, MainspringError, RunError, unknown
from mainspring.evaluate import report as reporting
from mainspring.evaluate import verdict as verdicts
from mainspring.evaluate.baselines import baselines
from mainspring.evaluate.embed import embed as embed_windows
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.neighbours import Recall, knn_accuracy, retrieval
from mainspring.evaluate.probe import ProbeResult
from mainspring.evaluate.probe import probe as probe_vectors
from mainspring.evaluate.search import Hit, embed_query, parse_query
from mainspring.evaluate.search import search as search_vectors
from mainspring.evaluate.vectors import Vectors, known
from mainspring.recordings.cache import Cache
from mainspring.recordings.catalogue import Catalogue, open_catalogue
from mainspring.recordings.reader import Reader
from mainspring.recordings.survey import report as survey_report
from mainspring.recordings.survey import survey
from mainspring.training.estimate import choose_steps, estimate
from mainspring.training.loop import open_fabric, train
from mainspring.training.order import seeded
from mainspring.training.plan import Plan, default_cache, describe, make_plan
from mainspring.training.progress import Log
from mainspring.training.run import Run, plain
from mainspring.training.settings import Loading, Settings, make

TRAINED = verdicts.TRAINED
VERDICT_RECORDINGS = 200


def recordings(data: Any, log: Log | None = None) -> Catalogue:
    """The catalogue of a folder, glob, manifest, file, list of paths, array or list of arrays, with
    the facts of every file filled in and the unusable ones marked.

    Raises:
        DataError: If there is nothing there.
    """
    told = counter(log, "looking at files")
    return survey(open_catalogue(data), store=default_cache() / "facts", progress=told)


def check(
    data: Any, pretext: str = "taco", *, cost: bool = True, log: Log | None = None, **settings: Any
) -> dict[str, Any]:
    """What is there, what is broken, and what training would cost, measured by a few steps.

    Returns:
        The survey's report, with "cost"; where training could not start, it is None and
        "cost_problem" says why.
    """
    found = recordings(data, log)
    result = survey_report(found) | {"pretext": pretext}
    if not cost:
        return result
    try:
        asked = make(Settings, {"data": str(data), "pretext": pretext} | settings, "settings")
        plan = make_plan(asked, found)
        return result | {"plan": plain(describe(plan)), "cost": asdict(estimate(plan))}
    except MainspringError as error:
        return result | {"cost": None, "cost_problem": str(error)}


def pretrain(
    data: Any,
    pretext: str = "taco",
    *,
    out: str | Path,
    verdict: bool = True,
    log: Log | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Trains an encoder by asking a question of unlabelled recordings.

    The same call again resumes.

    Args:
        data: Recordings, as `recordings` takes them.
        pretext: What is asked.
        out: Run folder.
        verdict: Compare the encoder with random weights and raw features at the end.
        log: Where to say how far it is.
        settings: Fields of `mainspring.training.settings.Settings`.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        DataError: If there is nothing to learn from.
        ConfigError: If settings are unknown or contradict each other.
        RunError: If `out` holds something else, or cannot be written.
    """
    named = data if isinstance(data, str | Path) else f"{type(data).__name__} in memory"
    asked = make(Settings, {"data": str(named), "pretext": pretext} | settings, "settings")
    fabric, run = open_fabric(asked), Run(out)
    lead = fabric.global_rank == 0
    with run.alone() if lead else contextlib.nullcontext():
        if lead:
            run.begin(plain(asked))
        fabric.barrier()
        done = run.read_json("summary.json")
        if done is not None:
            (log or Log(quiet=True)).say(f"{out} is finished: {done['steps']} steps.")
            return done
        told = (log or Log(quiet=True)).into(run.folder / "log.txt" if lead else None)
        found = recordings(data, told)
        plan = make_plan(asked, found)
        for note in plan.notes:
            told.say(note)
        for reason, count in plan.aside.items():
            told.say(f"Set aside {count} recordings: {reason}.")
        if plan.problems:
            told.say(f"Set aside {len(plan.problems)} that cannot be used; check.json lists them.")
        steps = _steps(asked, plan, found, run)
        if lead:
            run.write_json("check.json", describe(plan))
            run.resolve(
                {
                    "steps": steps,
                    "clips": plan.clips,
                    "encoders": {
                        s: {"name": _name(e), **e.settings} for s, e in plan.encoders.items()
                    },
                }
            )
        told.say(
            f"{pretext}: {len(plan.catalogue)} recordings, {len(plan.held)} kept back, "
            f"{steps} steps of {asked.batch}."
        )
        if lead:
            _fill(plan, told)
        fabric.barrier()
        finished = train(plan, run, steps, told, fabric)
        summary: dict[str, Any] = {"pretext": pretext, "data": str(named), **asdict(finished)}
        if lead:
            for stream, encoder in plan.encoders.items():
                save_encoder(
                    run.encoder(stream), encoder.cpu(), plan.clips[stream], {"pretext": pretext}
                )
            summary["verdict"] = _verdict(plan, told) if verdict else ""
            if finished.quarantined:
                run.write_json("check.json", describe(plan) | {"quarantined": finished.quarantined})
            run.write_json("summary.json", summary)
            reporting.write_report(run, verdict=summary["verdict"])
            if verdict:
                told.say(summary["verdict"])
        fabric.barrier()
    return summary


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
        data: Recordings, as `recordings` takes them.
        stream: Which encoder, where the run has several.
        hop: Seconds from one window to the next; a clip's length unless given.
        batch: Windows a forward pass.
        out: Another folder for the shards.
        log: Where to say how far it is.

    Raises:
        RunError: If the run has no encoder, or the shards cannot be written.
        DataError: If not one recording could be embedded.
    """
    saved, found = load(run, stream), recordings(data, log).usable()
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


@dataclass(frozen=True)
class Probed:
    """What the vectors of a run are worth for a label.

    Attributes:
        results: Linear probes of "trained", "random weights" and "raw features".
        neighbours: For each of them the accuracy of k nearest neighbours by k, across groups.
        recall: For each of them R@k.
        verdict: In words.
    """

    results: dict[str, ProbeResult]
    neighbours: dict[str, dict[int, float]]
    recall: dict[str, Recall]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            name: {
                "probe": result.to_dict(),
                "knn": self.neighbours[name],
                "recall": {
                    k: {"value": v, "chance": self.recall[name].chance[k]}
                    for k, v in self.recall[name].values.items()
                },
            }
            for name, result in self.results.items()
        } | {"verdict": self.verdict}


def probe(
    run: str | Path,
    data: Any,
    *,
    labels: str | Path | None = None,
    column: str = "label",
    stream: str | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    log: Log | None = None,
) -> Probed:
    """Linear probe, nearest neighbours and retrieval on frozen vectors, one a recording, beside
    random weights and raw features; writes probe-COLUMN.json and the report.

    Args:
        run: Run folder.
        data: Recordings.
        labels: CSV with uri and label; None takes the catalogue's own labels.
        column: Which column of the file is the label.
        stream: Which encoder, where the run has several.
        seeds: Of the splits.
        log: Where to say how far it is.

    Raises:
        DataError: If labels are missing or too few.
    """
    saved = load(run, stream)
    vectors = embed(run, data, stream=stream, log=log)
    found = recordings(data, log).usable()
    reader = reader_for(saved, found)
    others = baselines(saved.encoder, saved.clip, found, reader, progress=counter(log, "baselines"))
    named = _labelled({TRAINED: vectors, **others}, labels, column)
    probed = _probe(named, seeds)
    place = Run(run)
    place.write_json(f"probe-{column}.json", probed.to_dict())
    reporting.write_report(
        place,
        vectors=named[TRAINED],
        probes={column: probed.results},
        reader=reader,
        catalogue=found,
        verdict=probed.verdict,
    )
    return probed


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


def _steps(asked: Settings, plan: Plan, found: Catalogue, run: Run) -> int:
    """Steps of the run: as resolved before, or chosen now."""
    before = run.config().get("resolved", {}).get("steps")
    if before is not None:
        return int(before)
    if asked.minutes is None:
        return choose_steps(asked, len(plan.catalogue))
    spent = make_plan(replace(asked, loading=replace(asked.loading, cache_gb=0.0)), found)
    return estimate(spent).steps


def _fill(plan: Plan, log: Log) -> None:
    """Decodes what the cache does not hold yet; files that fail are met again when read."""
    if plan.reader.cache is not None:
        every = itertools.chain(plan.catalogue, plan.held)
        told = counter(log, "decoding")
        plan.reader.cache.build(every, plan.clips, os.cpu_count() or 1, told)


def _verdict(plan: Plan, log: Log) -> str:
    """The trained encoder beside random weights and raw features, without labels."""
    rows = seeded(plan.settings.seed, 0, 4).permutation(len(plan.catalogue))
    some = plan.catalogue.select(np.sort(rows[:VERDICT_RECORDINGS]))
    lines = []
    for stream, encoder in plan.encoders.items():
        clip, told = plan.clips[stream], counter(log, f"judging {stream}")
        try:
            vectors = embed_windows(
                encoder, clip, some, plan.reader, None, stamps={}, progress=told
            )
            others = baselines(encoder, clip, some, plan.reader, progress=told)
        except DataError as error:
            lines.append(f"No verdict on {stream}: {error}")
            continue
        results = {name: verdicts.unlabelled(v) for name, v in {TRAINED: vectors, **others}.items()}
        lines.append(verdicts.verdict(results))
    return "\n".join(lines)


def counter(log: Log | None, doing: str) -> Callable[[int, int], None]:
    """Says how far something is on the log's moving line."""

    def told(done: int, total: int) -> None:
        if log is not None:
            log.update(f"{doing}: {done} of {total}", final=done == total)

    return told


def _name(encoder: Encoder) -> str:
    """The name that `--encoder` knows it by."""
    return encoder_catalog.name_of(type(encoder))


def _labelled(
    named: Mapping[str, Vectors], labels: str | Path | None, column: str
) -> dict[str, Vectors]:
    """Recording by recording, with the labels of a file or of the catalogue."""
    labelled = {}
    for name, vectors in named.items():
        if labels is not None:
            vectors = replace(vectors, labels=read_labels(labels, vectors, column).values)
        elif not known(vectors.labels).any():
            raise DataError(
                "The recordings carry no labels. Give a CSV of uri,label with --labels."
            )
        labelled[name] = vectors.pooled()
    return labelled


def _probe(named: Mapping[str, Vectors], seeds: tuple[int, ...]) -> Probed:
    results, near, recall = {}, {}, {}
    for name, v in named.items():
        results[name] = probe_vectors(v.matrix, v.labels, v.sides, seeds)
        near[name] = knn_accuracy(v.matrix, v.labels, v.sides)
        recall[name] = retrieval(v.matrix, v.labels, v.sides)
    return Probed(results, near, recall, verdicts.verdict(results))


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
