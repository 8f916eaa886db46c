"""Finding across streams: which picture belongs to this sound, and which second of it.

    way = cross_retrieval(sounds, pictures, groups=groups)     # row i of both is of one recording
    way.there.recall.values[1], way.there.recall.chance[1]     # sound asks, pictures are searched
    way.back.rank                                              # pictures ask, sounds are searched

Similarity is the cosine. Vectors come in float32, so cosines closer than 1e-6 cannot be told apart:
they are ties, and a tie is worth what a random order of it would give. Hence embeddings that are
all one point score chance, not 100 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from mainspring.errors import DataError
from mainspring.evaluate.intervals import Tally, interval
from mainspring.evaluate.neighbours import SCORES_AT_ONCE, Recall, chance_of_hit

TIE = 1e-6

Rows = Float32[np.ndarray, "n dim"]


@dataclass(frozen=True)
class Way:
    """One stream asks, another is searched.

    Attributes:
        recall: R@k: the share of queries whose own partner is among the k nearest.
        rank: Median over queries of the place of the partner, 1 for the nearest; the mean place
            of a tie.
        chance_rank: The place that a random order would give, (n + 1) / 2.
    """

    recall: Recall
    rank: float
    chance_rank: float

    def to_dict(self, rng: np.random.Generator) -> dict[str, Any]:
        """Plain JSON values, with the interval of each share."""
        shares = {
            k: {
                "value": value,
                "chance": self.recall.chance[k],
                "interval": interval(self.recall.tallies[k], rng),
            }
            for k, value in self.recall.values.items()
        }
        return {"recall": shares, "median_rank": self.rank, "chance_rank": self.chance_rank}


@dataclass(frozen=True)
class Ways:
    """Retrieval both ways: the first stream asks (`there`), or the second (`back`)."""

    there: Way
    back: Way


@dataclass(frozen=True)
class InTime:
    """How well a moment of one stream finds the same moment of another, within its recording.

    Attributes:
        hits: By group, how often the nearest moment is the right one.
        chance: What a moment drawn from the recording's own gives.
        error: By group, seconds between the nearest moment and the right one.
        chance_error: The same for a moment drawn from the recording's own.
        moments: Moments that were asked for.
        alone: Recordings of one moment, which have nothing to choose from and are left out.
    """

    hits: Tally
    chance: float
    error: Tally
    chance_error: float
    moments: int
    alone: int

    def to_dict(self, rng: np.random.Generator) -> dict[str, Any]:
        """Plain JSON values, with intervals."""
        return {
            "recall": {
                "value": self.hits.mean,
                "chance": self.chance,
                "interval": interval(self.hits, rng),
            },
            "error_seconds": {
                "value": self.error.mean,
                "chance": self.chance_error,
                "interval": interval(self.error, rng),
            },
            "moments": self.moments,
            "alone": self.alone,
        }


def cross_retrieval(
    queries: Rows,
    gallery: Rows,
    ks: Sequence[int] = (1, 5, 10),
    groups: np.ndarray | None = None,
) -> Ways:
    """Retrieval both ways among pairs: row i of the gallery is what row i of the queries seeks.

    Args:
        queries: One vector a pair; a zero vector has similarity 0 to all.
        gallery: Its partner's vector.
        ks: Places that count as found.
        groups: What is resampled for intervals; each pair on its own unless given.

    Raises:
        DataError: If there are fewer than two pairs.
    """
    if len(queries) < 2:
        raise DataError(
            f"Retrieval needs 2 recordings that have both streams, but there are {len(queries)}."
        )
    names = np.arange(len(queries)) if groups is None else groups
    return Ways(_way(queries, gallery, ks, names), _way(gallery, queries, ks, names))


def _way(queries: Rows, gallery: Rows, ks: Sequence[int], groups: np.ndarray) -> Way:
    better, ties = places(queries, gallery)
    count = len(queries)
    # A partner tied with t - 1 others after b better ones is at each of the places b + 1 .. b + t
    # with probability 1 / t.
    hits = {k: np.clip((k - better) / ties, 0.0, 1.0) for k in ks}
    alone = np.ones(count, np.int64)
    return Way(
        Recall(
            values={k: float(hit.mean()) for k, hit in hits.items()},
            chance={k: float(chance_of_hit(count, alone, k)[0]) for k in ks},
            tallies={k: Tally.of(hit, groups) for k, hit in hits.items()},
        ),
        rank=float(np.median(better + (ties + 1) / 2)),
        chance_rank=(count + 1) / 2,
    )


def places(queries: Rows, gallery: Rows) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Where row i of the gallery stands in the order of row i of the queries, by cosine; what is
    closer than 1e-6 counts as a tie.

    Args:
        queries: One vector a pair.
        gallery: Its partner's vector.

    Returns:
        How many rows of the gallery are nearer, and how many are as near (itself counted).
    """
    better, ties = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    for rows, similarity in _similarities(queries, gallery):
        own = similarity[np.arange(len(similarity)), np.arange(len(queries))[rows]][:, None]
        better[rows] = (similarity > own + TIE).sum(axis=1)
        ties[rows] = (np.abs(similarity - own) <= TIE).sum(axis=1)
    return better, ties


