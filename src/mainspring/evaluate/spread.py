"""How far the features of one recording lie apart in time (Figure 3 of GDT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from mainspring.errors import DataError
from mainspring.evaluate.crossmodal import unit
from mainspring.evaluate.intervals import Tally, interval


@dataclass(frozen=True)
class Spread:
    """How much features of length 1 differ over time.

    Attributes:
        within: By group, the standard deviation over the clips of a recording, averaged over
            dimensions: 0 for features that do not change with time.
        between: The same over one clip of every recording. Features that tell moments apart as
            well as recordings have `within` equal to it.
        even: What features spread evenly over the sphere would have: 1 / sqrt(dimensions).
        recordings: That have two clips or more; others are left out.
    """

    within: Tally
    between: float
    even: float
    recordings: int

    def to_dict(self, rng: np.random.Generator) -> dict[str, Any]:
        """Plain JSON values, with the interval."""
        return {
            "within": {"value": self.within.mean, "interval": interval(self.within, rng)},
            "between": self.between,
            "even": self.even,
            "recordings": self.recordings,
        }


def spread(
    features: Float32[np.ndarray, "n dim"],
    recordings: np.ndarray,
    groups: np.ndarray | None = None,
) -> Spread:
    """The average standard deviation of normalised features over time-shifted clips of a recording.

    Patrick et al. (GDT, ICCV 2021, Section 4.3 and Figure 3) take ten clips of each of 3000 videos.
    They leave open which estimate of the deviation: here the sum of squares is divided by one less
    than the clips, so that recordings with few clips compare with those with many.

    Args:
        features: One vector a clip; normalised here.
        recordings: Which recording each clip is of.
        groups: What is resampled for intervals, one a clip; recordings unless given.

    Raises:
        DataError: If no recording has two clips.
    """
    rows = unit(features)
    names, first, place = np.unique(recordings.astype(str), return_index=True, return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    means, squares = np.zeros((len(names), rows.shape[1])), np.zeros((len(names), rows.shape[1]))
    np.add.at(means, place, rows)
    means /= counts[:, None]
    np.add.at(squares, place, (rows - means[place]) ** 2)
    several = counts > 1
    if not several.any():
        raise DataError(
            f"None of the {len(names)} recordings has two clips, so nothing can be said of how "
            f"features change with time. Take longer recordings."
        )
    deviation = np.sqrt(squares[several] / (counts[several, None] - 1)).mean(axis=1)
    by = (recordings if groups is None else groups)[first][several]
    single = rows[first]
    return Spread(
        within=Tally.of(deviation, by),
        between=float(single.std(axis=0, ddof=1).mean()) if len(single) > 1 else float("nan"),
        even=float(rows.shape[1] ** -0.5),
        recordings=int(several.sum()),
    )
