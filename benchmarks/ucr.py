"""What series pretexts are worth on UCR sets: accuracy of an SVM on frozen vectors, by TS2Vec's
protocol, beside random weights, DTW, MiniRocket and the published numbers.

    MAINSPRING_DATA=... python benchmarks/ucr.py --out /tmp/ucr.jsonl              # ts2vec, 3 seeds
    MAINSPRING_DATA=... python benchmarks/ucr.py --out /tmp/ucr.jsonl --pretexts impute cpc vae
    MAINSPRING_DATA=... python benchmarks/ucr.py --out /tmp/gaps.jsonl --missing 0 0.2 0.5 0.8 \
        --sets GunPoint ECG200 CBF

Each line of the file is one training; the same command again goes on where it was stopped. Every
process computes with one thread, as many processes as cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ucr_sets import PUBLISHED, Split, load

RANDOM = {"steps": 1, "optimiser": {"lr": 1e-12}}
"""The same encoder before training."""


class Job(NamedTuple):
    """One training and its evaluation."""

    pretext: str
    name: str
    seed: int
    steps: int
    missing: float
    random: bool
    filled: bool
    precision: str
    batch: int = 0
    lr: float = 0.0

    def key(self) -> str:
        return json.dumps(self)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pretexts", nargs="+", default=["ts2vec"])
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="0: what Embedder chooses")
    parser.add_argument("--missing", type=float, nargs="+", default=[0.0])
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--precision", default="")
    parser.add_argument("--batch", type=int, default=0, help="0: the pretext's own")
    parser.add_argument("--lr", type=float, default=0.0, help="0: the pretext's own")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    given = parser.parse_args()
    load(given.sets[0])
    jobs = []
    for seed, pretext, name, gone in itertools.product(
        range(given.seeds), given.pretexts, given.sets, given.missing
    ):
        rest = (pretext, name, seed, given.steps, gone)
        ways = [(False, False), (not gone, bool(gone))]  # and random weights, or gaps filled
        jobs += [Job(*rest, *way, given.precision, given.batch, given.lr) for way in ways]
    if not given.no_baselines:
        sides = itertools.product(BASELINES, given.sets)
        jobs += [Job(b, name, 0, 0, 0.0, False, False, "") for b, name in sides]
    done = {}
    if given.out.exists():
        done = {row["key"]: row for row in map(json.loads, given.out.read_text().splitlines())}
    waiting = [job for job in jobs if job.key() not in done]
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with context.Pool(given.workers, maxtasksperchild=20) as pool, given.out.open("a") as sheet:
        for row in pool.imap_unordered(run, waiting):
            done[row["key"]] = row
            sheet.write(json.dumps(row) + "\n")
            sheet.flush()
    table([done[job.key()] | {"job": job} for job in jobs], given)


def run(job: Job) -> dict[str, Any]:
    """Trains and evaluates."""
    import torch

    torch.set_num_threads(1)
    split, begun = load(job.name), time.perf_counter()
    scores = BASELINES[job.pretext](split) if job.pretext in BASELINES else learnt(job, split)
    return {"key": job.key(), **scores, "seconds": round(time.perf_counter() - begun, 2)}


def learnt(job: Job, split: Split) -> dict[str, float]:
    from mainspring.embedder import Embedder
    from mainspring.evaluate.classify import logistic, nearest_neighbour, svm

    rng = np.random.default_rng(job.seed)
    train, test = (
        np.where(rng.random(part.shape) < job.missing, np.nan, part).astype(np.float32)
        for part in (split.train, split.test)
    )
    if job.filled:
        train, test = straight(train), straight(test)
    settings = suited(job.pretext, train.shape[1]) | (RANDOM if job.random else {})
    steps = settings.pop("steps", job.steps or None)
    if job.lr and not job.random:
        settings["optimiser"] = settings.get("optimiser", {}) | {"lr": job.lr}
    if job.precision:
        settings["precision"] = job.precision
    embedder = Embedder(
        job.pretext, steps=steps, batch=job.batch or None, seed=job.seed, settings=settings
    )
    begun = time.perf_counter()
    embedder.fit(train)
    fitted = time.perf_counter() - begun
    vectors = embedder.transform(train), embedder.transform(test)
    truth = split.train_labels, split.test_labels
    scores = {
        kind.__name__: float(kind(vectors[0], truth[0], vectors[1], truth[1]).accuracy)
        for kind in (svm, logistic, nearest_neighbour)
    }
    return scores | {"fit": round(fitted, 2)}


def suited(pretext: str, length: int) -> dict[str, Any]:
    """What a pretext made for long recordings needs on series of 15 to 350 steps."""
    if pretext == "forecast":
        return {"clip": {"series": {"length": length}}}
    if pretext == "masked_patches":  # and a rate for hundreds of steps, not for ten passes
        patch = min(12, max(2, length // 8))
        return {"architecture": {"series": {"patch": patch}}, "optimiser": {"lr": 1e-3}}
    return {}


def straight(part: np.ndarray) -> np.ndarray:
    """Missing values by straight lines between the known ones, level before and after them."""
    out, place = part.copy(), np.arange(part.shape[1])
    for series in out:
        for channel in series.T:
            known = ~np.isnan(channel)
            if known.any():
                channel[:] = np.interp(place, place[known], channel[known])
    return np.nan_to_num(out)


def raw(split: Split) -> dict[str, float]:
    from mainspring.evaluate.classify import nearest_neighbour, svm

    flat = [np.nan_to_num(part[:, :, 0]) for part in (split.train, split.test)]
    truth = split.train_labels, split.test_labels
    return {
        kind.__name__: float(kind(flat[0], truth[0], flat[1], truth[1]).accuracy)
        for kind in (svm, nearest_neighbour)
    }


def dtw(split: Split) -> dict[str, float]:
    from mainspring.evaluate.dtw import dtw_neighbour

    found = dtw_neighbour(split.train, split.train_labels, split.test, split.test_labels)
    return {"svm": float(found.accuracy)}


def rocket(split: Split) -> dict[str, float]:
    from mainspring.evaluate.rocket import rocket

    found = rocket(split.train, split.train_labels, split.test, split.test_labels)
    return {"svm": float(found.accuracy)}


BASELINES = {"raw": raw, "DTW": dtw, "MiniRocket": rocket}


def table(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """Prints sets by methods: mean over seeds, and in the last lines the mean over sets with the
    spread of that mean over seeds."""
    columns: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        job = row["job"]
        name = job.pretext + (" random" if job.random else "")
        if job.missing:
            name += f" {job.missing:.0%}" + (" filled" if job.filled else "")
        columns.setdefault(name, {})[job.name, job.seed] = row["svm"]
    print("\n| set | " + " | ".join(columns) + " | TS2Vec published | DTW published |")
    print("|---" * (len(columns) + 3) + "|")
    for name in given.sets:
        cells = [
            f"{statistics.mean(v for (n, _), v in column.items() if n == name):.3f}"
            for column in columns.values()
        ]
        cells += ["-" if value is None else f"{value:.3f}" for value in PUBLISHED[name]]
        print(f"| {name} | " + " | ".join(cells) + " |")
    cells = []
    for column in columns.values():
        seeds = sorted({seed for _, seed in column})
        means = [statistics.mean(v for (_, s), v in column.items() if s == seed) for seed in seeds]
        spread = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
        cells.append(f"{statistics.mean(means):.4f}{spread}")
    print("| mean | " + " | ".join(cells) + " | | |")


if __name__ == "__main__":
    main()