def within_recordings(
    queries: Rows,
    gallery: Rows,
    times: Float64[np.ndarray, "n"],
    recordings: np.ndarray,
    groups: np.ndarray | None = None,
) -> InTime:
    """Which moment of its recording does this one belong to: row i seeks row i among the rows of
    its own recording.

    Args:
        queries: One vector a moment.
        gallery: The same moment in the other stream.
        times: Seconds of each moment.
        recordings: Which recording each moment is of.
        groups: What is resampled for intervals; recordings unless given.

    Raises:
        DataError: If no recording has two moments.
    """
    names, place = np.unique(recordings.astype(str), return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    hits, error = np.zeros(len(queries)), np.zeros(len(queries))
    chance, chance_error = np.zeros(len(queries)), np.zeros(len(queries))
    order = np.argsort(place, kind="stable")
    for rows in np.split(order, np.cumsum(counts)[:-1]):
        away = np.abs(times[rows][:, None] - times[rows])
        chance[rows], chance_error[rows] = 1 / len(rows), away.mean(axis=1)
        for part, similarity in _similarities(queries[rows], gallery[rows]):
            nearest = similarity >= similarity.max(axis=1, keepdims=True) - TIE
            share = nearest / nearest.sum(axis=1, keepdims=True)
            mine = np.arange(len(rows))[part]
            hits[rows[part]] = share[np.arange(len(mine)), mine]
            error[rows[part]] = (share * away[part]).sum(axis=1)
    asked = counts[place] > 1
    if not asked.any():
        raise DataError(
            f"None of the {len(names)} recordings has two moments to choose from: they are no "
            f"longer than a clip. Finding the right second takes longer recordings."
        )
    by = (recordings if groups is None else groups)[asked]
    return InTime(
        hits=Tally.of(hits[asked], by),
        chance=float(chance[asked].mean()),
        error=Tally.of(error[asked], by),
        chance_error=float(chance_error[asked].mean()),
        moments=int(asked.sum()),
        alone=int((counts == 1).sum()),
    )


def unit(vectors: Rows) -> Float64[np.ndarray, "n dim"]:
    """Rows of length 1, in float64; a zero row stays zero."""
    rows = vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1.0, lengths)


def _similarities(
    queries: Rows, gallery: Rows
) -> Iterator[tuple[slice, Float64[np.ndarray, "some n"]]]:
    """Cosines of the queries with all of the gallery, so many rows at a time as memory takes."""
    a, b = unit(queries), unit(gallery)
    step = max(1, SCORES_AT_ONCE // max(1, len(b)))
    for at in range(0, len(a), step):
        rows = slice(at, min(at + step, len(a)))
        yield rows, a[rows] @ b.T
