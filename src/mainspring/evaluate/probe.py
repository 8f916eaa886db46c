"""The linear probe: how much a straight cut through frozen vectors knows of a label.

Logistic regression on standardised vectors, grouped cross-validation, the strength of the
regularisation chosen on validation groups inside train and never on test:

    vectors = Vectors.load("RUN/embeddings").pooled()
    labels = read_labels("labels.csv", vectors)
    result = probe(vectors.matrix, labels.values, vectors.sides)
    result.accuracy, result.low, result.high, result.curve
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.preprocessing import StandardScaler

from mainspring.errors import DataError
from mainspring.evaluate.intervals import Difference, Tally, difference, interval
from mainspring.evaluate.splits import grouped_folds, labels_per_class, rare_classes
from mainspring.evaluate.threads import few_threads
from mainspring.evaluate.vectors import known

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Inverse regularisation strengths C tried, weakest model first."""

FEW_STRENGTH = 1.0
"""C where there are too few labels to choose it by."""

MANY = 1_000
"""Rows of train from which one held-out third is enough to choose C by."""

ITERATIONS = (500, 5_000, 50_000)
"""Iterations allowed at first, and when that was not enough."""

Matrix = Float32[np.ndarray, "n dim"]
Codes = Int64[np.ndarray, "n"]


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy with few labels.

    Attributes:
        labels: Labels a class; None stands for all.
        accuracy: Mean over draws of the labels, each tested on groups that were not drawn from.
        spread: Standard deviation over the draws (test folds differ between them too).
        draws: How many.
    """

    labels: int | None
    accuracy: float
    spread: float
    draws: int


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        accuracy: Share of rows told correctly, each by a probe that saw no row of its group.
        low: Lower end of the 95 % interval (cluster bootstrap over groups); 0 with fewer than five
            groups.
        high: Upper end; then 1.
        balanced_accuracy: Mean over classes of the share told correctly.
        macro_f1: Mean over classes of F1.
        chance_majority: Accuracy of always saying the commonest class of train.
        chance_uniform: One over the number of classes.
        classes: Names, in the order of the confusion matrix.
        confusion: Rows are true classes, columns said ones; counts, a mean over seeds.
        curve: Accuracy by labels a class, all labels last.
        tally: Correct answers by group, for `compare`.
        rows: Rows probed.
        unlabelled: Rows without a label, left out.
        folds: Folds of the cross-validation.
        seeds: Seeds of its splits.
        strengths: C chosen, for each seed and fold.
        notes: What the reader should know: classes left out, fits that did not converge.
    """

    accuracy: float
    low: float
    high: float
    balanced_accuracy: float
    macro_f1: float
    chance_majority: float
    chance_uniform: float
    classes: list[str]
    confusion: Float64[np.ndarray, "label label"]
    curve: list[CurvePoint]
    tally: Tally
    rows: int
    unlabelled: int
    folds: int
    seeds: list[int]
    strengths: list[float]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the tally by group (whose number is kept)."""
        plain = {name: value for name, value in vars(self).items() if name != "tally"}
        return plain | {
            "confusion": self.confusion.tolist(),
            "curve": [vars(point) for point in self.curve],
            "groups": len(self.tally.groups),
        }


def probe(
    matrix: Matrix,
    labels: np.ndarray,
    groups: np.ndarray,
    seeds: Sequence[int] = (0, 1, 2),
    per_class: Sequence[int] = (1, 5, 10, 50),
    folds: int = 5,
) -> ProbeResult:
    """Probes frozen vectors for a label.

    The curve's small probes are trained on so many labelled rows of each class, drawn from the
    train folds (one draw a fold and seed), with C = 1: a handful of labels cannot choose it.
    Standardisation uses all vectors of train, which takes no label. Where a label belongs to a
    recording, probe `Vectors.pooled()`, so that one label is one recording.

    Args:
        matrix: One vector a row.
        labels: Class name of each row, None where unknown (those rows are left out).
        groups: What must stay on one side of a split (`Vectors.sides`).
        seeds: One cross-validation each; results are means over them.
        per_class: Labels a class of the curve's points before the last, which takes all.
        folds: Parts of the cross-validation.

    Raises:
        DataError: If vectors are not finite, or fewer than two classes have two groups each.
    """
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(matrix)} vectors hold NaN or infinity; probe the others.")
    labelled = known(labels)
    usable, notes = rare_classes(labels[labelled], groups[labelled])
    kept = np.flatnonzero(labelled)[usable]
    classes, codes = np.unique(labels[kept].astype(str), return_inverse=True)
    if len(classes) < 2:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise DataError(
            f"A probe needs at least 2 classes with recordings of at least 2 groups each, but "
            f"{len(classes)} of the {len(set(labels[labelled]))} classes is so{said}. Label more "
            f"recordings, or name finer groups."
        )
    task = _Task(matrix[kept], codes.astype(np.int64), groups[kept], len(classes), notes)
    with few_threads(matrix.size):
        told = [task.cross_validate(seed, per_class, folds) for seed in seeds]

    correct = np.mean([said == codes for said in told], axis=0)
    confusion = np.mean(
        [confusion_matrix(codes, said, labels=np.arange(len(classes))) for said in told], axis=0
    )
    tally = Tally.of(correct, groups[kept])
    rng = np.random.default_rng(seeds[0])
    low, high = (0.0, 1.0) if tally.few else interval(tally, rng)
    recall = np.diag(confusion) / confusion.sum(axis=1)
    everything = [float(accuracy) for accuracy in task.few.pop(None)]
    points = [CurvePoint(k, *_spread(found)) for k, found in sorted(task.few.items()) if k]
    return ProbeResult(
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        balanced_accuracy=float(recall.mean()),
        macro_f1=float(np.mean([f1_score(codes, said, average="macro") for said in told])),
        chance_majority=float(np.mean(task.majority)),
        chance_uniform=1 / len(classes),
        classes=[str(name) for name in classes],
        confusion=confusion.astype(np.float64),
        curve=[*points, CurvePoint(None, *_spread(everything))],
        tally=tally,
        rows=len(kept),
        unlabelled=int((~labelled).sum()),
        folds=task.folds,
        seeds=list(seeds),
        strengths=task.strengths,
        notes=list(dict.fromkeys(task.notes)),
    )


def compare(a: ProbeResult, b: ProbeResult, seed: int = 0) -> Difference:
    """The accuracy of a minus that of b over the groups both have, with a paired interval."""
    return difference(a.tally, b.tally, np.random.default_rng(seed))


@dataclass
class _Task:
    """Vectors and their labels, with what the folds yield."""

    matrix: Matrix
    codes: Codes
    groups: np.ndarray
    classes: int
    notes: list[str]
    folds: int = 0
    few: dict[int | None, list[float]] = field(default_factory=dict)
    majority: list[float] = field(default_factory=list)
    strengths: list[float] = field(default_factory=list)

    def cross_validate(self, seed: int, per_class: Sequence[int], folds: int) -> Codes:
        """The class told of each row by the probe that did not see its group."""
        rng = np.random.default_rng(seed)
        told = np.zeros_like(self.codes)
        common = np.zeros_like(self.codes)
        splits = grouped_folds(self.codes, self.groups, folds, rng)
        self.folds = len(splits)
        for train, test in splits:
            codes, truth = self.codes[train], self.codes[test]
            scaler = StandardScaler().fit(self.matrix[train].astype(np.float64))
            seen = scaler.transform(self.matrix[train].astype(np.float64))
            asked = scaler.transform(self.matrix[test].astype(np.float64))
            strength = self._choose(seen, codes, self.groups[train], rng)
            told[test] = self._tell(seen, codes, asked, strength)
            common[test] = np.bincount(codes).argmax()
            self.strengths.append(strength)
            self.few.setdefault(None, []).append(float((told[test] == truth).mean()))
            for k in per_class:
                if k < np.bincount(codes).max():
                    drawn = labels_per_class(codes, k, rng)
                    said = self._tell(seen[drawn], codes[drawn], asked, FEW_STRENGTH)
                    self.few.setdefault(k, []).append(float((said == truth).mean()))
        self.majority.append(float((common == self.codes).mean()))
        return told

    def _choose(
        self, matrix: np.ndarray, codes: np.ndarray, groups: np.ndarray, rng: np.random.Generator
    ) -> float:
        """C by accuracy on validation groups; the strongest regularisation among the best.

        A third of the groups is held out, each third in turn where rows are few. Regularisation
        is weakened to C = 1 at least, and further until that has not helped twice in a row: of
        classes of uneven sizes the strongest few all tell the commonest alone. Fits are coarse
        here (float32 and a tenfold tolerance): they are compared, not reported.
        """
        if len(set(groups)) < 2:
            return FEW_STRENGTH
        matrix = matrix.astype(np.float32)
        folds = grouped_folds(codes, groups, 3, rng)[: 3 if len(codes) < MANY else 1]
        scores: list[int] = []
        for strength in STRENGTHS:
            right = 0
            for train, held in folds:
                said = self._tell(matrix[train], codes[train], matrix[held], strength, 1e-3)
                right += int((said == codes[held]).sum())
            scores.append(right)
            if strength >= FEW_STRENGTH and len(scores) - int(np.argmax(scores)) > 2:
                break
        return STRENGTHS[int(np.argmax(scores))]

    def _tell(
        self,
        matrix: np.ndarray,
        codes: np.ndarray,
        asked: np.ndarray,
        strength: float,
        tolerance: float = 1e-4,
    ) -> np.ndarray:
        """Classes of the rows asked for, by a probe trained on the others."""
        if len(np.unique(codes)) < 2:
            return np.full(len(asked), codes[0])
        for limit in ITERATIONS:
            model = LogisticRegression(C=strength, max_iter=limit, tol=tolerance)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", ConvergenceWarning)
                    return model.fit(matrix, codes).predict(asked)
            except ConvergenceWarning:
                continue
        self.notes.append(f"a fit with C = {strength:g} did not converge in {limit} iterations")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said in the notes
            return model.fit(matrix, codes).predict(asked)


def _spread(values: list[float]) -> tuple[float, float, int]:
    return float(np.mean(values)), float(np.std(values)), len(values)
