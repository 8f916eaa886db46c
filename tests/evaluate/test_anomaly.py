import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.anomaly import (
    adjusted,
    detect,
    detect_cold,
    masking_errors,
    on_grid,
    point_adjusted,
    prepare,
    score,
    suppressed,
)

BITS = st.lists(st.booleans(), min_size=1, max_size=60)


def slow_adjusted(errors):
    found = []
    for t in range(len(errors)):
        before = errors[t - 21 : t] if t >= 21 else []
        found.append((errors[t] - np.mean(before)) / np.mean(before) if len(before) else np.nan)
    return np.array(found)


def slow_suppressed(hits, delay: int):
    found = list(hits)
    for t in range(len(found)):
        if t >= delay and any(found[t - delay : t]):
            found[t] = False
    return found


def slow_point_adjusted(hits, labels, delay: int):
    found, t = list(hits), 0
    while t < len(labels):
        if not labels[t]:
            t += 1
            continue
        end = t
        while end < len(labels) and labels[end]:
            end += 1
        seen = any(hits[s] for s in range(t, end) if s <= t + delay)
        found[t:end] = [seen] * (end - t)
        t = end
    return found


def errors_with(places, length: int = 400, seed: int = 0):
    errors = np.random.default_rng(seed).uniform(1, 2, size=length)
    errors[places] *= 20
    return errors


def test_adjusted_equals_a_slow_loop() -> None:
    errors = errors_with([50, 200])
    np.testing.assert_allclose(adjusted(errors), slow_adjusted(errors))
    assert np.isnan(adjusted(errors[:21])).all()
    np.testing.assert_allclose(adjusted(errors * 7), adjusted(errors))


@given(BITS, st.integers(0, 9))
def test_suppressed_equals_a_slow_loop(hits, delay: int) -> None:
    assert suppressed(np.array(hits), delay).tolist() == slow_suppressed(hits, delay)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.integers(0, 9)
)
def test_point_adjusted_equals_a_slow_loop(both, delay: int) -> None:
    hits, labels = (list(part) for part in zip(*both, strict=True))
    found = point_adjusted(np.array(hits), np.array(labels), delay)
    assert found.tolist() == slow_point_adjusted(hits, labels, delay)


def test_detect_equals_the_protocol_step_by_step() -> None:
    errors = errors_with([250, 252, 259, 330])
    relative = slow_adjusted(errors)
    seen = relative[22:200]
    threshold = seen.mean() + 4 * seen.std()
    expected = slow_suppressed((relative[200:] > threshold).tolist(), 7)
    found = detect(errors, 200, delay=7)
    assert found.tolist() == expected
    assert np.flatnonzero(found).tolist() == [50, 59, 130], "the hit at 252 follows another"


@pytest.mark.parametrize("delay", [3, 7])
def test_cold_equals_the_protocol_step_by_step(delay: int) -> None:
    errors = errors_with([50, 100, 104, 300], 400, seed=1)
    relative = slow_adjusted(errors)
    hits = []
    for t in range(400):
        seen = relative[: t + 1]
        seen = seen[~np.isnan(seen)]
        hits.append(
            bool(len(seen) >= 40 and not np.isnan(relative[t])
                 and relative[t] > seen.mean() + 4 * seen.std())
        )  # fmt: skip
    expected = slow_suppressed(hits, delay)[40:]
    found = detect_cold(errors, delay)
    assert found.tolist() == expected
    assert found[300 - 40]
    assert not found[50 - 40], "too little was seen"


def test_errors_that_come_out_of_nothing_are_reported() -> None:
    errors = np.concatenate([errors_with([], 100), np.zeros(60), [5.0], np.zeros(30)])
    assert np.flatnonzero(detect(errors, 100, 3)).tolist() == [60]
    assert 160 - len(errors) // 10 in np.flatnonzero(detect_cold(errors, 3))


def test_after_a_train_part_without_errors_what_comes_out_of_nothing_is_reported() -> None:
    errors = np.zeros(200)
    errors[150:153] = 5, 1, 2
    assert np.flatnonzero(detect(errors, 100, 0)).tolist() == [50]
    with pytest.raises(DataError, match="train has 23"):
        detect(errors, 23, 3)


def test_missing_timestamps_are_normal() -> None:
    times = np.array([60, 0, 180, 120, 360])
    found = on_grid(times, np.array([True, False, False, True, True]))
    assert found.tolist() == [False, True, True, False, False, False, True]
    moments = np.array(["2020-01-01", "2020-01-03", "2020-01-04"], "datetime64[D]")
    assert on_grid(moments, np.ones(3, bool)).tolist() == [True, False, True, True]
    with pytest.raises(DataError, match="same timestamp"):
        on_grid(np.array([0, 60, 60]), np.ones(3, bool))


