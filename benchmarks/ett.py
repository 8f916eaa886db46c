"""Forecasting ETTh1 and ETTh2 from frozen vectors by TS2Vec's protocol, beside the published tables
and what needs no learning.

    MAINSPRING_DATA=... python benchmarks/ett.py --sets ETTh1 ETTh2 --out /tmp/ett.jsonl

Chronological 12/4/4 months, means and deviations of train alone, seven standardised calendar
features before the values, vectors from the last 201 steps (sliding, causal), ridge by horizon.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from mainspring.embedder import Embedder
from mainspring.evaluate.calendar import calendar_features
from mainspring.evaluate.forecast_baselines import forecast_baselines
from mainspring.evaluate.forecasting import ETT_HOURLY, Splits, chronological, forecast

HORIZONS = (24, 48, 168, 336, 720)
PUBLISHED = {  # MSE of TS2Vec (AAAI 2022), Tables 7 and 8
    ("ETTh1", "univariate"): (0.039, 0.062, 0.134, 0.154, 0.163),
    ("ETTh2", "univariate"): (0.090, 0.124, 0.208, 0.213, 0.214),
    ("ETTh1", "multivariate"): (0.599, 0.629, 0.755, 0.907, 1.048),
    ("ETTh2", "multivariate"): (0.398, 0.580, 1.901, 2.304, 2.650),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["ETTh1", "ETTh2"])
    parser.add_argument("--kinds", nargs="+", default=["univariate", "multivariate"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    root = os.environ.get("MAINSPRING_DATA")
    if not root or not (Path(root) / "ett").is_dir():
        sys.exit("Skipped: set MAINSPRING_DATA to a folder that holds ett/ETTh1.csv.")
    for name in given.sets:
        times, values = read(Path(root) / "ett" / f"{name}.csv")
        splits = chronological(len(values), ETT_HOURLY)
        for kind in given.kinds:
            data = values[:, -1:] if kind == "univariate" else values
            rows = {"TS2Vec published": PUBLISHED[name, kind]}
            rows |= ours(times, data, splits, given.seed)
            found = forecast_baselines(data, splits, HORIZONS, period=24)
            rows |= {method: tuple(f[h].mse for h in HORIZONS) for method, f in found.items()}
            print(f"\n| {name} {kind}, MSE | " + " | ".join(map(str, HORIZONS)) + " |")
            print("|---" * (len(HORIZONS) + 1) + "|")
            for method, errors in rows.items():
                print(f"| {method} | " + " | ".join(f"{e:.3f}" for e in errors) + " |", flush=True)
            if given.out:
                with given.out.open("a") as sheet:
                    sheet.write(json.dumps({"set": name, "kind": kind, "mse": rows}) + "\n")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Moments and values of one file."""
    with path.open() as file:
        rows = list(csv.reader(file))[1:]
    times = np.array([row[0] for row in rows], "datetime64[s]")
    return times, np.array([[float(v) for v in row[1:]] for row in rows])


def ours(
    times: np.ndarray, data: np.ndarray, splits: Splits, seed: int
) -> dict[str, tuple[float, ...]]:
    """TS2Vec as built here."""
    train = splits.train
    scaled = (data - data[train].mean(0)) / data[train].std(0)
    whole = np.concatenate([calendar_features(times, train), scaled], 1).astype(np.float32)
    embedder = Embedder("ts2vec", seed=seed, pool="steps", context=200)
    begun = time.perf_counter()
    embedder.fit([whole[train]])
    fitted = time.perf_counter()
    vectors = embedder.transform([whole[: splits.test.stop]])[0]
    encoded = time.perf_counter()
    found = forecast(vectors, data[: splits.test.stop], splits, HORIZONS)
    spent = time.perf_counter() - encoded
    print(
        f"fit {fitted - begun:.1f} s ({embedder.n_steps_} steps), encode {len(vectors)} steps "
        f"{encoded - fitted:.1f} s, ridge {spent:.1f} s",
        flush=True,
    )
    errors = {"TS2Vec ours": tuple(found[h].mse for h in HORIZONS)}
    return errors | {"MAE of it": tuple(found[h].mae for h in HORIZONS)}


if __name__ == "__main__":
    main()
