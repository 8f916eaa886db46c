import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import dtw
from mainspring.evaluate.dtw import dtw_distances, dtw_neighbour, learn_window, lower_bounds
from mainspring.evaluate.gaps import filled


def slow(a: np.ndarray, b: np.ndarray, window: int | None = None) -> float:
    """Cell after cell."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    table = np.full((len(a) + 1, len(b) + 1), np.inf)
    table[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            if window is None or abs(i - j) <= window:
                least = min(table[i, j], table[i, j + 1], table[i + 1, j])
                table[i + 1, j + 1] = ((a[i] - b[j]) ** 2).sum() + least
    return float(np.sqrt(table[-1, -1]))


def slow_matrix(a, b, window=None):
    return np.array([[slow(x, y, window) for y in b] for x in a])


def waves(seed: int, n: int, length: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of bumps, each somewhere else."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    at = rng.uniform(0.3, 0.7, size=(n, 1)) * length
    steps = np.arange(length)
    bump = np.exp(-(((steps - at) / 3) ** 2))
    dip = bump * np.sin(steps - at) * 2
    series = np.where(labels[:, None] == 0, bump, dip) + 0.1 * rng.normal(size=(n, length))
    return series, labels


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 10), st.integers(0, 2**31))
def test_windows_equal_the_slow_table(length, channels, window, seed) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(3, length, channels)), rng.normal(size=(4, length, channels))
    np.testing.assert_allclose(dtw_distances(a, b, window), slow_matrix(a, b, window))
    bound = np.sqrt(lower_bounds(filled(a), filled(b), window))
    assert (bound <= slow_matrix(a, b, window)).all()


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 2), st.integers(0, 2**31)
)
def test_unequal_lengths_equal_the_slow_table(lengths, channels, seed) -> None:
    rng = np.random.default_rng(seed)
    a = [rng.normal(size=(length, channels)) for length in lengths]
    b = [rng.normal(size=(length, channels)) for length in lengths[::-1][:3]]
    np.testing.assert_allclose(dtw_distances(a, b), slow_matrix(a, b))
    assert (np.sqrt(lower_bounds(filled(a), filled(b), None)) <= slow_matrix(a, b)).all()


def test_many_pairs_in_several_parts(monkeypatch) -> None:
    a, b = waves(0, 12)[0], waves(1, 9)[0]
    monkeypatch.setattr(dtw, "CELLS", 24 * 20)
    np.testing.assert_allclose(dtw_distances(a, b), slow_matrix(a, b))


def test_extremes() -> None:
    a, b = waves(0, 5)[0], waves(1, 6)[0]
    straight = np.sqrt(((a[:, None] - b) ** 2).sum(axis=2))
    np.testing.assert_allclose(dtw_distances(a, b, 0), straight)
    np.testing.assert_allclose(dtw_distances(a, b, 99), dtw_distances(a, b))
    stretched = np.repeat(a, 3, axis=1)
    np.testing.assert_allclose(np.diag(dtw_distances(a, stretched)), 0, atol=1e-7)


@pytest.mark.parametrize("window", [None, 0, 3])
def test_neighbours_are_those_of_all_distances(window) -> None:
    (train, labels), (test, truth) = waves(0, 12), waves(1, 15)
    found = dtw_neighbour(train, labels, test, truth, window, scale=False)
    distances = slow_matrix(test, train, window)
    np.testing.assert_array_equal(found.told, labels[distances.argmin(axis=1)])
    least = [distances[:, labels == kind].min(axis=1) for kind in (0, 1)]
    np.testing.assert_allclose(found.scores, -np.stack(least, axis=1))
    assert found.settings == {"window": window}


def test_warping_finds_what_moved() -> None:
    (train, labels), (test, truth) = waves(0, 10), waves(1, 60)
    warped = dtw_neighbour(train, labels, test, truth)
    straight = dtw_neighbour(train, labels, test, truth, 0)
    assert warped.accuracy > 0.95 > straight.accuracy


def test_bounds_spare_most_of_the_work(monkeypatch) -> None:
    (train, labels), (test, truth) = waves(0, 40), waves(1, 40)
    warped = []
    whole = dtw._warp
    monkeypatch.setattr(
        dtw, "_warp", lambda a, b, i, j, w: warped.append(len(i)) or whole(a, b, i, j, w)
    )
    dtw_neighbour(train, labels, test, truth, 2)
    assert sum(warped) < 40 * 40 / 2


@pytest.mark.parametrize("seed", range(4))
def test_learned_window_equals_leaving_one_out(seed: int) -> None:
    train, labels = waves(seed, 8, length=12)
    train[1] = train[0]  # equal distances: the first counts
    scores = {}
    for window in {12 * share // 100 for share in range(101)}:
        distances = slow_matrix(train, train, window)
        np.fill_diagonal(distances, np.inf)
        scores[window] = (labels[distances.argmin(axis=1)] == labels).sum()
    best = max(scores.values())
    smallest = min(window for window, score in scores.items() if score == best)
    assert learn_window(train, labels, scale=False) == smallest


def test_scale_and_level_of_each_series_may_not_count() -> None:
    (train, labels), (test, truth) = waves(0, 12), waves(1, 30)
    moved = test * np.random.default_rng(0).uniform(0.1, 9, (30, 1)) + 5
    plain = dtw_neighbour(train, labels, test, truth)
    np.testing.assert_allclose(dtw_neighbour(train, labels, moved, truth).scores, plain.scores)
    assert dtw_neighbour(train, labels, moved, truth, scale=False).accuracy < plain.accuracy


def test_missing_values_are_filled() -> None:
    (train, labels), (test, truth) = waves(0, 20), waves(1, 60)
    holes = np.where(np.random.default_rng(0).random(test.shape) < 0.2, np.nan, test)
    assert dtw_neighbour(train, labels, holes, truth).accuracy > 0.9


def test_what_cannot_be_compared() -> None:
    train, labels = waves(0, 6)
    with pytest.raises(ConfigError, match="one length"):
        dtw_neighbour(train, labels, train[:, :-3], labels, 2)
    with pytest.raises(ConfigError, match="not -1"):
        dtw_distances(train, train, -1)
    with pytest.raises(DataError, match="1 channels cannot be compared with series of 2"):
        dtw_distances(train, np.stack([train, train], axis=2))
    with pytest.raises(DataError, match="there are 1 series"):
        learn_window(train[:1], labels[:1])
