import json

import numpy as np
import pytest

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.clustering import agreement, cluster, purity


def blobs(seed: int = 0, n: int = 150, k: int = 3, noise: float = 0.4, shift: float = 0.0):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(k, size=n)
    matrix = 3 * np.eye(k)[kinds] + noise * rng.normal(size=(n, k)) + shift
    return matrix.astype(np.float32), np.array(["a", "b", "c", "d"], object)[kinds]


def test_clusters_that_are_there_are_found_and_counted() -> None:
    matrix, labels = blobs()
    found = cluster(matrix, labels)
    assert found.k == 3
    assert found.silhouette > 0.5
    for name in ("nmi", "ari", "purity"):
        assert getattr(found, name) > 0.95 > found.chance[name]
    assert abs(found.chance["ari"]) < 0.03
    assert found.rows == 150
    assert cluster(*blobs(k=4)).k == 4
    json.dumps(found.to_dict())


def test_noise_agrees_as_chance_does() -> None:
    rng = np.random.default_rng(0)
    found = cluster(rng.normal(size=(300, 4)), rng.choice(["x", "y"], 300).astype(object), k=5)
    for name, luck in found.chance.items():
        assert getattr(found, name) == pytest.approx(luck, abs=0.05)
    assert found.k == 5


def test_purity_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    assigned, labels = rng.integers(4, size=80), rng.choice(list("abc"), 80)
    right = 0
    for one in range(4):
        inside = labels[assigned == one].tolist()
        right += max(inside.count(name) for name in "abc")
    assert purity(assigned, labels) == right / 80


def test_agreement_does_not_care_for_names() -> None:
    labels = np.array(list("aabbcc"))
    assert agreement(np.array([7, 7, 0, 0, 3, 3]), labels) == pytest.approx(
        {"nmi": 1, "ari": 1, "purity": 1}
    )
    alone = agreement(np.zeros(6, int), labels)
    assert alone == pytest.approx({"nmi": 0, "ari": 0, "purity": 1 / 3})


def test_rows_without_a_label_are_clustered_and_not_compared() -> None:
    matrix, labels = blobs()
    some = labels.copy()
    some[::2] = None
    found, whole = cluster(matrix, some, k=3), cluster(matrix, labels, k=3)
    np.testing.assert_array_equal(found.assigned, whole.assigned)
    assert found.rows == 75
    for name, value in agreement(found.assigned[1::2], labels[1::2]).items():
        assert getattr(found, name) == value > 0.9 > found.chance[name]
    bare = cluster(matrix, k=3)
    assert (bare.nmi, bare.rows) == (None, 0)
    assert bare.silhouette == whole.silhouette


def test_seeds_and_far_away_clusters() -> None:
    matrix, labels = blobs()
    np.testing.assert_array_equal(
        cluster(matrix, seed=1).assigned, cluster(matrix, seed=1).assigned
    )
    far, _ = blobs(shift=1000.0)
    assert cluster(far, labels).nmi > 0.95


def test_what_cannot_be_clustered() -> None:
    matrix, _ = blobs()
    with pytest.raises(ConfigError, match="between 1 and 2"):
        cluster(np.repeat(matrix[:2], 5, axis=0), k=3)
    with pytest.raises(DataError, match="2 distinct rows"):
        cluster(np.repeat(matrix[:2], 5, axis=0))
    matrix[4, 1] = np.nan
    with pytest.raises(DataError, match="1 of 150 vectors"):
        cluster(matrix)
    assert cluster(matrix[:1], k=1).silhouette == 0
