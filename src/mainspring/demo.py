"""The demonstration: a world of videos with sound, made on the spot, and the whole path on it.

Three encoders are trained on the same recordings without labels. What they are asked differs: which
clips belong together (contrast only), what was done to the clip in time (task only), or both. Then
each is probed for two labels it never saw: how things move, and how they look. Random weights and
raw features stand beside them.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainspring import api
from mainspring.evaluate import report as reporting
from mainspring.evaluate.baselines import baselines
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.neighbours import retrieval
from mainspring.evaluate.probe import ProbeResult
from mainspring.evaluate.probe import probe as probe_vectors
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.demo import make_world
from mainspring.training.estimate import estimate
from mainspring.training.plan import make_plan
from mainspring.training.progress import Log
from mainspring.training.run import Run
from mainspring.training.settings import settle

QUESTION: dict[str, Any] = {
    "transformations": ["speed", "shuffle"],
    "speeds": [1, 1.5, 2, 3],
    "odd_clips": 2,
    "pieces": 4,
    "jitter": 0.0,
}
"""Speed with shuffle is the paper's best pair. Four near speeds ask for more than two far ones, and
pairs of frames in another order for more than single ones, which neighbouring frames betray. With
colour jitter nothing is learnt in the minutes there are."""
SETTINGS: dict[str, Any] = {
    "batch": 24,
    "clip": {"video": {"rate": 20.0, "stride": 2}},
    "optimiser": {"lr": 3e-3},
}
"""Small batches take more steps in the same time, which a small world repays."""
ARMS: dict[str, dict[str, Any]] = {
    "contrast only": {"transformations": []},
    "both": {},
    "task only": {"contrast": 0.0},
}
PRETRAINED = "task only"
"""The arm that is asked about time alone; on this world it learns most of motion."""
LABELS = {"motion": "label", "appearance": "appearance"}
"""What is probed, and the column of labels.csv that holds it."""
SHARES = {"contrast only": 0.3, "both": 0.4, "task only": 1.0}
"""Of the steps. Contrast is solved early and more of it changes nothing; `benchmarks/ladder.py` has
all arms at equal steps."""
RESERVE_SECONDS, RESERVE_WORLDS = 80.0, 2.2
"""Kept for embedding, probing and the report: so much at least, and so many times what making the
world took, since on a slow machine all of them are slow."""
OVERHEAD = 1.3
"""A whole run over its bare steps, until one was measured: decoding for the cache, loading,
writing, last questions."""
MOST_STEPS = 2000
HOP_SECONDS = 0.4
"""Windows overlap, so that a recording's mean vector is of about nine."""

Probes = dict[str, dict[str, tuple[ProbeResult, dict[str, float]]]]
"""For each label and arm the linear probe and R@1."""


def run_demo(
    out: str | Path,
    recordings: int = 600,
    minutes: float = 6.0,
    seed: int = 0,
    log: Log | None = None,
) -> dict[str, Any]:
    """Makes the world, trains the three encoders, probes them and writes the report.

    Args:
        out: Folder of the demo; the same call again goes on where it was stopped.
        recordings: Videos to generate.
        minutes: Time for everything.
        seed: Seed of everything.
        log: Where to say how far it is.

    Returns:
        What summary.json holds: seconds of each stage, accuracies, R@1, peak memory.
    """
    told, place = log or Log(), Path(out)
    begun, seconds = time.perf_counter(), dict[str, float]()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.perf_counter()
        told.say(f"== {name}")
        yield
        seconds[name] = round(time.perf_counter() - started, 1)

    with stage("world"):
        world = make_world(place / "world", recordings, seed, progress=api.counter(told, "filming"))
        videos, labels = world / "videos", world / "labels.csv"
    with stage("check"):
        found = api.catalogue(str(videos), told)
    with stage("estimate"):
        bare = {arm: _step_seconds(arm, str(videos), found, seed) for arm in ARMS}
        overhead = OVERHEAD
    reserve = max(RESERVE_SECONDS, RESERVE_WORLDS * seconds["world"])
    vectors: dict[str, Vectors] = {}
    for arm in ARMS:
        with stage(f"pretrain: {arm}"):
            left = minutes * 60 - reserve - (time.perf_counter() - begun)
            steps = _steps(place, arm, left / overhead, bare)
            api.pretrain(
                str(videos), "taco", out=_folder(place, arm), log=told, verdict=False,
                **_settings(arm, seed), steps=steps,
            )  # fmt: skip
        overhead = max(1.0, seconds[f"pretrain: {arm}"] / (steps * bare[arm]))
    with stage("embed"):
        for arm in ARMS:
            vectors[arm] = api.embed(_folder(place, arm), str(videos), hop=HOP_SECONDS, log=told)
        saved = api.load(_folder(place, PRETRAINED))
        reader = api.reader_for(saved, found)
        vectors = (
            baselines(saved.encoder, saved.clip, found.usable(), reader, HOP_SECONDS, seed=seed)
            | vectors
        )
    with stage("probe"):
        probes = {
            name: {arm: _probe(v, labels, column, seed) for arm, v in vectors.items()}
            for name, column in LABELS.items()
        }
    with stage("search"):
        query = f"{videos / '0000.mp4'}@1.0-2.3"
        hits = api.search(_folder(place, PRETRAINED), query, k=5)
    with stage("report"):
        text = _text(probes, place, videos)
        best = vectors[PRETRAINED]
        page = reporting.write_report(
            Run(_folder(place, PRETRAINED)),
            vectors=replace(best, labels=read_labels(labels, best, LABELS["motion"]).values),
            probes={
                name: {
                    "trained" if arm == PRETRAINED else arm: result
                    for arm, (result, _) in arms.items()
                }
                for name, arms in probes.items()
            },
            reader=reader,
            catalogue=found.usable(),
            arms=_bars(probes),
            verdict=text,
        )
    summary = {
        "seconds": seconds | {"all": round(time.perf_counter() - begun, 1)},
        "probe": {
            name: {arm: result.to_dict() for arm, (result, _) in arms.items()}
            for name, arms in probes.items()
        },
        "recall_at_1": {
            name: {arm: recall for arm, (_, recall) in arms.items()}
            for name, arms in probes.items()
        },
        "peak_memory_gb": _peak_memory(),
        "search": {"query": query, "hits": [vars(hit) for hit in hits]},
        "report": str(page),
        "text": text,
    }
    Run(place).write_json("summary.json", summary)
    return summary


