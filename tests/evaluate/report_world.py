"""Results to draw and report, with names that are hard to write."""

from __future__ import annotations

import numpy as np

from mainspring.evaluate.intervals import Tally
from mainspring.evaluate.probe import CurvePoint, ProbeResult
from mainspring.evaluate.vectors import Vectors
from mainspring.recordings.recording import Recording

EVIL = "<script>alert('x')</script> & \"$HOME\" _x 視.mp4"


def result(accuracy: float = 0.5, curve: tuple[float, ...] = (0.2, 0.4), right: float = 6.0):
    names = ["_fall", "$roll$", EVIL]
    counts = np.array([[8.0, 1.0, 1.0], [5.0, 5.0, 0.0], [0.0, 2.0, 8.0]])
    groups = np.array([f"g{i}" for i in range(10)])
    points = [CurvePoint(k, at, 0.05, 3) for k, at in zip((1, 5), curve, strict=True)]
    return ProbeResult(
        accuracy=accuracy, low=accuracy - 0.1, high=accuracy + 0.1, balanced_accuracy=accuracy,
        macro_f1=accuracy, chance_majority=0.34, chance_uniform=1 / 3, classes=names,
        confusion=counts, curve=[*points, CurvePoint(None, accuracy, 0.02, 3)],
        tally=Tally(groups, np.full(10, right), np.full(10, 10.0)), rows=100, unlabelled=0,
        folds=5, seeds=[0], strengths=[1.0], notes=["class 'rare' left out"],
    )  # fmt: skip


def steps(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {"step": i + 1, "samples": 8 * (i + 1), "loss": float(rng.normal() + 5), "lr": 0.1,
         "answers": {"speed": [float(rng.uniform(0.5, 0.7)), 0.25], "reverse": [0.5, 0.5]},
         "task loss": float(rng.normal()), "rank": 3.0, "spread": 0.7, "speed": 1.0, "waiting": 0.0}
        for i in range(count)
    ]  # fmt: skip


def world(recordings: int = 24, windows: int = 2, dim: int = 4) -> Vectors:
    """Windows of series; a label is a direction, groups are pairs of recordings."""
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(recordings), windows)
    kinds = rows % 3
    matrix = 3 * np.eye(dim)[kinds] + rng.normal(scale=0.5, size=(len(rows), dim))
    starts = rows + np.tile(np.arange(windows) * 2.0, recordings)
    return Vectors(
        matrix=matrix.astype(np.float32),
        uris=np.array([f"data/{row}.csv" for row in rows], object),
        starts=starts,
        ends=starts + 2.0,
        rows=rows,
        groups=np.array([f"g{row // 2}" for row in rows], object),
        labels=np.array([("_a", "$b$", EVIL)[kind] for kind in kinds], object),
        stream="series",
        stamps={"encoder": {"name": EVIL}},
        problems={EVIL: "cannot be opened"},
    )


def recordings(count: int = 24) -> list[Recording]:
    return [Recording(f"data/{row}.csv", start=float(row)) for row in range(count)]
