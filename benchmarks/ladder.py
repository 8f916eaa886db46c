"""TaCo's ladder (Bai et al. 2020, Tables 1, 2, 5) on the generated world, by linear probe and R@1.

    python benchmarks/ladder.py --out runs/ladder --seeds 3 --steps 400

Every arm sees the same number of recordings with the same encoder; each seed draws its own weights,
order and splits. What is probed is how things move (and, as a control, how they look), one vector a
recording, on groups that the probe never saw. Runs resume; about 2 minutes an arm and seed on two
cores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mainspring import api
from mainspring.demo import QUESTION, SETTINGS
from mainspring.evaluate.baselines import baselines
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.neighbours import retrieval
from mainspring.evaluate.probe import probe
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.demo import make_world
from mainspring.training.progress import Log

ARMS = {
    "task only (two)": {"contrast": 0.0},
    "augmentation only (two)": {"tasks": 0.0},
    "contrast only": {"transformations": []},
    "contrast + speed": {"transformations": ["speed"]},
    "contrast + speed + shuffle": {},
}
COLUMNS = ("label", "appearance")
HOP_SECONDS = 0.4


def worth(vectors: Vectors, labels: Path, seed: int) -> dict[str, tuple[float, float]]:
    found = {}
    for column in COLUMNS:
        named = replace(vectors, labels=read_labels(labels, vectors, column).values).pooled()
        result = probe(named.matrix, named.labels, named.sides, seeds=(seed,), per_class=())
        recall = retrieval(named.matrix, named.labels, named.sides, seed=seed).values[1]
        found[column] = (result.accuracy, recall)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"))
    parser.add_argument("--world", type=Path, help="a world made before; made in OUT otherwise")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed, to share the work")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tell", action="store_true", help="only print what was found so far")
    options = parser.parse_args()
    place: Path = options.out
    place.mkdir(parents=True, exist_ok=True)
    log = Log()
    if not options.tell:
        world = options.world or make_world(place / "world", 600, 0)
        for seed in range(options.first, options.first + options.seeds):
            _one(place, world, seed, options.steps, log)
    _print(place)


def _one(place: Path, world: Path, seed: int, steps: int, log: Log) -> None:
    videos, labels = str(world / "videos"), world / "labels.csv"
    for arm, changes in ARMS.items():
        name = arm.replace(" ", "-")
        file = place / f"{name}-{seed}.json"
        if file.exists():
            continue
        run = place / f"run-{name}-{seed}"
        api.pretrain(
            videos, "taco", out=run, log=log, seed=seed, steps=steps, verdict=False,
            question=QUESTION | changes, **SETTINGS,
        )  # fmt: skip
        vectors = {arm: api.embed(run, videos, hop=HOP_SECONDS)}
        if not (place / f"raw-features-{seed}.json").exists():
            saved, found = api.load(run), api.catalogue(videos)
            reader = api.reader_for(saved, found)
            vectors |= baselines(saved.encoder, saved.clip, found, reader, HOP_SECONDS, seed=seed)
        for key, value in vectors.items():
            (place / f"{key.replace(' ', '-')}-{seed}.json").write_text(
                json.dumps({"arm": key, "seed": seed, "worth": worth(value, labels, seed)})
            )


def _print(place: Path) -> None:
    rows: dict[str, list[dict]] = {}
    for file in sorted(place.glob("*-[0-9]*.json")):
        found = json.loads(file.read_text())
        rows.setdefault(found["arm"], []).append(found["worth"])
    print("| arm | seeds | motion probe | motion R@1 | appearance probe | appearance R@1 |")
    print("|---|---|---|---|---|---|")
    for arm in ["random weights", "raw features", *ARMS]:
        cells = []
        for column in COLUMNS:
            for which in range(2):
                values = np.array([w[column][which] for w in rows.get(arm, [])]) * 100
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                cells.append(f"{values.mean():.1f} ± {spread:.1f}" if len(values) else "")
        print(f"| {arm} | {len(rows.get(arm, []))} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
