"""How well a score tells sound that is in step from sound that is not, offset by offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from mainspring.errors import DataError
from mainspring.evaluate.intervals import Tally, interval

CHANCE = 0.5
IN_STEP = 1e-9  # seconds


@dataclass(frozen=True)
class Sync:
    """What scores of pairs at several offsets are worth.

    Attributes:
        accuracy: For each size of offset in seconds, how often the pair in step is told from the
            pair that is so far out of step. Chance is 1/2.
        best: How often the pair in step has the best score of all offsets.
        best_chance: What a random score gives: one in so many as there are offsets.
        error: Seconds between the offset with the best score and none.
        chance_error: The same for an offset drawn at random.
    """

    accuracy: dict[float, Tally]
    best: Tally
    best_chance: float
    error: Tally
    chance_error: float

    def at_least(self, seconds: float) -> Tally:
        """Accuracy over all offsets of so many seconds and more, each pair counted once.

        Raises:
            DataError: If there is no such offset.
        """
        some = [tally for size, tally in self.accuracy.items() if size >= seconds - IN_STEP]
        if not some:
            raise DataError(
                f"No offset is {seconds:g} s or more: there are "
                f"{', '.join(f'{size:g}' for size in self.accuracy)} s."
            )
        names = np.unique(np.concatenate([tally.groups for tally in some]))
        correct, total = np.zeros(len(names)), np.zeros(len(names))
        for tally in some:
            at = np.searchsorted(names, tally.groups)
            correct[at] += tally.correct
            total[at] += tally.total
        return Tally(names, correct, total)

    def to_dict(self, rng: np.random.Generator) -> dict[str, Any]:
        """Plain JSON values, with intervals."""

        def told(tally: Tally, chance: float) -> dict[str, Any]:
            return {"value": tally.mean, "chance": chance, "interval": interval(tally, rng)}

        return {
            "accuracy": {f"{s:g}": told(tally, CHANCE) for s, tally in self.accuracy.items()},
            "best": told(self.best, self.best_chance),
            "error_seconds": told(self.error, self.chance_error),
        }


def sync(
    scores: Float64[np.ndarray, "n offset"],
    offsets: Float64[np.ndarray, "offset"],
    groups: np.ndarray,
    threshold: float | None = None,
) -> Sync:
    """Accuracy against offset.

    Args:
        scores: How much in step a clip's picture is with its sound moved by each offset: a
            similarity or a probability, larger is more in step. NaN where an offset does not fit
            into the recording.
        offsets: Seconds; one of them is 0.
        groups: What is resampled for intervals, one a row: recordings or their groups.
        threshold: A pair counts as in step from this score on (1/2 for a probability): accuracy
            is then the mean of the share of pairs in step that are called so and of pairs out of
            step that are called so, as in Korbar et al. (NeurIPS 2018). None compares the two
            scores with each other, which needs no threshold: the share in which the pair in step
            has the larger one, equal ones counted half.

    Raises:
        DataError: If no offset is 0, none is another, or a row has no score at 0.
    """
    none = np.abs(offsets) <= IN_STEP
    if none.sum() != 1 or len(offsets) < 2:
        raise DataError(
            f"Accuracy against offset takes offset 0 once and others beside it, not "
            f"{', '.join(f'{offset:g}' for offset in offsets)}."
        )
    true = scores[:, none]
    if np.isnan(true).any():
        raise DataError(
            f"{int(np.isnan(true).sum())} of {len(true)} rows have no score at offset 0; leave out "
            f"clips that have no sound in step."
        )
    there = ~np.isnan(scores)
    if threshold is None:
        right = (true > scores) + 0.5 * (true == scores)
    else:
        right = (0.5 * (true >= threshold)) + 0.5 * (scores < threshold)
    sizes = np.round(np.abs(offsets), 6)
    accuracy = {}
    for size in np.unique(sizes[~none]).tolist():
        row, column = np.nonzero(there & (sizes == size))
        if len(row):
            accuracy[size] = Tally.of(right[row, column].astype(np.float64), groups[row])
    top = there & (scores == np.nanmax(scores, axis=1, keepdims=True))
    share = top / top.sum(axis=1, keepdims=True)  # equal best scores share the answer
    count = there.sum(axis=1)
    return Sync(
        accuracy=accuracy,
        best=Tally.of(share[:, none][:, 0], groups),
        best_chance=float((1 / count).mean()),
        error=Tally.of(share @ sizes, groups),
        chance_error=float((there @ sizes / count).mean()),
    )
