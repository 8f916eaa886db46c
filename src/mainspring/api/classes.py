"""Classes of whole series, told from frozen vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mainspring.api.data import named, sparing
from mainspring.api.series import Values, both, read_whole, say, vectors_of, with_series
from mainspring.api.vectors import load
from mainspring.clips import ClipSpec
from mainspring.errors import DataError
from mainspring.evaluate.classify import (
    Classified,
    by_score,
    class_scores,
    logistic,
    nearest_neighbour,
    squared_distances,
    svm,
)
from mainspring.evaluate.dtw import dtw_neighbour
from mainspring.evaluate.gaps import filled
from mainspring.evaluate.rocket import rocket
from mainspring.evaluate.vectors import known
from mainspring.training.progress import Log
from mainspring.training.run import Run

RAW, DTW, ROCKET = "raw values", "DTW", "MiniRocket"
NEIGHBOUR = "1-NN"


@dataclass(frozen=True)
class Compared:
    """Classifiers on a test set.

    Attributes:
        arms: For "trained" and "random weights" the results of "svm", "logistic" and "1-NN"; for
            "raw values", "DTW" and "MiniRocket" their own.
        train: Series of train.
        test: Series of test.
        problems: For each recording that could not be used, its name and the reason.
    """

    arms: dict[str, dict[str, Classified]]
    train: int
    test: int
    problems: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        arms = {
            arm: {how: found.to_dict() for how, found in hows.items()}
            for arm, hows in self.arms.items()
        }
        counts = {"train": self.train, "test": self.test}
        return counts | {"arms": arms, "problems": self.problems}


def classify(
    run: str | Path,
    train: Any,
    test: Any,
    *,
    quick: bool = False,
    seed: int = 0,
    log: Log | None = None,
) -> Compared:
    """Classifiers on the vectors of whole series, beside random weights and methods that need no
    encoder; writes classify.json.

    The nearest neighbour on raw values stretches all series to the longest. DTW allows any warping.

    Args:
        run: Run folder.
        train: Recordings with labels, to fit the classifiers to.
        test: Recordings with labels, to tell the class of.
        quick: Leave DTW and MiniRocket out.
        seed: Of random weights and MiniRocket.
        log: Where to say how far it is.

    Raises:
        DataError: If labels are missing or train has fewer than two classes.
    """
    saved = load(run, "series")
    seen, known_labels, problems = _labelled(train, saved.clip, log)
    asked, truth, others = _labelled(test, saved.clip, log)
    arms: dict[str, dict[str, Classified]] = {}
    for name, encoder in both(saved.encoder, seed).items():
        say(log, f"classifying by {name}")
        a, b = (vectors_of(encoder, saved.clip, series) for series in (seen, asked))
        arms[name] = {
            "svm": svm(a, known_labels, b, truth),
            "logistic": logistic(a, known_labels, b, truth),
            NEIGHBOUR: nearest_neighbour(a, known_labels, b, truth),
        }
    rows = _stretched([*seen, *asked])
    distances = np.sqrt(squared_distances(rows[len(seen) :], rows[: len(seen)]))
    scores = class_scores(distances, known_labels)
    arms[RAW] = {NEIGHBOUR: by_score(scores, truth, known_labels)}
    if not quick:
        say(log, "classifying by DTW")
        arms[DTW] = {NEIGHBOUR: dtw_neighbour(seen, known_labels, asked, truth)}
        say(log, "classifying by MiniRocket")
        arms[ROCKET] = {"ridge": rocket(seen, known_labels, asked, truth, seed=seed)}
    found = Compared(arms, len(seen), len(asked), problems | others)
    with sparing(log, "classify.json"):
        Run(run).write_json("classify.json", found.to_dict())
    return found


def _labelled(
    data: Any, clip: ClipSpec, log: Log | None
) -> tuple[list[Values], np.ndarray, dict[str, str]]:
    """The series that have a label, the labels, and what could not be used."""
    found, problems = with_series(data, log)
    labels = found.column("label")
    there = known(labels)
    if not there.any():
        raise DataError(
            f"None of the {len(found)} series of {named(data)} has a label. Give a UCR .tsv or .ts"
            " file, or a manifest with the columns uri and label."
        )
    return read_whole(found.select(there), clip), labels[there].astype(str), problems


def _stretched(series: Sequence[Values]) -> Float64[np.ndarray, "n wide"]:
    """Series as rows, all of the length of the longest, without holes."""
    whole = filled(list(series))
    time = whole.values.shape[1]
    rows = []
    for values, length in zip(whole.values, whole.lengths.tolist(), strict=True):
        at = np.linspace(0, length - 1, time)
        rows.append([np.interp(at, np.arange(length), line) for line in values[:length].T])
    return np.array(rows).reshape(len(rows), -1)
