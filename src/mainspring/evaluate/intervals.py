"""Intervals by resampling groups: windows of one recording are no independent witnesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from mainspring.errors import DataError

RESAMPLES = 2000
LEVEL = 0.95
FEWEST_GROUPS = 5
"""Below so many groups an interval says nothing: resampling two of them gives three results."""


@dataclass(frozen=True)
class Tally:
    """How often each group was answered correctly.

    Attributes:
        groups: Name of each group.
        correct: Correct answers in it (a mean over repetitions, hence not whole).
        total: Answers in it.
    """

    groups: np.ndarray
    correct: Float64[np.ndarray, "group"]
    total: Float64[np.ndarray, "group"]

    @classmethod
    def of(cls, correct: Float64[np.ndarray, "n"], groups: np.ndarray) -> Tally:
        """From one number between 0 and 1 an answer."""
        names, inverse = np.unique(groups.astype(str), return_inverse=True)
        return cls(
            groups=names,
            correct=np.bincount(inverse, weights=correct, minlength=len(names)),
            total=np.bincount(inverse, minlength=len(names)).astype(np.float64),
        )

    @property
    def few(self) -> bool:
        """Whether there are too few groups for an interval."""
        return len(self.groups) < FEWEST_GROUPS

    @property
    def mean(self) -> float:
        """Share of correct answers."""
        return float(self.correct.sum() / self.total.sum())


@dataclass(frozen=True)
class Difference:
    """One mean minus another, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """ "better" if the whole interval lies above zero, "worse" if below, else "no better"."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no better"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "word": self.word}


def interval(tally: Tally, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of the share of correct answers: percentiles of the cluster bootstrap.

    Whole groups are drawn with replacement (Field & Welsh, "Bootstrapping clustered data", JRSS B
    2007), 2000 times.
    """
    weights = _resamples(len(tally.groups), rng)
    return _ends((weights @ tally.correct) / (weights @ tally.total))


def difference(a: Tally, b: Tally, rng: np.random.Generator) -> Difference:
    """a - b over the groups that both have, with the interval of the paired bootstrap: each
    resample takes the same groups for both. With fewer than five groups it is all there can be,
    -1 to 1.

    Raises:
        DataError: If they share no group.
    """
    shared, in_a, in_b = np.intersect1d(a.groups, b.groups, return_indices=True)
    if len(shared) == 0:
        raise DataError(
            "Two results that share no group cannot be compared: one has "
            f"{a.groups[0]!r}, the other {b.groups[0]!r}. Measure both on the same recordings."
        )
    weights = _resamples(len(shared), rng)

    def share(tally: Tally, at: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return (weight @ tally.correct[at]) / (weight @ tally.total[at])

    whole = np.ones((1, len(shared)))
    mean = share(a, in_a, whole) - share(b, in_b, whole)
    low, high = _ends(share(a, in_a, weights) - share(b, in_b, weights))
    if len(shared) < FEWEST_GROUPS:
        low, high = -1.0, 1.0
    return Difference(float(mean[0]), low, high)


def _resamples(groups: int, rng: np.random.Generator) -> Float64[np.ndarray, "resample group"]:
    """How often each group is taken in each resample."""
    return rng.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES).astype(np.float64)


def _ends(values: np.ndarray) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
