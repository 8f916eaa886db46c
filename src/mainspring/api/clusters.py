"""Groups of series by their vectors."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.api.data import sparing
from mainspring.api.series import as_rows, both, read_whole, say, vectors_of, with_series
from mainspring.api.vectors import load
from mainspring.evaluate.clustering import Clustering
from mainspring.evaluate.clustering import cluster as cluster_rows
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.verdict import TRAINED
from mainspring.training.progress import Log
from mainspring.training.run import Run, write


@dataclass(frozen=True)
class Clusters:
    """Clusters of recordings.

    Attributes:
        path: CSV of uri, start and end in seconds (no end: to the last), cluster, and label where
            known.
        clusterings: Of the vectors of "trained" and of "random weights".
        problems: For each recording that could not be used, its name and the reason.
    """

    path: Path
    clusterings: dict[str, Clustering]
    problems: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {name: each.to_dict() for name, each in self.clusterings.items()}
        return {"path": str(self.path), "arms": found, "problems": self.problems}


def cluster(
    run: str | Path,
    data: Any,
    *,
    labels: str | Path | None = None,
    column: str = "label",
    k: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    log: Log | None = None,
) -> Clusters:
    """k-means on the vectors of whole series, beside random weights; writes who is in which
    cluster as CSV, and cluster.json.

    Args:
        run: Run folder.
        data: Series.
        labels: CSV of uri and label (optionally start and end in seconds) to compare with; the
            catalogue's own labels unless given.
        column: Which column of that file is the label.
        k: Number of clusters; unless given, the one from 2 to 10 with the best silhouette.
        out: File for the clusters; RUN/clusters.csv unless given.
        seed: Of k-means and of random weights.
        log: Where to say how far it is.

    Raises:
        DataError: If there are too few series to choose k, or no label belongs to one.
        ConfigError: If k does not fit.
    """
    saved = load(run, "series")
    found, problems = with_series(data, log)
    series = read_whole(found, saved.clip)
    labelled = found.column("label").astype(object)
    if labels is not None:
        rates = [saved.clip.rate or found[row].streams["series"].rate for row in range(len(found))]
        steps = np.array([len(values) for values in series])
        begin = found.column("start").astype(np.float64)
        ends = begin + steps * saved.clip.stride / np.array(rates)
        labelled = read_labels(labels, as_rows(found, begin, ends), column).values
    clusterings = {}
    for name, encoder in both(saved.encoder, seed).items():
        say(log, f"clustering by {name}")
        matrix = vectors_of(encoder, saved.clip, series)
        clusterings[name] = cluster_rows(matrix, labelled, k, seed=seed)
        k = clusterings[name].k if k is None else k  # alike in number, so that they compare
    path = Path(out) if out is not None else Run(run).folder / "clusters.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["uri", "start", "end", "cluster", "label"])
    for row, at in enumerate(clusterings[TRAINED].assigned.tolist()):
        one = found[row]
        writer.writerow([one.uri, one.start, one.end, at, labelled[row] or ""])
    write(path, text.getvalue().encode())
    result = Clusters(path, clusterings, problems)
    with sparing(log, "cluster.json"):
        Run(run).write_json("cluster.json", result.to_dict())
    return result
