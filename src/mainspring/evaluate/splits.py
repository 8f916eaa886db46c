"""Splits that never let windows of one recording, source or subject straddle train and test."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Bool, Int64
from sklearn.model_selection import StratifiedGroupKFold

from mainspring.errors import DataError

Fold = tuple[np.ndarray, np.ndarray]


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, rng: np.random.Generator
) -> list[Fold]:
    """Row indices (train, test) of up to `folds` folds; each row is in one test set.

    All rows of a group are on one side, classes are spread over the folds as evenly as that
    allows. With fewer groups than folds there are as many folds as groups.

    Raises:
        DataError: If there are fewer than two groups.
    """
    codes = np.unique(groups.astype(str), return_inverse=True)[1]
    classes = np.unique(labels.astype(str), return_inverse=True)[1]
    available = int(codes.max()) + 1 if len(codes) else 0
    if available < 2:
        raise DataError(
            f"A grouped split needs at least 2 groups, but these {len(groups)} rows are of "
            f"{available}. Rows of one group (a source, a subject, a file) never straddle train "
            f"and test; add recordings, or name finer groups in the manifest's group column."
        )
    # As many folds as the largest class has rows, else scikit-learn refuses.
    count = min(folds, available, int(np.bincount(classes).max()))
    if count < 2:
        # Every class has one row: nothing to stratify.
        classes = np.zeros_like(classes)
        count = min(folds, available)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        # Rare classes are told to the user by `rare_classes`, with names and what follows.
        warnings.filterwarnings("ignore", message="The least populated class in y")
        found = list(splitter.split(np.zeros(len(codes)), classes, codes))
    return [(train, test) for train, test in found if len(train) and len(test)]


def rare_classes(labels: np.ndarray, groups: np.ndarray) -> tuple[Bool[np.ndarray, "n"], list[str]]:
    """Which rows can be probed, and what to tell about the others.

    A class whose rows are all of one group is either in train or in test, never in both, so that
    nothing can be said of it.

    Returns:
        A mask of usable rows, and one sentence for each class left out.
    """
    usable = np.ones(len(labels), bool)
    notes = []
    for name in sorted(set(labels)):
        mine = labels == name
        if len(set(groups[mine])) < 2:
            usable &= ~mine
            notes.append(
                f"class {name!r} left out: its {int(mine.sum())} rows are all of group "
                f"{groups[mine][0]!r}, so it cannot be in train and test at once"
            )
    return usable, notes


def labels_per_class(
    labels: np.ndarray, k: int, rng: np.random.Generator
) -> Int64[np.ndarray, "chosen"]:
    """Indices of `k` rows of each class, drawn without replacement; all of a smaller class."""
    if k < 1:
        raise ValueError(f"k labels a class must be at least 1, not {k}")
    chosen = []
    for name in sorted(set(labels)):
        mine = np.flatnonzero(labels == name)
        chosen.append(rng.choice(mine, min(k, len(mine)), replace=False))
    return np.sort(np.concatenate(chosen)).astype(np.int64)