def test_score_equals_scikit_learn_over_all_series() -> None:
    rng = np.random.default_rng(0)
    hits = [rng.random(200) < 0.1, rng.random(100) < 0.2]
    labels = [np.repeat(rng.random(20) < 0.3, 10), np.repeat(rng.random(10) < 0.3, 10).astype(int)]
    found = score(hits, labels, delay=3)
    told = np.concatenate([
        slow_point_adjusted(h.tolist(), y.tolist(), 3) for h, y in zip(hits, labels, strict=True)
    ])  # fmt: skip
    truth = np.concatenate(labels).astype(bool)
    assert found.f1 == pytest.approx(f1_score(truth, told))
    assert found.precision == pytest.approx(precision_score(truth, told))
    assert found.recall == pytest.approx(recall_score(truth, told))
    json.dumps(found.to_dict())
    every = [np.arange(len(h)) * 60 for h in hits]
    assert score(hits, labels, 3, every).f1 == found.f1


def test_random_hits_score_as_chance_says_and_adjusting_flatters_them() -> None:
    rng = np.random.default_rng(0)
    labels = [np.repeat(rng.random(400) < 0.1, 10)]
    found = score([rng.random(4000) < 0.1], labels, delay=7)
    assert found.f1 == pytest.approx(found.chance, abs=0.05)
    assert found.f1 > 0.3, "far beyond the share of anomalous steps"


def test_score_of_all_and_nothing() -> None:
    labels = [np.repeat([False, True, False], 10)]
    perfect, none = score(labels, labels, 3), score([np.zeros(30, bool)], labels, 3)
    assert (perfect.f1, perfect.anomalous) == (1, pytest.approx(1 / 3))
    assert (none.precision, none.recall, none.f1, none.chance) == (0, 0, 0, 0)
    with pytest.raises(ConfigError, match=r"not \[30\], \[29\]"):
        score(labels, [labels[0][1:]], 3)


def test_prepare_keeps_places_and_uses_train_alone() -> None:
    values = np.cumsum(np.random.default_rng(0).normal(size=100)) + 50
    found = prepare(values, 50, difference=1)
    steps = np.diff(values)
    assert np.isnan(found[0, 0])
    np.testing.assert_allclose(found[1:, 0], (steps - steps[:49].mean()) / steps[:49].std())
    later = values.copy()
    later[50:] = 0
    np.testing.assert_array_equal(prepare(later, 50)[:50], prepare(values, 50)[:50])
    assert np.isnan(prepare(values, 50, difference=2)).sum() == 2
    with pytest.raises(DataError, match="1 of 2 channels"):
        prepare(np.stack([values, np.full(100, np.nan)], axis=1), 50)


def test_masking_errors_equal_a_slow_loop_and_find_spikes() -> None:
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(600) / 5)[:, None] + 0.1 * rng.normal(size=(600, 1))
    spikes = [400, 480, 555]
    values[spikes] += 4

    def encode(windows: np.ndarray, masked: bool) -> np.ndarray:
        """The last value, or a guess from what came before (a straight line)."""
        last = windows[:, -1, 0]
        guess = np.nan_to_num(2 * windows[:, -2, 0] - windows[:, -3, 0])
        return np.stack([guess if masked else last, windows[:, 0, 0] * 0 + 1], axis=1)

    errors = masking_errors(encode, values, past=3, batch=64)
    for t in (3, 100, 599):
        guess = 2 * values[t - 1, 0] - values[t - 2, 0]
        assert errors[t] == pytest.approx(abs(values[t, 0] - guess), abs=1e-5)
    errors = np.nan_to_num(errors)
    labels = np.isin(np.arange(600), spikes)[300:]
    found = score([detect(errors, 300, 3)], [labels], 3)
    assert found.f1 > 0.8 > 0.2 > found.chance


def test_a_window_holds_its_step_and_as_many_before_as_are_asked_for() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    errors = masking_errors(lambda windows, masked: windows[:, 0] * masked, values, past=5)
    assert np.isnan(errors[:5]).all()
    np.testing.assert_allclose(errors[5:], np.abs(values[:-5]).sum(axis=1), rtol=1e-6)


def test_a_short_train_part_gives_no_threshold() -> None:
    with pytest.raises(DataError, match="train has 23"):
        detect(errors_with([]), 23, 3)
