"""What vectors are worth for labels that training never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.api.data import counter, sparing, usable
from mainspring.api.vectors import embed, load, reader_for
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import report as reporting
from mainspring.evaluate import verdict as verdicts
from mainspring.evaluate.baselines import baselines
from mainspring.evaluate.labels import read_labels
from mainspring.evaluate.neighbours import Recall, knn_accuracy, retrieval
from mainspring.evaluate.probe import ProbeResult
from mainspring.evaluate.probe import probe as probe_vectors
from mainspring.evaluate.vectors import Vectors, known
from mainspring.training.progress import Log
from mainspring.training.run import Run

TRAINED = verdicts.TRAINED


@dataclass(frozen=True)
class Probed:
    """What the vectors of a run are worth for a label.

    Attributes:
        results: Linear probes of "trained", "random weights" and "raw features".
        neighbours: For each of them the accuracy of k nearest neighbours by k, across groups.
        recall: For each of them R@k.
        verdict: In words.
        problems: For each recording that could not be embedded, its name and the reason.
    """

    results: dict[str, ProbeResult]
    neighbours: dict[str, dict[int, float]]
    recall: dict[str, Recall]
    verdict: str
    problems: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            name: {
                "probe": result.to_dict(),
                "knn": self.neighbours[name],
                "recall": {
                    k: {"value": v, "chance": self.recall[name].chance[k]}
                    for k, v in self.recall[name].values.items()
                },
            }
            for name, result in self.results.items()
        } | {"verdict": self.verdict, "problems": self.problems}


def probe(
    run: str | Path,
    data: Any,
    *,
    labels: str | Path | None = None,
    column: str = "label",
    stream: str | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    log: Log | None = None,
) -> Probed:
    """Linear probe, nearest neighbours and retrieval on frozen vectors, one a recording, beside
    random weights and raw features; writes probe-COLUMN.json (probe-STREAM-COLUMN.json where the
    run has several streams) and the report.

    Args:
        run: Run folder.
        data: Recordings.
        labels: CSV with uri and label; None takes the catalogue's own labels.
        column: Which column of the file is the label.
        stream: Which encoder, where the run has several.
        seeds: Of the splits.
        log: Where to say how far it is.

    Raises:
        ConfigError: If there is no seed.
        DataError: If labels are missing or too few.
    """
    if not seeds:
        raise ConfigError("There are no seeds; give one grouped split or more.")
    saved = load(run, stream)
    vectors = embed(run, data, stream=stream, log=log)
    found, _ = usable(data, log)
    reader = reader_for(saved, found)
    others = baselines(saved.encoder, saved.clip, found, reader, progress=counter(log, "baselines"))
    named, notes = _labelled({TRAINED: vectors, **others}, labels, column)
    probed = _probe(named, seeds, notes)
    place = Run(run)
    with sparing(log, "The report"):
        which = f"{vectors.stream}-{column}" if len(place.streams()) > 1 else column
        place.write_json(f"probe-{which}.json", probed.to_dict())
        reporting.write_report(
            place,
            vectors=named[TRAINED],
            probes={column: probed.results},
            reader=reader,
            catalogue=found,
            verdict=probed.verdict,
        )
    return probed


def _labelled(
    named: Mapping[str, Vectors], labels: str | Path | None, column: str
) -> tuple[dict[str, Vectors], list[str]]:
    """Recording by recording, with the labels of a file or of the catalogue, and a note where a
    file has labels of parts of recordings."""
    labelled, notes = {}, []
    for name, vectors in named.items():
        if labels is not None:
            vectors = replace(vectors, labels=read_labels(labels, vectors, column).values)
        elif not known(vectors.labels).any():
            raise DataError(
                "The recordings carry no labels. Give a CSV of uri,label with --labels."
            )
        labelled[name] = pooled = vectors.pooled()
        whole = pooled.rows[known(pooled.labels)]
        torn = np.setdiff1d(vectors.rows[known(vectors.labels)], whole)
        said = (
            f"{len(torn)} recordings whose windows have different labels, or only some of them "
            "one, are left out: a probe takes one label a recording. To probe spans, give a "
            "manifest of uri,start,end,label as DATA"
        )
        if not len(whole):
            raise DataError(f"No recording is left to probe. {said}.")
        if len(torn) and name == TRAINED:
            notes.append(said)
    return labelled, notes


def _probe(named: Mapping[str, Vectors], seeds: tuple[int, ...], notes: list[str]) -> Probed:
    results, near, recall = {}, {}, {}
    for name, v in named.items():
        result = probe_vectors(v.matrix, v.labels, v.sides, seeds)
        results[name] = replace(result, notes=[*notes, *result.notes])
        near[name] = knn_accuracy(v.matrix, v.labels, v.sides)
        recall[name] = retrieval(v.matrix, v.labels, v.sides)
    return Probed(results, near, recall, verdicts.verdict(results), named[TRAINED].problems)
