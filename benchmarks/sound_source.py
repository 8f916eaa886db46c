"""Where does the sound come from? `sound_source` on the generated world, by the pointing game.

    python benchmarks/sound_source.py --out runs/sounding --seeds 3

Trains on recordings of four fifths of the cameras and asks about the others: at impacts that stand
alone, at all impacts, and while nothing is heard but one ball's hum. A map is right if its highest
place lies on the ball that sounds. Beside it stand maps that do not hear: the middle of the
picture, where most moves (which is always on a ball), random weights, and the trained map for the
sound of another film; the last row is motion weighed by the trained map. "which" is the share of
points on the right ball among those on exactly one of the two: a half for whoever only looks.
Writes OUT/overlays-SEED.png, maps to look at.

About 7 minutes a seed on one core of its own, and one for the world. Runs resume.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mainspring import api
from mainspring.evaluate import balls, sounding
from mainspring.evaluate.balls import Moments
from mainspring.evaluate.drawing import FAINT, GOOD, INK, canvas, png
from mainspring.evaluate.localise import Maps
from mainspring.evaluate.sounding import Scene
from mainspring.pretexts.crossmodal.sound_source import SoundSource
from mainspring.recordings.demo import make_world
from mainspring.recordings.demo.picture import SIZE
from mainspring.training.loop import open_fabric, train
from mainspring.training.plan import make_plan
from mainspring.training.progress import Log
from mainspring.training.run import Run, plain
from mainspring.training.settings import settle

SETTINGS: dict[str, Any] = {
    "pretext": "sound_source",
    "stream": ["video", "audio"],
    "batch": 16,
    "clip": {
        "video": {"length": 5, "rate": 20.0, "stride": 1, "size": 96, "crop": 0},
        "audio": {"length": 4000},
    },
    "architecture": {
        "video": {"temporal_stride": 1, "moving": True},
        "audio": {"normalise": "fixed"},
    },
    "optimiser": {"lr": 3e-3},
    "loading": {"holdout": 0.2},
}
"""A quarter of a second, because there are three or four impacts a second; every frame keeps a map;
pictures at full size, of which 6 x 6 tokens remain; loudness is kept, because it says how hard."""
MOST = 400
"""Moments of a kind that are asked about, drawn by lot."""
SHOWN = 6


def one_seed(place: Path, world: Path, seed: int, steps: int, log: Log) -> dict[str, Any]:
    """Trains and asks; for each kind of moment the scores of each map."""
    settings = settle(SETTINGS | {"data": str(world / "labels.csv"), "seed": seed, "steps": steps})
    run, plan = Run(place / f"run-{seed}"), make_plan(settings, api.catalogue(settings.data))
    assert isinstance(plan.pretext, SoundSource)
    encoders, pretext = copy.deepcopy(plan.encoders), copy.deepcopy(plan.pretext)
    run.begin(plain(settings))
    train(plan, run, steps, log, open_fabric(settings))
    films = [plan.held[row].uri for row in range(len(plan.held))]
    kinds = {
        "impacts alone": balls.impacts(world, films),
        "all impacts": balls.impacts(world, films, alone=False),
        "humming": balls.hums(world, films),
    }
    found, shown = {}, []
    for kind, moments in kinds.items():
        scene = sounding.watch(world, _some(moments, seed), plan.reader, plan.clips)
        others = scene.with_sounds_of_others()
        arms = {
            "the middle": sounding.middle_of_picture(scene),
            "most motion": sounding.motion(scene),
            "random weights": sounding.attention(encoders, pretext, scene),
            "sound of another": sounding.attention(plan.encoders, plan.pretext, others),
            "trained": sounding.attention(plan.encoders, plan.pretext, scene),
        }
        # As in the loss, a place weighs by the exponential of its cosine over the temperature.
        weight = np.exp(arms["trained"] / plan.pretext.config.temperature)
        arms["trained x motion"] = arms["most motion"] * weight
        found[kind] = {arm: sounding.score(maps, scene.moments) for arm, maps in arms.items()}
        shown.append((kind, scene, arms["trained"], arms["sound of another"]))
    (place / f"overlays-{seed}.png").write_bytes(overlays(shown))
    return found


def overlays(shown: list[tuple[str, Scene, Maps, Maps]]) -> bytes:
    """For each kind of moment some pictures with their maps, for their own sound and below it for
    that of another film. A green ring is the ball that sounds, a white one the other, a cross the
    highest place."""
    with canvas(2 * len(shown) * 1.75) as figure:
        grid = figure.subplots(2 * len(shown), SHOWN)
        for row, (kind, scene, *maps) in enumerate(shown):
            chosen = np.linspace(0, len(scene.moments) - 1, SHOWN).astype(int)
            for column, which in enumerate(chosen):
                for below, what in enumerate(maps):
                    axes = grid[2 * row + below, column]
                    picture = scene.pictures[which, scene.pictures.shape[1] // 2]
                    span = (-0.5, SIZE - 0.5, SIZE - 0.5, -0.5)
                    axes.imshow(picture, extent=span)
                    axes.imshow(what[which], cmap="inferno", alpha=0.5, extent=span)
                    for discs, colour in (
                        (scene.moments.other, FAINT),
                        (scene.moments.sounding, GOOD),
                    ):
                        x, y, radius = discs[which]
                        angle = np.linspace(0, 2 * np.pi, 60)
                        axes.plot(x + radius * np.cos(angle), y + radius * np.sin(angle), c=colour)
                    down, right = divmod(int(what[which].argmax()), SIZE)
                    axes.plot(right, down, "x", c=INK, ms=9, mew=2.5)
                    axes.set(xticks=[], yticks=[])
                    if column == 0:
                        axes.set_ylabel(kind if not below else "another's sound")
        return png(figure)


def _some(moments: Moments, seed: int) -> Moments:
    """At most `MOST` of them, in order."""
    order = np.random.default_rng(seed).permutation(len(moments))[:MOST]
    kept = np.sort(order)
    return replace(
        moments,
        films=moments.films[kept],
        seconds=moments.seconds[kept],
        sounding=moments.sounding[kept],
        other=moments.other[kept],
    )


def tell(results: list[dict[str, Any]]) -> None:
    """Prints a table a kind of moment: means over seeds, with their standard deviation."""

    def cell(values: list[float], unit: float = 100) -> str:
        spread = f" ± {np.std(values, ddof=1) * unit:.1f}" if len(values) > 1 else ""
        return f"{np.mean(values) * unit:.1f}{spread}"

    for kind in results[0]:
        scores = [result[kind] for result in results]
        some = [score["trained"] for score in scores]
        print(
            f"\n{kind}: {np.mean([s.moments for s in some]):.0f} moments a seed; chance is "
            f"{cell([s.ball.pointing_chance for s in some])} % to point, "
            f"{cell([s.ball.area_chance for s in some])} % IoU"
        )
        print("| map | pointing, % | times chance | on a ball, % | which, % | IoU, % |")
        print("|---|---|---|---|---|---|")
        for arm in scores[0]:
            mine = [score[arm] for score in scores]
            found = [s.ball for s in mine]
            print(
                f"| {arm} | {cell([s.pointing.mean for s in found])} "
                f"| {cell([s.pointing.mean / s.pointing_chance for s in found], 1)} "
                f"| {cell([s.either for s in mine])} | {cell([s.which for s in mine])} "
                f"| {cell([s.area.mean for s in found])} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/sounding"))
    parser.add_argument("--world", type=Path, help="a world made before; made in OUT otherwise")
    parser.add_argument("--recordings", type=int, default=300, help="of a world made here")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="first seed, to share the work")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    world = options.world or make_world(options.out / "world", options.recordings)
    seeds = range(options.first, options.first + options.seeds)
    log = Log()
    tell([one_seed(options.out, world, seed, options.steps, log) for seed in seeds])


if __name__ == "__main__":
    main()
