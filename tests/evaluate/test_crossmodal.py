"""Retrieval across streams, against loops and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.evaluate import crossmodal
from mainspring.evaluate.crossmodal import cross_retrieval, places, within_recordings


def rows(seed: int, count: int, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def slow_ranks(queries: np.ndarray, gallery: np.ndarray) -> list[int]:
    ranks = []
    for i, query in enumerate(queries):
        mine = cosine(query, gallery[i])
        ranks.append(1 + sum(cosine(query, other) > mine for other in gallery))
    return ranks


def test_both_ways_equal_the_loop() -> None:
    queries = rows(0, 40)
    gallery = queries + 1.5 * rows(1, 40)
    found = cross_retrieval(queries, gallery, ks=(1, 5, 10))
    for way, ranks in (
        (found.there, slow_ranks(queries, gallery)),
        (found.back, slow_ranks(gallery, queries)),
    ):
        for k in (1, 5, 10):
            assert way.recall.values[k] == pytest.approx(np.mean([rank <= k for rank in ranks]))
            assert way.recall.chance[k] == pytest.approx(k / 40)
        assert way.rank == np.median(ranks)
        assert way.chance_rank == 20.5
    assert 0 < found.there.recall.values[1] < 1
    assert found.there.rank != found.back.rank or found.there.recall != found.back.recall


def test_in_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = rows(0, 23), rows(1, 23)
    whole = places(queries, gallery)
    monkeypatch.setattr(crossmodal, "SCORES_AT_ONCE", 5 * 23)
    for one, other in zip(places(queries, gallery), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_length_of_vectors_does_not_matter() -> None:
    queries, gallery = rows(0, 12), rows(1, 12)
    scale = np.random.default_rng(2).uniform(0.1, 9, (12, 1)).astype(np.float32)
    a, b = cross_retrieval(queries, gallery), cross_retrieval(queries * scale, gallery * scale)
    assert a.there.recall.values == b.there.recall.values
    assert a.back.rank == b.back.rank


@pytest.mark.parametrize("point", [0.0, 1.0])
def test_one_point_for_all_is_chance(point: float) -> None:
    same, nearly = (point + 1e-6 * point * rows(seed, 20, 7) for seed in (0, 1))
    found = cross_retrieval(same, nearly)
    for k in (1, 5, 10):
        assert found.there.recall.values[k] == pytest.approx(k / 20)
    assert found.there.rank == found.there.chance_rank == 10.5


def test_a_tie_is_worth_what_a_random_order_of_it_gives() -> None:
    # Pairs 0 to 3 are one point, pair 4 is apart: each of the four is at places 1 to 4.
    both = np.array([[1, 0]] * 4 + [[0, 1]], np.float32)
    found = cross_retrieval(both, both, ks=(1, 2, 5))
    assert found.there.recall.values[1] == pytest.approx((4 * 1 / 4 + 1) / 5)
    assert found.there.recall.values[2] == pytest.approx((4 * 2 / 4 + 1) / 5)
    assert found.there.recall.values[5] == 1
    assert found.there.rank == 2.5


def test_perfect_and_random_embeddings() -> None:
    vectors = rows(0, 400, 64)
    perfect = cross_retrieval(vectors, vectors)
    assert perfect.there.recall.values[1] == 1
    assert perfect.there.rank == 1
    random = cross_retrieval(vectors, rows(1, 400, 64))
    low, high = random.there.to_dict(np.random.default_rng(0))["recall"][10]["interval"]
    assert low <= 10 / 400 <= high
    assert abs(random.there.rank - 200.5) < 30


def test_hits_are_kept_by_group() -> None:
    queries, groups = rows(0, 6), np.array(["a", "a", "b", "b", "b", "c"])
    gallery = queries.copy()
    gallery[[0, 1]] = gallery[[1, 0]]
    tally = cross_retrieval(queries, gallery, groups=groups).there.recall.tallies[1]
    np.testing.assert_array_equal(tally.groups, ["a", "b", "c"])
    np.testing.assert_array_equal(tally.correct, [0, 3, 1])
    np.testing.assert_array_equal(tally.total, [2, 3, 1])


def test_one_pair_cannot_be_confused() -> None:
    with pytest.raises(DataError, match="2 recordings that have both streams, but there are 1"):
        cross_retrieval(rows(0, 1), rows(0, 1))


def test_which_second_equals_the_loop() -> None:
    generator = np.random.default_rng(3)
    queries, gallery = rows(4, 30), rows(5, 30)
    gallery[:15] = queries[:15] + gallery[:15]
    recordings = generator.integers(0, 5, 30)
    recordings[-1] = 9  # alone
    times = generator.uniform(0, 60, 30)
    hits, chance, error, chance_error = [], [], [], []
    for i in range(30):
        mine = [j for j in range(30) if recordings[j] == recordings[i]]
        if len(mine) < 2:
            continue
        best = max(mine, key=lambda j: cosine(queries[i], gallery[j]))
        hits.append(best == i)
        chance.append(1 / len(mine))
        error.append(abs(times[best] - times[i]))
        chance_error.append(np.mean([abs(times[j] - times[i]) for j in mine]))
    found = within_recordings(queries, gallery, times, recordings)
    assert found.hits.mean == pytest.approx(np.mean(hits))
    assert found.chance == pytest.approx(np.mean(chance))
    assert found.error.mean == pytest.approx(np.mean(error))
    assert found.chance_error == pytest.approx(np.mean(chance_error))
    assert (found.moments, found.alone) == (29, 1)


def test_other_recordings_have_no_influence() -> None:
    queries, gallery = rows(0, 12), rows(1, 12)
    times, recordings = np.arange(12.0), np.repeat([0, 1], 6)
    one = within_recordings(queries[:6], gallery[:6], times[:6], recordings[:6])
    gallery[6:] = queries[:6]
    both = within_recordings(queries, gallery, times, recordings)
    assert both.hits.correct[0] == one.hits.correct[0]
    assert both.error.correct[0] == one.error.correct[0]


def test_features_that_do_not_change_with_time_are_chance() -> None:
    recordings, times = np.repeat([0, 1, 2], 5), np.tile(np.arange(5.0), 3)
    same = rows(0, 3)[recordings]
    for nearly in (same, same * (1 + 1e-6 * rows(1, 15))):
        found = within_recordings(same, nearly, times, recordings)
        assert found.hits.mean == pytest.approx(found.chance) == pytest.approx(0.2)
        assert found.error.mean == pytest.approx(found.chance_error)


def test_seconds_are_kept_by_group() -> None:
    vectors, times = rows(0, 8), np.tile([0.0, 3.0], 4)
    recordings, groups = np.repeat([0, 1, 2, 3], 2), np.repeat(["a", "b", "a", "b"], 2)
    swapped = vectors.reshape(4, 2, -1)[:, ::-1].reshape(8, -1)
    gallery = np.where(groups[:, None] == "a", swapped, vectors)
    found = within_recordings(vectors, gallery, times, recordings, groups)
    for tally, expected in ((found.hits, [0, 4]), (found.error, [12, 0])):
        np.testing.assert_array_equal(tally.groups, ["a", "b"])
        np.testing.assert_array_equal(tally.correct, expected)
        np.testing.assert_array_equal(tally.total, [4, 4])


def test_the_right_second_has_no_error() -> None:
    vectors, recordings = rows(0, 10), np.repeat([0, 1], 5)
    found = within_recordings(vectors, vectors, np.arange(10.0), recordings)
    assert (found.hits.mean, found.error.mean) == (1, 0)
    said = found.to_dict(np.random.default_rng(0))
    assert said["recall"] == {"value": 1, "chance": 0.2, "interval": (1, 1)}
    assert said["error_seconds"]["chance"] == pytest.approx(1.6)


def test_recordings_of_one_moment_have_nothing_to_choose_from() -> None:
    with pytest.raises(DataError, match="None of the 4 recordings has two moments"):
        within_recordings(rows(0, 4), rows(1, 4), np.arange(4.0), np.arange(4))
