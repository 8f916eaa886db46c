"""GDT's Tables 1 and 2 (Patrick et al., ICCV 2021) on the generated world: what each row is worth.

    python benchmarks/crossmodal.py --out runs/gdt --rows a d e h k l m --seeds 0 1 2 --workers 2
    python benchmarks/crossmodal.py --out runs/words --rows vt-a vt-b vt-c --workers 2

Rows whose name begins with vt- are those of Table 2, video and text. Every row sees the same number
of clips with the same encoders; rows with more views of a recording have fewer recordings a step.
All is measured on cameras that training never saw: sound (or text) to picture among the unseen
recordings, which second of a recording a sound comes from, how far features of one recording lie
apart (Figure 3), a linear probe and retrieval of the way things move (and, as a control, of how
they look), and fine-tuning. Finished rows are kept in OUT and not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROWS = ("random", "a", "d", "e", "h", "j", "k", "l", "m")
VIEWS = {
    "a": 2, "d": 8, "e": 1, "f": 2, "g": 2, "h": 4, "i": 2, "j": 2, "k": 4, "l": 4, "m": 4,
    "vt-a": 2, "vt-b": 1, "vt-c": 2, "vt-d": 2, "vt-e": 4, "vt-f": 4, "vt-g": 4,
}  # fmt: skip
CLIPS = 64
"""Of each stream in a step."""
UNSEEN = 3
"""Every so many cameras one is held back: 204 of 600 recordings."""
SETTINGS: dict[str, Any] = {
    "clip": {
        "video": {"length": 16, "rate": 20.0, "stride": 2, "size": 44, "crop": 40},
        "audio": {"length": 25600},
    },
    "architecture": {"video": {"temporal_stride": 1}},
    "optimiser": {"lr": 2e-3, "warmup": 0.1},
    "loading": {"holdout": 0.0},
}
QUESTION = {
    "jitter": 0.0, "dropout": 0.0, "mask_frames": 0, "mask_bands": 0,
    "hidden": 256, "width": 128,
}  # fmt: skip
"""A few hundred steps on a small clean world leave nothing for jitter, dropout and masks to save
from: with them the first 300 steps stay near chance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", type=Path, help="a world made before; made in OUT otherwise")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=["random", *VIEWS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tuning", type=int, default=120, help="steps of fine-tuning; 0 for none")
    parser.add_argument(
        "--heads", type=int, default=8, help="parts of a clip that heads see; 1: mean"
    )
    parser.add_argument("--workers", type=int, default=1, help="rows at a time, one thread each")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    given.out.mkdir(parents=True, exist_ok=True)
    world = given.world or _make(given.out / "world")
    _split(world)
    jobs = [
        (given.out, world, row, seed, given.steps, given.tuning, given.heads)
        for seed in given.seeds
        for row in given.rows
        if not _file(given.out, row, seed).exists()
    ]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(given.workers, maxtasksperchild=1) as pool:
        for said in pool.imap_unordered(_one, jobs, chunksize=1):
            print(said, flush=True)
    _print(given.out)


def _make(place: Path) -> Path:
    from mainspring.recordings.demo import make_world

    return make_world(place, 600, 0)