def _folder(place: Path, arm: str) -> Path:
    return place / arm.replace(" ", "-")


def _settings(arm: str, seed: int) -> dict[str, Any]:
    """The arm's settings of `pretrain`."""
    return {"question": QUESTION | ARMS[arm], "seed": seed, **SETTINGS}


def _step_seconds(arm: str, videos: str, found: Catalogue, seed: int) -> float:
    """Time of a bare step of an arm."""
    settings = settle({"data": videos, **_settings(arm, seed)})
    return estimate(make_plan(settings, found)).step_seconds


def _steps(place: Path, arm: str, seconds: float, bare: dict[str, float]) -> int:
    """Steps of an arm, so that it and those after it fit the time; as before when resumed."""
    folder = _folder(place, arm)
    if (folder / "config.toml").exists():
        return int(Run(folder).config()["steps"])
    ahead = list(ARMS)[list(ARMS).index(arm) :]
    room = SHARES[arm] * seconds / sum(SHARES[each] * bare[each] for each in ahead)
    return max(20, min(MOST_STEPS, int(room)))


def _probe(
    vectors: Vectors, labels: Path, column: str, seed: int
) -> tuple[ProbeResult, dict[str, float]]:
    """Linear probe and R@1 of one label, a vector a recording."""
    labelled = replace(vectors, labels=read_labels(labels, vectors, column).values).pooled()
    result = probe_vectors(labelled.matrix, labelled.labels, labelled.sides, seeds=(seed,))
    recall = retrieval(labelled.matrix, labelled.labels, labelled.sides)
    return result, {"value": recall.values[1], "chance": recall.chance[1]}


def _bars(probes: Probes) -> dict[str, dict[str, dict[str, float]]]:
    """For the picture: arm by arm the accuracy on each label, with interval and chance."""
    arms: dict[str, dict[str, dict[str, float]]] = {}
    for name, results in probes.items():
        for arm, (result, _) in results.items():
            arms.setdefault(arm, {})[name] = {
                "accuracy": result.accuracy,
                "low": result.low,
                "high": result.high,
                "chance": result.chance_uniform,
            }
    return arms


def _peak_memory() -> float:
    """Largest resident memory of this process or of one that it started, in GB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024 / 1e9, 2)


def _text(probes: Probes, place: Path, videos: Path) -> str:
    """What was found, and what to try next."""
    rows = [f"{'linear probe':16}" + "".join(f"{name:>22}" for name in probes)]
    for arm in next(iter(probes.values())):
        cells = [probes[name][arm][0] for name in probes]
        rows.append(
            f"{arm:16}"
            + "".join(f"{f'{c.accuracy:.1%} ({c.low:.0%}-{c.high:.0%})':>22}" for c in cells)
        )
    chances = [next(iter(arms.values()))[0].chance_uniform for arms in probes.values()]
    rows.append(f"{'chance':16}" + "".join(f"{f'{chance:.1%}':>22}" for chance in chances))
    run = _folder(place, PRETRAINED)
    moving = {arm: found[0].accuracy for arm, found in probes["motion"].items()}
    if moving[PRETRAINED] > max(v for arm, v in moving.items() if arm != PRETRAINED):
        lesson = [
            "The same recordings and encoder; the question differs. Asked which clips belong",
            "together, an encoder learns how things look; asked about time, how they move.",
        ]
    else:
        lesson = ["So little training does not tell the questions apart; give it more --minutes."]
    return "\n".join(
        [
            *rows,
            *lesson,
            "",
            f"Report: {run}/report.html (opens from disk). Videos: {videos}",
            "On files of your own:",
            "  mainspring check DATA",
            "  mainspring pretrain DATA --out runs/mine",
            "  mainspring embed runs/mine DATA",
            "  mainspring search runs/mine clip.mp4@2.0-4.0",
        ]
    )
