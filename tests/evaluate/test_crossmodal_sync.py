"""Accuracy against offset, and spread over time."""

from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.evaluate.spread import spread
from mainspring.evaluate.sync import sync

OFFSETS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def noisy(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.exp(-np.abs(OFFSETS)) + rng.normal(0, 0.4, (count, 5))
    scores[rng.random((count, 5)) < 0.2] = np.nan
    scores[:, 2] = np.where(np.isnan(scores[:, 2]), 0.5, scores[:, 2])
    return scores, np.arange(count) // 3


@pytest.mark.parametrize("threshold", [None, 0.7])
def test_accuracy_equals_the_loop(threshold: float | None) -> None:
    scores, groups = noisy(0)
    found = sync(scores, OFFSETS, groups, threshold)
    for size, columns in ((0.5, (1, 3)), (1.0, (0, 4))):
        right = []
        for row in scores:
            for column in columns:
                if np.isnan(row[column]):
                    continue
                if threshold is None:
                    right.append(float(row[2] > row[column]))
                else:
                    right.append(np.mean([row[2] >= threshold, row[column] < threshold]))
        assert found.accuracy[size].mean == pytest.approx(np.mean(right))
        assert found.accuracy[size].total.sum() == len(right)
    assert found.accuracy[1.0].mean > found.accuracy[0.5].mean > 0.5


def test_the_best_of_all_offsets_equals_the_loop() -> None:
    scores, groups = noisy(1)
    best, chance, error, chance_error = [], [], [], []
    for row in scores:
        there = [j for j in range(5) if not np.isnan(row[j])]
        top = max(there, key=lambda j: row[j])
        best.append(top == 2)
        error.append(abs(OFFSETS[top]))
        chance.append(1 / len(there))
        chance_error.append(np.mean([abs(OFFSETS[j]) for j in there]))
    found = sync(scores, OFFSETS, groups)
    assert found.best.mean == pytest.approx(np.mean(best))
    assert found.best_chance == pytest.approx(np.mean(chance))
    assert found.error.mean == pytest.approx(np.mean(error))
    assert found.chance_error == pytest.approx(np.mean(chance_error))


def test_offsets_of_half_a_second_and_more_are_pooled_pair_by_pair() -> None:
    scores, groups = noisy(2)
    found = sync(scores, OFFSETS, groups)
    pooled = found.at_least(0.5)
    pairs = [(row[2] > row[j]) for row in scores for j in (0, 1, 3, 4) if not np.isnan(row[j])]
    assert pooled.mean == pytest.approx(np.mean(pairs))
    np.testing.assert_array_equal(found.at_least(1.0).correct, found.accuracy[1.0].correct)
    with pytest.raises(DataError, match=r"No offset is 2 s or more: there are 0.5, 1 s"):
        found.at_least(2.0)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_score_that_knows_nothing_is_chance(threshold: float | None) -> None:
    found = sync(np.full((8, 5), 0.6), OFFSETS, np.arange(8), threshold)
    assert {size: tally.mean for size, tally in found.accuracy.items()} == {0.5: 0.5, 1.0: 0.5}
    assert found.best.mean == found.best_chance == pytest.approx(0.2)
    assert found.error.mean == pytest.approx(found.chance_error) == pytest.approx(0.6)


def test_a_perfect_score() -> None:
    found = sync(np.tile(-np.abs(OFFSETS), (4, 1)), OFFSETS, np.arange(4))
    said = found.to_dict(np.random.default_rng(0))
    assert said["accuracy"]["0.5"] == {"value": 1, "chance": 0.5, "interval": (1, 1)}
    assert said["best"]["value"] == 1
    assert said["error_seconds"]["value"] == 0


def test_offsets_without_zero_and_rows_without_a_true_pair() -> None:
    with pytest.raises(DataError, match=r"offset 0 once and others beside it, not 0.5, 1"):
        sync(np.zeros((2, 2)), np.array([0.5, 1.0]), np.arange(2))
    scores = np.zeros((3, 5))
    scores[1, 2] = np.nan
    with pytest.raises(DataError, match="1 of 3 rows have no score at offset 0"):
        sync(scores, OFFSETS, np.arange(3))


def test_spread_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((23, 5)).astype(np.float32)
    recordings = np.sort(rng.integers(0, 4, 23))
    normal = features / np.linalg.norm(features, axis=1, keepdims=True)
    each = []
    for name in range(4):
        mine = normal[recordings == name]
        total = 0.0
        for d in range(5):
            mean = mine[:, d].sum() / len(mine)
            total += (((mine[:, d] - mean) ** 2).sum() / (len(mine) - 1)) ** 0.5
        each.append(total / 5)
    order = rng.permutation(23)
    first = [normal[order][recordings[order] == name][0] for name in range(4)]
    groups = np.array(["b", "a", "b", "b"])
    found = spread(features[order], recordings[order], groups[recordings[order]])
    assert found.within.mean == pytest.approx(np.mean(each), rel=1e-5)
    assert found.within.groups.tolist() == ["a", "b"]
    assert found.within.correct == pytest.approx([each[1], sum(each) - each[1]], rel=1e-5)
    assert found.between == pytest.approx(np.std(first, axis=0, ddof=1).mean(), rel=1e-5)
    assert found.even == pytest.approx(5**-0.5)
    assert found.recordings == 4


def test_spread_of_ten_shifts_tells_still_features_from_moving_ones() -> None:
    rng = np.random.default_rng(1)
    recordings = np.repeat(np.arange(40), 10)
    still = rng.standard_normal((40, 32)).astype(np.float32)[recordings]
    moving = rng.standard_normal((400, 32)).astype(np.float32)
    a, b = spread(still * 3, recordings), spread(moving, recordings)
    assert a.within.mean == pytest.approx(0, abs=1e-7)
    assert a.between == pytest.approx(b.within.mean, rel=0.1)
    assert b.within.mean == pytest.approx(b.even, rel=0.05)


def test_spread_needs_two_clips_of_something() -> None:
    features = np.eye(3, dtype=np.float32)
    assert spread(features, np.array([0, 0, 1])).recordings == 1
    with pytest.raises(DataError, match="None of the 3 recordings has two clips"):
        spread(features, np.arange(3))
