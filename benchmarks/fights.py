"""Real sound and picture: what 155 short clips of CCTV and street cameras can teach.

    MAINSPRING_DATA=... python benchmarks/fights.py --out runs/fights --seeds 0 1 2

The clips with sound that is heard, in five folds that no source video is on both sides of, about
31 clips each. For every fold a run of `clip` on the others is asked which sound belongs to which
of the unseen clips, and a run of `av_sync` whether a sound is in step. Beside both stand the same
networks with random weights. Answers of the folds are counted together, with intervals from
resampling the source videos. Runs that are finished are kept in OUT and not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mainspring import api
from mainspring.api.modalities import Across
from mainspring.clips import ClipSpec
from mainspring.evaluate.intervals import Tally, interval
from mainspring.pretexts.silence import heard
from mainspring.recordings.reader import Reader

FOLDS = 5
VIDEO = {"rate": 20.0, "stride": 2, "size": 64, "crop": 56}
MATCH: dict[str, Any] = {
    "pretext": "clip",
    "batch": 32,
    "clip": {"video": {"length": 14, **VIDEO}, "audio": {"length": 22400}},
    "architecture": {"video": {"temporal_stride": 1}},
    "optimiser": {"lr": 1e-3},
}
"""1.4 s of a clip of two."""
SYNC: dict[str, Any] = {
    "pretext": "av_sync",
    "batch": 16,
    "clip": {"video": {"length": 10, **VIDEO}, "audio": {"length": 16000}},
    "question": {"steps": 10, "far": 1.0},
}
"""One second, which leaves one to be out of step by."""
RANDOM = {"optimiser": {"lr": 1e-12}, "steps": 1}
OFFSETS = (0.25, 0.5, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--parts", nargs="+", default=["match", "sync"])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = os.environ.get("MAINSPRING_DATA")
    if data is None or not (Path(data) / "fights").exists():
        raise SystemExit("Set MAINSPRING_DATA to a folder that holds fights/.")
    given.out.mkdir(parents=True, exist_ok=True)
    folds = fold_files(Path(data) / "fights", given.out)
    asked = {"match": (match, MATCH), "sync": (sync, SYNC)}
    for part in given.parts:
        ask, settings = asked[part]
        for name, more in (("random", RANDOM), ("trained", {"steps": given.steps})):
            for seed in given.seeds:
                found = [
                    ask(
                        learnt(
                            given.out / f"{part}-{name}-{seed}-{k}", *fold, seed, settings | more
                        )
                    )
                    for k, fold in enumerate(folds)
                ]
                print(f"{part}, {name}, seed {seed}: {told(found)}", flush=True)


def fold_files(place: Path, out: Path) -> list[tuple[Path, Path]]:
    """Manifests to learn from and to ask about, a pair a fold."""
    sources: dict[str, str] = {}
    for line in (place / "videos.txt").read_text().splitlines():
        if line.startswith("http"):
            source = line.strip()
        elif found := re.match(r"\s*((?:no)?fi\d+)\s*:", line):
            sources[found[1]] = source
    files = out / "heard.json"
    if not files.exists():
        files.write_text(json.dumps(audible(place)))
    rows = [(file, sources.get(Path(file).stem, file)) for file in json.loads(files.read_text())]
    sizes = Counter(group for _, group in rows)
    load, side = [0] * FOLDS, {}
    for group, count in sizes.most_common():
        side[group] = int(np.argmin(load))
        load[side[group]] += count
    print(f"{len(rows)} clips of {len(sizes)} sources, unseen in each fold: {load}")
    pairs = []
    for k in range(FOLDS):
        pair = out / f"train-{k}.csv", out / f"test-{k}.csv"
        for path, unseen in zip(pair, (False, True), strict=True):
            with path.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["uri", "group"])
                table.writerows(row for row in rows if (side[row[1]] == k) == unseen)
        pairs.append(pair)
    return pairs


def audible(place: Path) -> list[str]:
    """Clips in whose sound something is heard."""
    found = api.catalogue(str(place)).usable()
    reader = Reader({"audio": ClipSpec(length=16000, rate=16000.0)})
    kept = []
    for recording in found:
        if "audio" in recording.streams:
            length = reader.timeline(recording)["audio"].length
            sound = reader.read(recording, {"audio": np.arange(length)[None]})["audio"]
            there = torch.ones(sound.shape, dtype=torch.bool)
            if length and bool(heard(torch.from_numpy(sound), there)):
                kept.append(os.path.abspath(recording.uri))
    return sorted(kept)


def learnt(run: Path, train: Path, test: Path, seed: int, settings: dict[str, Any]) -> Any:
    """A finished run, and what to ask it about."""
    if not (run / "summary.json").exists():
        api.pretrain(
            str(train), out=run, seed=seed, verdict=False, report=False,
            stream=["video", "audio"], loading={"holdout": 0.0}, **settings,
        )  # fmt: skip
    return run, test


def match(asked: tuple[Path, Path]) -> dict[str, Tally]:
    """Which sound belongs to these pictures, and which pictures to this sound."""
    run, test = asked
    found: Across = api.across(run, str(test), moments_each=3, ks=(1, 5))
    ways = {"picture to sound": found.ways.there, "sound to picture": found.ways.back}
    return {
        f"{name} R@{k}": tally
        for name, way in ways.items()
        for k, tally in way.recall.tallies.items()
    }


def sync(asked: tuple[Path, Path]) -> dict[str, Tally]:
    """How often the sound in step is told from one that is not, by offset."""
    run, test = asked
    found = api.sync(run, str(test), offsets=OFFSETS)
    return {f"{size:g} s": tally for size, tally in found.accuracy.accuracy.items()}


def told(folds: Sequence[dict[str, Tally]]) -> str:
    """The folds together, with 95 % intervals."""
    parts, rng = [], np.random.default_rng(0)
    for name in folds[0]:
        some = [fold[name] for fold in folds if name in fold]
        whole = Tally(
            np.concatenate([tally.groups for tally in some]),
            np.concatenate([tally.correct for tally in some]),
            np.concatenate([tally.total for tally in some]),
        )
        low, high = interval(whole, rng)
        parts.append(f"{name} {100 * whole.mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