def _split(world: Path) -> None:
    """Manifests of the cameras that training sees, and of those it does not."""
    with (world / "streams.csv").open() as file:
        rows = list(csv.DictReader(file))
    cameras = sorted({row["group"] for row in rows})
    held = set(cameras[::UNSEEN])
    for name, unseen in (("train", False), ("test", True)):
        with (world / f"{name}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(row for row in rows if (row["group"] in held) == unseen)


def _file(out: Path, row: str, seed: int) -> Path:
    return out / f"{row}-{seed}.json"


def _one(job: tuple[Path, Path, str, int, int, int, int]) -> str:
    """Trains a row and measures it."""
    out, world, row, seed, steps, tuning, heads = job
    import torch

    torch.set_num_threads(1)
    from mainspring import api
    from mainspring.errors import RunError
    from mainspring.evaluate.finetune import finetune

    begun = time.perf_counter()
    run = out / f"run-{row}-{seed}"
    asked = dict(SETTINGS)
    if row.startswith("vt-"):
        asked["clip"] = {"video": SETTINGS["clip"]["video"]}
        asked["architecture"] = SETTINGS["architecture"] | {"text": {"context": 3}}
    if row == "random":
        asked |= {"optimiser": {"lr": 1e-12}}
    api.pretrain(
        str(world / "train.csv"), "gdt", out=run, verdict=False, report=False, seed=seed,
        preset="e" if row == "random" else row, question=QUESTION | {"steps": heads},
        batch=CLIPS // VIEWS.get(row, 1), steps=1 if row == "random" else steps, **asked,
    )  # fmt: skip
    trained = time.perf_counter() - begun
    found: dict[str, Any] = {"row": row, "seed": seed, "steps": steps, "seconds": trained}
    try:
        found["across"] = api.across(run, str(world / "test.csv"), moments_each=5).to_dict()
    except RunError:
        found["across"] = None  # of one stream
    saved = api.load(run, "video")
    every = api.catalogue(str(world / "streams.csv"))
    vectors = api.embed(run, str(world / "streams.csv"), stream="video", hop=1.2)
    found["label"] = _worth(vectors, every, "label", seed)
    looks = {item.uri: look for item, look in zip(every, _column(world, "appearance"), strict=True)}
    found["appearance"] = _worth(vectors, every, "appearance", seed, looks)
    if tuning:
        train, test = (list(api.catalogue(str(world / f"{n}.csv"))) for n in ("train", "test"))
        reader = api.reader_for(saved, every)
        found["tuned"] = finetune(saved.encoder, saved.clip, train, test, reader, tuning, seed=seed)
    _file(out, row, seed).write_text(json.dumps(found, default=float))
    return f"{row} seed {seed}: {time.perf_counter() - begun:.0f} s"


def _column(world: Path, name: str) -> list[str]:
    with (world / "streams.csv").open() as file:
        return [row[name] for row in csv.DictReader(file)]


def _worth(
    vectors: Any, every: Any, column: str, seed: int, named: dict[str, str] | None = None
) -> dict[str, float]:
    """Linear probe and R@1 of the video encoder, over grouped folds of all recordings."""
    import numpy as np

    from mainspring.evaluate.neighbours import retrieval
    from mainspring.evaluate.probe import probe

    if named is not None:
        labels = np.array([named[uri] for uri in vectors.uris], object)
        vectors = replace(vectors, labels=labels)
    pooled = vectors.pooled()
    probed = probe(pooled.matrix, pooled.labels, pooled.sides, seeds=(seed,), per_class=())
    recall = retrieval(pooled.matrix, pooled.labels, pooled.sides, seed=seed)
    return {"probe": probed.accuracy, "r@1": recall.values[1], "chance": recall.chance[1]}


def _print(out: Path) -> None:
    """The table of what was found so far: means over the seeds and their standard deviations."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*-[0-9]*.json"))]
    columns = {
        "sound or text to picture R@1": lambda one: _across(one, "retrieval", "audio", "text"),
        "picture to it R@1": lambda one: _across(one, "retrieval", "video"),
        "which second": lambda one: _across(one, "seconds", "audio"),
        "spread": lambda one: one["across"] and one["across"]["spread"]["video"]["within"]["value"],
        "motion, fine-tuned": lambda one: one.get("tuned"),
        "motion, probe": lambda one: one["label"]["probe"],
        "motion, R@1": lambda one: one["label"]["r@1"],
        "looks, probe": lambda one: one["appearance"]["probe"],
    }
    print("| row | seeds | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for row in ROWS + tuple(sorted(set(VIEWS) - set(ROWS))):
        some = [one for one in found if one["row"] == row]
        if some:
            cells = [_cell([column(one) for one in some]) for column in columns.values()]
            print(f"| {row} | {len(some)} | " + " | ".join(cells) + " |")


def _across(one: dict[str, Any], what: str, *asks: str) -> float | None:
    """R@1 where one of some streams asks, if the row has two streams."""
    if one["across"] is None:
        return None
    for name, way in one["across"][what].items():
        if name.split(" to ")[0] in asks:
            recall = way["recall"]
            return recall["1"]["value"] if "1" in recall else recall["value"]
    return None


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.3f}{spread}"


if __name__ == "__main__":
    main()
