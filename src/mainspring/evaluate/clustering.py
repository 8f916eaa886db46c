"""Do clusters of vectors agree with a label that was never used?

found = cluster(vectors, labels)
found.nmi, found.chance["nmi"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.vectors import known

STARTS = 10
"""Starts of k-means, of which the tightest clustering is kept."""

SILHOUETTE_ROWS = 2_000
"""Rows on which silhouettes are measured, at most (they need all distances)."""

MOST = 10


@dataclass(frozen=True)
class Clustering:
    """Clusters, and how they agree with labels.

    Attributes:
        assigned: Cluster of each row.
        k: Number of clusters.
        silhouette: Mean silhouette (Rousseeuw 1987), from -1 to 1; of one cluster 0.
        nmi: Normalised mutual information of clusters and labels (arithmetic mean of entropies).
        ari: Adjusted Rand index (Hubert & Arabie 1985), 0 by chance.
        purity: Share of rows that are of the commonest class of their cluster.
        chance: The same three of the same clusters with rows at random, means over draws.
        rows: Rows with a label, on which they are measured.
    """

    assigned: Int64[np.ndarray, "n"]
    k: int
    silhouette: float
    nmi: float | None = None
    ari: float | None = None
    purity: float | None = None
    chance: dict[str, float] | None = None
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the rows' clusters."""
        return {name: value for name, value in asdict(self).items() if name != "assigned"}


def cluster(
    matrix: Float[np.ndarray, "n dim"],
    labels: np.ndarray | None = None,
    k: int | None = None,
    ks: Sequence[int] = tuple(range(2, MOST + 1)),
    seed: int = 0,
    draws: int = 20,
) -> Clustering:
    """k-means on vectors as they are, and its agreement with labels beside chance.

    Purity grows with the number of clusters whatever they are, and so does mutual information:
    read both beside `chance`.

    Args:
        matrix: One vector a row; scale or standardise before where that matters.
        labels: Class of each row, None where unknown; used after clustering only.
        k: Number of clusters; unless given, the one of `ks` with the best silhouette, which takes
            no label.
        ks: Tried when k is not given; more than the distinct rows less one are left out.
        seed: Of k-means, of the rows that silhouettes are measured on and of chance.
        draws: Random orders for `chance`.

    Raises:
        ConfigError: If k is not between 1 and the number of distinct rows.
        DataError: If vectors are not finite, or fewer than three differ and k is not given.
    """
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(matrix)} vectors hold NaN or infinity; leave them out.")
    distinct = len(np.unique(matrix, axis=0))
    if k is not None:
        if not 1 <= k <= distinct:
            raise ConfigError(f"k must lie between 1 and {distinct} (distinct rows), not {k}.")
        assigned = _kmeans(matrix, k, seed)
        return _compare(assigned, _silhouette(matrix, assigned, seed), labels, seed, draws)
    tried = [each for each in ks if 2 <= each < distinct]
    if not tried:
        raise DataError(
            f"None of {tuple(ks)} clusters can be told apart by silhouette in {distinct} distinct "
            f"rows; give k, or more rows."
        )
    clusterings = [_kmeans(matrix, each, seed) for each in tried]
    scores = [_silhouette(matrix, each, seed) for each in clusterings]
    best = int(np.argmax(scores))
    return _compare(clusterings[best], scores[best], labels, seed, draws)


def purity(assigned: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows that are of the commonest class of their cluster."""
    clusters = np.unique(assigned, return_inverse=True)[1]
    classes = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((clusters.max() + 1, classes.max() + 1))
    np.add.at(table, (clusters, classes), 1)
    return float(table.max(axis=1).sum() / len(labels))


def agreement(assigned: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Normalised mutual information, adjusted Rand index and purity."""
    return {
        "nmi": float(normalized_mutual_info_score(labels, assigned)),
        "ari": float(adjusted_rand_score(labels, assigned)),
        "purity": purity(assigned, labels),
    }


def _kmeans(matrix: np.ndarray, k: int, seed: int) -> Int64[np.ndarray, "n"]:
    model = KMeans(k, n_init=STARTS, random_state=seed)
    return model.fit_predict(_centred(matrix)).astype(np.int64)


def _centred(matrix: np.ndarray) -> Float64[np.ndarray, "n dim"]:
    """In double precision about the mean, where distances lose no digits."""
    return matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)


def _silhouette(matrix: np.ndarray, assigned: np.ndarray, seed: int) -> float:
    some = np.random.default_rng(seed).permutation(len(matrix))[:SILHOUETTE_ROWS]
    if not 2 <= len(np.unique(assigned[some])) < len(some):
        return 0.0
    return float(silhouette_score(_centred(matrix)[some], assigned[some]))


def _compare(
    assigned: np.ndarray, silhouette: float, labels: np.ndarray | None, seed: int, draws: int
) -> Clustering:
    k = len(np.unique(assigned))
    there = np.zeros(len(assigned), bool) if labels is None else known(labels)
    if labels is None or not there.any():
        return Clustering(assigned, k, silhouette)
    told, truth = assigned[there], labels[there].astype(str)
    rng = np.random.default_rng(seed)
    lucky = [agreement(rng.permutation(told), truth) for _ in range(draws)]
    chance = {name: float(np.mean([luck[name] for luck in lucky])) for name in lucky[0]}
    return Clustering(
        assigned, k, silhouette, **agreement(told, truth), chance=chance, rows=int(there.sum())
    )
