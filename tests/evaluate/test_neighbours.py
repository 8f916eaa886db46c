import numpy as np
import pytest

from mainspring.evaluate import neighbours
from mainspring.evaluate.neighbours import chance_of_hit, knn_accuracy, nearest, retrieval
from mainspring.evaluate.splits import grouped_folds


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = rng.choice(list("abc"), 60).astype(object)
    matrix = rng.normal(size=(60, 5)) + (labels == "a")[:, None] * rng.normal(size=5)
    return matrix.astype(np.float32), labels, rng.choice(12, 60).astype(str).astype(object)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_nearest_equals_a_slow_loop(data, rng, monkeypatch) -> None:
    gallery, _, groups = data
    queries = rng.normal(size=(17, 5)).astype(np.float32)
    asking = rng.choice(12, 17).astype(str)
    monkeypatch.setattr(neighbours, "SCORES_AT_ONCE", 200)  # several chunks
    for own in (False, True):
        index, score = nearest(queries, gallery, 6, *((asking, groups) if own else ()))
        for q, query in enumerate(queries):
            allowed = [n for n in range(60) if not own or groups[n] != asking[q]]
            expected = sorted(allowed, key=lambda n: -cosine(query, gallery[n]))[:6]
            assert index[q].tolist() == expected
            np.testing.assert_allclose(
                score[q], [cosine(query, gallery[n]) for n in expected], rtol=1e-5
            )


def test_nearest_where_there_are_too_few(rng) -> None:
    gallery = rng.normal(size=(3, 4)).astype(np.float32)
    groups = np.array(["x", "y", "x"])
    index, score = nearest(gallery, gallery, 5, groups, groups)
    assert index[0].tolist() == [1, -1, -1, -1, -1]
    assert np.isneginf(score[0, 1:]).all()
    assert sorted(index[1, :2]) == [0, 2]


def test_zero_vectors_are_near_nothing() -> None:
    gallery = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    index, score = nearest(np.array([[2, 0]], np.float32), gallery, 3)
    assert index.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(score, [[1, 0, -1]])


def test_knn_equals_a_slow_loop(data) -> None:
    matrix, labels, groups = data
    for k, accuracy in knn_accuracy(matrix, labels, groups, ks=(1, 4, 20)).items():
        right = 0
        for n in range(60):
            others = [m for m in range(60) if groups[m] != groups[n]]
            near = sorted(others, key=lambda m: -cosine(matrix[n], matrix[m]))[:k]
            votes = {
                c: (
                    sum(labels[m] == c for m in near),
                    sum(cosine(matrix[n], matrix[m]) for m in near if labels[m] == c),
                )
                for c in "abc"
            }
            right += max(votes, key=votes.get) == labels[n]
        assert accuracy == pytest.approx(right / 60)


def test_knn_never_asks_its_own_group(rng) -> None:
    """Two windows a recording, alike as twins, with labels at random."""
    matrix = rng.normal(size=(200, 8)).astype(np.float32).repeat(2, axis=0)
    labels = rng.choice(["a", "b"], 200).astype(object).repeat(2)
    alone = np.arange(400).astype(str)
    pairs = (np.arange(400) // 2).astype(str)
    assert knn_accuracy(matrix, labels, alone, ks=(1,))[1] == 1
    assert knn_accuracy(matrix, labels, pairs, ks=(1,))[1] < 0.65


def test_rows_without_a_label_neither_ask_nor_answer(data) -> None:
    matrix, labels, groups = data
    some = labels.copy()
    some[::3] = None
    there = np.arange(60) % 3 != 0
    assert knn_accuracy(matrix, some, groups) == knn_accuracy(
        matrix[there], labels[there], groups[there]
    )


def test_retrieval_equals_a_slow_loop(data) -> None:
    matrix, labels, groups = data
    found = retrieval(matrix, labels, groups, ks=(1, 5), folds=4, seed=3)
    folds = grouped_folds(labels, groups, 4, np.random.default_rng(3))
    for k in (1, 5):
        hits = 0
        for gallery, queries in folds:
            for q in queries:
                near = sorted(gallery, key=lambda n: -cosine(matrix[q], matrix[n]))[:k]
                hits += any(labels[n] == labels[q] for n in near)
        assert found.values[k] == pytest.approx(hits / 60)
        assert found.tallies[k].mean == pytest.approx(hits / 60)


def test_retrieval_leaves_rows_without_a_label_out(data) -> None:
    matrix, labels, groups = data
    some = labels.copy()
    some[::3] = None
    there = np.arange(60) % 3 != 0
    found = retrieval(matrix, some, groups)
    alone = retrieval(matrix[there], labels[there], groups[there])
    assert (found.values, found.chance) == (alone.values, alone.chance)


def test_a_gallery_smaller_than_k_holds_no_more_than_there_is() -> None:
    labels, groups = np.array(list("aab"), object), np.array(list("xyz"), object)
    found = retrieval(np.eye(3, dtype=np.float32) + 1, labels, groups, ks=(1, 9), folds=3)
    assert found.values[9] == found.chance[9] == pytest.approx(2 / 3)


def test_chance_of_retrieval_is_what_noise_gives(rng) -> None:
    labels = rng.choice(list("abcd"), 400, p=[0.4, 0.3, 0.2, 0.1]).astype(object)
    groups = (np.arange(400) // 2).astype(str)
    found = [
        retrieval(rng.normal(size=(400, 64)).astype(np.float32), labels, groups) for _ in range(5)
    ]
    for k in (1, 5):
        assert np.mean([f.values[k] for f in found]) == pytest.approx(found[0].chance[k], abs=0.03)


def test_chance_of_hit_by_counting() -> None:
    matching = np.array([0, 1, 3, 10])
    np.testing.assert_allclose(chance_of_hit(10, matching, 1), matching / 10)
    # 3 of 10 match, 2 drawn: 1 - (7/10)(6/9)
    assert chance_of_hit(10, matching, 2)[2] == pytest.approx(1 - 42 / 90)
    np.testing.assert_allclose(chance_of_hit(10, matching, 99), [0, 1, 1, 1])
