"""Classifying whole series by their vectors, in the protocol of the series literature.

A radial SVM whose penalty is chosen by five-fold cross-validation on train, as Franceschi,
Dieuleveut & Jaggi ("Unsupervised scalable representation learning for multivariate time series",
NeurIPS 2019) introduced it and Yue et al. ("TS2Vec", AAAI 2022, Section 4.1) took it over; beside
it logistic regression and the nearest neighbour, both on standardised vectors:

    found = svm(encoder(train), train_labels, encoder(test), test_labels)
    found.accuracy, found.auprc, found.chance

The split into train and test is the data set's own. For data without one, `probe` draws grouped
splits and gives intervals.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mainspring.errors import DataError
from mainspring.evaluate.threads import few_threads

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e4, np.inf)
"""C of the SVM; infinity allows no error on train."""
LARGEST = 1e4
"""C where infinity has no solution in floating point."""

FEW_ROWS = 50
FEW_A_CLASS = 5
"""With fewer rows in all, or a class on average, C is infinity: folds would be too small."""

SVM_ROWS = 10_000
LOGISTIC_ROWS = 100_000
"""Rows of train that are used, at most (drawn with the classes' shares kept)."""

ITERATIONS = 10_000_000
"""Limit of the SVM's solver, as in the protocol."""

VALUES_AT_ONCE = 32 * 2**20
"""Distances between test and train held at a time (256 MiB)."""

Matrix = Float[np.ndarray, "n dim"]


@dataclass(frozen=True)
class Classified:
    """What a classifier told of the test rows.

    Attributes:
        accuracy: Share told correctly.
        auprc: Area under the precision-recall curve (average precision), the mean over classes
            that occur in test; of two classes the second's alone, as in the protocol. NaN where
            none of these occurs.
        chance: Accuracy of always saying the commonest class of train.
        classes: Classes of train, sorted.
        told: Class told of each test row.
        scores: One column a class; larger means more likely.
        settings: What was chosen on train, such as the SVM's C.
    """

    accuracy: float
    auprc: float
    chance: float
    classes: np.ndarray
    told: np.ndarray
    scores: Float64[np.ndarray, "n label"]
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        told: np.ndarray,
        scores: Float64[np.ndarray, "n label"],
        truth: np.ndarray,
        train_labels: np.ndarray,
        settings: dict[str, Any] | None = None,
    ) -> Classified:
        """Measures answers against the truth."""
        classes, counts = np.unique(train_labels, return_counts=True)
        asked = range(len(classes)) if len(classes) > 2 else range(len(classes) - 1, len(classes))
        areas = [
            average_precision_score(truth == classes[at], scores[:, at])
            for at in asked
            if (truth == classes[at]).any()
        ]
        return cls(
            accuracy=float((told == truth).mean()),
            auprc=float(np.mean(areas)) if areas else float("nan"),
            chance=float((truth == classes[counts.argmax()]).mean()),
            classes=classes,
            told=told,
            scores=scores,
            settings=settings or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers, as plain JSON values."""
        return {
            "accuracy": self.accuracy,
            "auprc": None if np.isnan(self.auprc) else self.auprc,
            "chance": self.chance,
            "classes": [str(name) for name in self.classes],
            # JSON knows neither infinity nor NaN.
            **{n: str(v) if v == np.inf else v for n, v in self.settings.items()},
        }


def svm(
    train: Matrix,
    train_labels: np.ndarray,
    test: Float[np.ndarray, "asked dim"],
    test_labels: np.ndarray,
    folds: int = 5,
    rows: int = SVM_ROWS,
) -> Classified:
    """A support vector machine with a radial kernel on vectors as they are (not standardised).

    The kernel is exp(-gamma d^2) with gamma = 1 / (dim * variance of all numbers of the rows that
    it is trained on). The penalty is the first of `PENALTIES` with the best mean accuracy over
    stratified folds of train. Squared distances are computed once and serve all folds and
    penalties; gamma is each fold's own, so that selection and answers are those of scikit-learn's
    `GridSearchCV(SVC())`. One thing differs: where equal rows have different classes (a collapsed
    encoder's, say), no machine is without error, so that C = infinity is not tried: its solver
    would run to its limit and return anything; and where its solver fails on rows that are all but
    equal, C = 10,000 takes its place. With n rows of train about 24 n^2 bytes are held.

    Args:
        train: One vector a row.
        train_labels: Class of each row, anything that sorts.
        test: Vectors to tell the class of.
        test_labels: Their classes; classes that train lacks count as errors.
        folds: Parts of the cross-validation.
        rows: Rows of train used at most.

    Raises:
        DataError: If vectors are not finite, or train holds fewer than two classes.
    """
    _check(train, train_labels, test, test_labels)
    counts = np.unique(train_labels, return_counts=True)[1]
    few = len(train) // len(counts) < FEW_A_CLASS or len(train) < FEW_ROWS
    train, train_labels = _some(train.astype(np.float64), train_labels, rows)
    distances = squared_distances(train, train)
    penalties = PENALTIES[:-1] if _contradictory(train, train_labels) else PENALTIES
    penalty = penalties[-1]
    if not few:
        penalty = _penalty(train, distances, train_labels, folds, penalties)
    model, gamma = _fit(train, distances, train_labels, penalty)
    classes = len(model.classes_)
    scores = np.empty((len(test), classes))
    told = np.empty(len(test), train_labels.dtype)
    step = max(1, VALUES_AT_ONCE // len(train))
    for at in range(0, len(test), step):
        kernel = np.exp(-gamma * squared_distances(test[at : at + step].astype(np.float64), train))
        told[at : at + step] = model.predict(kernel)
        value = model.decision_function(kernel)
        scores[at : at + step] = np.stack([-value, value], axis=1) if classes == 2 else value
    return Classified.of(told, scores, test_labels, train_labels, {"C": penalty})


def logistic(
    train: Matrix,
    train_labels: np.ndarray,
    test: Float[np.ndarray, "asked dim"],
    test_labels: np.ndarray,
    rows: int = LOGISTIC_ROWS,
) -> Classified:
    """Logistic regression (C = 1), one class against the others, on vectors standardised by train.

    Raises:
        DataError: If vectors are not finite, or train holds fewer than two classes.
    """
    _check(train, train_labels, test, test_labels)
    train, train_labels = _some(train.astype(np.float64), train_labels, rows)
    scaler = StandardScaler().fit(train)
    model = OneVsRestClassifier(LogisticRegression(max_iter=1_000_000))
    with few_threads(train.size):
        model.fit(scaler.transform(train), train_labels)
    asked = scaler.transform(test.astype(np.float64))
    scores = model.predict_proba(asked).astype(np.float64)
    return Classified.of(model.predict(asked), scores, test_labels, train_labels)


def nearest_neighbour(
    train: Matrix,
    train_labels: np.ndarray,
    test: Float[np.ndarray, "asked dim"],
    test_labels: np.ndarray,
) -> Classified:
    """The class of the nearest row of train, on vectors standardised by train.

    A class's score is minus the distance to its nearest row.

    Raises:
        DataError: If vectors are not finite, or train holds fewer than two classes.
    """
    _check(train, train_labels, test, test_labels)
    scaler = StandardScaler().fit(train.astype(np.float64))
    known = scaler.transform(train.astype(np.float64))
    asked = scaler.transform(test.astype(np.float64))
    step = max(1, VALUES_AT_ONCE // len(known))
    scores = [
        class_scores(squared_distances(asked[at : at + step], known), train_labels)
        for at in range(0, len(asked), step)
    ]
    return by_score(np.concatenate(scores), test_labels, train_labels)


def by_score(
    scores: Float64[np.ndarray, "n label"],
    truth: np.ndarray,
    train_labels: np.ndarray,
    settings: dict[str, Any] | None = None,
) -> Classified:
    """Tells the class with the largest score."""
    told = np.unique(train_labels)[scores.argmax(axis=1)]
    return Classified.of(told, scores, truth, train_labels, settings)


def class_scores(
    distances: Float64[np.ndarray, "n known"], labels: np.ndarray
) -> Float64[np.ndarray, "n label"]:
    """For each class minus the distance to its nearest row."""
    return np.stack(
        [-distances[:, labels == name].min(axis=1) for name in np.unique(labels)], axis=1
    )


def squared_distances(
    a: Float64[np.ndarray, "n dim"], b: Float64[np.ndarray, "m dim"]
) -> Float64[np.ndarray, "n m"]:
    """Squared Euclidean distances by one matrix product."""
    found = a @ b.T
    found *= -2
    found += (a * a).sum(axis=1)[:, None]
    found += (b * b).sum(axis=1)
    return np.maximum(found, 0, out=found)


def _penalty(
    train: Matrix,
    distances: np.ndarray,
    labels: np.ndarray,
    folds: int,
    penalties: tuple[float, ...],
) -> float:
    """The first of the penalties with the best mean accuracy over the folds."""
    scores = np.zeros((len(penalties), folds))
    with warnings.catch_warnings():
        # A class with fewer rows than folds is absent from some; so it is in the protocol.
        warnings.filterwarnings("ignore", message="The least populated class in y")
        splits = list(StratifiedKFold(folds).split(train, labels))
    for fold, (seen, held) in enumerate(splits):
        if len(np.unique(labels[seen])) < 2:
            scores[:, fold] = (labels[held] == labels[seen][0]).mean()
            continue
        gamma = _gamma(train[seen])
        kernel = np.exp(-gamma * distances[np.ix_(seen, seen)])
        asked = np.exp(-gamma * distances[np.ix_(held, seen)])
        for at, penalty in enumerate(penalties):
            machine = _solved(kernel, labels[seen], penalty)
            if machine is not None:  # otherwise it counts as always wrong
                scores[at, fold] = (machine.predict(asked) == labels[held]).mean()
    return penalties[int(np.average(scores, axis=1).argmax())]


def _contradictory(train: Matrix, labels: np.ndarray) -> bool:
    """Whether any two equal rows are of different classes."""
    rows = np.unique(train, axis=0, return_inverse=True)[1].reshape(-1)
    codes = np.unique(labels, return_inverse=True)[1]
    return len(np.unique(rows)) < np.unique(np.stack([rows, codes]), axis=1).shape[1]


def _fit(
    train: Matrix, distances: np.ndarray, labels: np.ndarray, penalty: float
) -> tuple[SVC, float]:
    gamma = _gamma(train)
    kernel = np.exp(-gamma * distances)
    machine = _solved(kernel, labels, penalty) or _solved(kernel, labels, LARGEST)
    assert machine is not None, "a finite penalty always has a solution"
    return machine, gamma


def _solved(kernel: np.ndarray, labels: np.ndarray, penalty: float) -> SVC | None:
    """The machine; None where infinity has no solution in floating point, since rows of two classes
    are all but equal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solver terminated early")
        try:
            return _machine(penalty).fit(kernel, labels)
        except ValueError:
            if np.isfinite(penalty):
                raise
            return None


def _machine(penalty: float) -> SVC:
    return SVC(C=penalty, kernel="precomputed", max_iter=ITERATIONS)


def _gamma(rows: np.ndarray) -> float:
    """scikit-learn's gamma="scale"."""
    variance = rows.var()
    return 1 / (rows.shape[1] * variance) if variance > 0 else 1.0


def _some(matrix: Matrix, labels: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about so many rows, with the classes' shares kept; a class's only row stays."""
    if len(matrix) <= rows:
        return matrix, labels
    _, code, counts = np.unique(labels, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(counts[code] == 1)
    others = np.flatnonzero(counts[code] > 1)
    kept, _ = train_test_split(others, train_size=rows, random_state=0, stratify=labels[others])
    kept = np.concatenate([kept, alone])
    return matrix[kept], labels[kept]


def _check(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> None:
    for name, matrix, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if len(matrix) != len(labels) or len(matrix) == 0:
            raise DataError(
                f"{name} has {len(matrix)} rows and {len(labels)} labels; give one label a row, "
                f"and at least one row."
            )
        if not np.isfinite(matrix).all():
            bad = int((~np.isfinite(matrix.reshape(len(matrix), -1)).all(axis=1)).sum())
            raise DataError(f"{bad} of {len(matrix)} {name} rows hold NaN or infinity; fill them.")
    if len(np.unique(train_labels)) < 2:
        raise DataError(
            f"All {len(train)} rows of train are of class {train_labels[0]!r}; a classifier needs "
            f"at least two classes."
        )
