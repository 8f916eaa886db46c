"""What lies near what: exact nearest neighbours, kNN accuracy and retrieval, by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from mainspring.evaluate.intervals import Tally
from mainspring.evaluate.splits import grouped_folds
from mainspring.evaluate.vectors import known

SCORES_AT_ONCE = 32 * 2**20
"""Similarities held at a time (128 MiB as float32), so that a million windows fit."""

Matrix = Float32[np.ndarray, "n dim"]


@dataclass(frozen=True)
class Recall:
    """R@k: the share of queries with an item of their own label among the k nearest.

    Attributes:
        values: For each k the share.
        chance: For each k what a random order of the gallery would give.
        tallies: For each k the hits by group, for intervals and comparisons.
    """

    values: dict[int, float]
    chance: dict[int, float]
    tallies: dict[int, Tally]


def nearest(
    queries: Float32[np.ndarray, "q dim"],
    gallery: Float32[np.ndarray, "n dim"],
    k: int,
    query_groups: np.ndarray | None = None,
    gallery_groups: np.ndarray | None = None,
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """The k rows of the gallery nearest to each query by cosine, nearest first.

    Args:
        queries: Any vectors; a zero vector has similarity 0 to all.
        gallery: Any vectors.
        k: Neighbours a query.
        query_groups: With `gallery_groups`: rows of a query's own group are no neighbours.
        gallery_groups: Group of each row of the gallery.

    Returns:
        Indices into the gallery and similarities; -1 and -inf where there are fewer than k.
        Of those returned, equal similarities are ordered by index.
    """
    own = query_groups is not None and gallery_groups is not None
    if own:
        codes = np.unique(
            np.concatenate([query_groups, gallery_groups]).astype(str), return_inverse=True
        )[1]
        query_codes, gallery_codes = codes[: len(queries)], codes[len(queries) :]
    found = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    norms = _norms(gallery)
    taken = min(k, len(gallery))
    step = max(1, SCORES_AT_ONCE // max(1, len(gallery)))
    for at in range(0, len(queries), step):
        part = queries[at : at + step]
        similarity = (part / _norms(part)[:, None]) @ gallery.T
        similarity /= norms
        if own:
            similarity[query_codes[at : at + step, None] == gallery_codes] = -np.inf
        index, value = _largest(similarity, taken)
        found[at : at + step, :taken] = np.where(np.isneginf(value), -1, index)
        scores[at : at + step, :taken] = value
    return found, scores


def knn_accuracy(
    matrix: Matrix, labels: np.ndarray, across: np.ndarray, ks: Sequence[int] = (1, 5, 20)
) -> dict[int, float]:
    """Accuracy of the vote of the k nearest rows, of which none is of the row's own group.

    The most votes win; equal votes go to the class with the larger sum of similarities.

    Args:
        matrix: One vector a row.
        labels: Class of each row; rows without (None) neither ask nor answer.
        across: Group of each row.
        ks: Numbers of neighbours.
    """
    there = known(labels)
    matrix, across = matrix[there], across[there]
    classes, codes = np.unique(labels[there].astype(str), return_inverse=True)
    index, similarity = nearest(matrix, matrix, max(ks), across, across)
    accuracy = {}
    for k in ks:
        votes = np.zeros((len(matrix), len(classes)))
        for place in range(k):
            asked = np.flatnonzero(index[:, place] >= 0)
            said = codes[index[asked, place]]
            # A similarity of at most 1 in size, over 4k: k of them never outweigh one vote.
            votes[asked, said] += 1 + similarity[asked, place] / (4 * k)
        accuracy[k] = float((votes.argmax(axis=1) == codes).mean())
    return accuracy


def retrieval(
    matrix: Matrix,
    labels: np.ndarray,
    groups: np.ndarray,
    ks: Sequence[int] = (1, 5),
    folds: int = 5,
    seed: int = 0,
) -> Recall:
    """R@k with test groups as queries and train groups as gallery, each row asking once.

    The usual protocol of video retrieval (queries from the test split, gallery from the train
    split: Xu et al., "Self-supervised spatiotemporal learning via video clip order prediction",
    CVPR 2019, Section 4.3), over the folds of a grouped split in place of one fixed split.

    Raises:
        DataError: If there are fewer than two groups.
    """
    there = known(labels)
    matrix, labels, groups = matrix[there], labels[there].astype(str), groups[there]
    hits = {k: np.zeros(len(matrix)) for k in ks}
    chance = {k: np.zeros(len(matrix)) for k in ks}
    for gallery, queries in grouped_folds(labels, groups, folds, np.random.default_rng(seed)):
        index, _ = nearest(matrix[queries], matrix[gallery], max(ks))
        # Where the gallery has fewer than k rows, -1 is its last row once more.
        same = labels[gallery][index] == labels[queries][:, None]
        matching = (labels[gallery] == labels[queries][:, None]).sum(axis=1)
        for k in ks:
            hits[k][queries] = same[:, :k].any(axis=1)
            chance[k][queries] = chance_of_hit(len(gallery), matching, k)
    return Recall(
        values={k: float(hits[k].mean()) for k in ks},
        chance={k: float(chance[k].mean()) for k in ks},
        tallies={k: Tally.of(hits[k], groups) for k in ks},
    )


def chance_of_hit(size: int, matching: Int64[np.ndarray, "q"], k: int) -> Float64[np.ndarray, "q"]:
    """Probability that k rows drawn from `size` hold at least one of the `matching` ones."""
    miss = np.ones(len(matching))
    for drawn in range(min(k, size)):
        miss *= np.maximum(size - matching - drawn, 0) / (size - drawn)
    return 1 - miss


def _norms(matrix: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n"]:
    """Length of each row, 1 for a zero row."""
    lengths = np.sqrt(np.einsum("nd,nd->n", matrix, matrix))
    return np.where(lengths == 0, np.float32(1), lengths)


def _largest(scores: Float32[np.ndarray, "q n"], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values of the k largest in each row, in order, equal ones by index."""
    if k < scores.shape[1]:
        near = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    else:
        near = np.broadcast_to(np.arange(k), (len(scores), k))
    values = np.take_along_axis(scores, near, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(values, order, axis=1)
