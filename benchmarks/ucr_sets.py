"""The UCR sets of the benchmarks, read as TS2Vec's protocol reads them, and what was published."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

PUBLISHED = {  # TS2Vec (AAAI 2022, appendix) and DTW as there; None where it was not at hand
    "SmoothSubspace": (0.980, 0.827),
    "ItalyPowerDemand": (0.925, 0.950),
    "Chinatown": (0.965, 0.957),
    "SyntheticControl": (0.997, 0.993),
    "SonyAIBORobotSurface2": (0.871, 0.831),
    "SonyAIBORobotSurface1": (0.903, 0.725),
    "TwoLeadECG": (0.986, 0.905),
    "MoteStrain": (0.861, 0.835),
    "ECG200": (0.920, 0.770),
    "CBF": (1.000, 0.997),
    "BME": (0.993, 0.900),
    "ECGFiveDays": (1.000, 0.768),
    "GunPoint": (0.980, 0.907),
    "UMD": (1.000, 0.993),
    "ArrowHead": (0.857, 0.703),
    "Trace": (1.000, 1.000),
    "ToeSegmentation1": (0.917, 0.772),
    "Coffee": (1.000, 1.000),
    "FaceFour": (0.932, 0.830),
    "Plane": (None, None),
}
"""Accuracy by set: TS2Vec, DTW."""
RAW_UNITS = ("BME", "Chinatown", "SmoothSubspace", "UMD")
"""Sets whose series the archive did not normalise; the protocol takes out one mean and deviation of
the whole training set."""


class Split(NamedTuple):
    """One set: series (n, time, 1), float32, and their labels (str)."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def folder() -> Path:
    """Where the sets are: `ucr/` in the folder that MAINSPRING_DATA names."""
    root = os.environ.get("MAINSPRING_DATA")
    if not root or not (Path(root) / "ucr").is_dir():
        sys.exit("Skipped: set MAINSPRING_DATA to a folder that holds ucr/NAME/NAME_TRAIN.tsv.")
    return Path(root) / "ucr"


def load(name: str) -> Split:
    """Reads one set."""
    parts = []
    for side in ("TRAIN", "TEST"):
        table = np.loadtxt(folder() / name / f"{name}_{side}.tsv")
        parts += [table[:, 1:, None].astype(np.float32), table[:, 0].astype(int).astype(str)]
    split = Split(*parts)
    if name in RAW_UNITS:
        mean, spread = np.nanmean(split.train), np.nanstd(split.train)
        split = split._replace(
            train=(split.train - mean) / spread, test=(split.test - mean) / spread
        )
    return split
