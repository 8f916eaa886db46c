import numpy as np
import pytest

from mainspring.errors import DataError
from mainspring.evaluate.intervals import Tally, difference, interval


def test_tally_counts_by_group() -> None:
    tally = Tally.of(np.array([1.0, 0.0, 0.5, 1.0]), np.array(["b", "a", "b", "b"], object))
    assert tally.groups.tolist() == ["a", "b"]
    assert tally.correct.tolist() == [0, 2.5]
    assert tally.total.tolist() == [1, 3]
    assert tally.mean == 2.5 / 4


def test_interval_agrees_with_the_binomial_when_groups_are_rows() -> None:
    rng = np.random.default_rng(0)
    correct = (rng.random(400) < 0.7).astype(float)
    low, high = interval(Tally.of(correct, np.arange(400)), rng)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400)
    assert high - low == pytest.approx(2 * half, rel=0.1)
    assert low < correct.mean() < high


def test_interval_is_wider_when_rows_of_a_group_agree() -> None:
    rng = np.random.default_rng(0)
    correct = np.repeat((rng.random(40) < 0.7).astype(float), 10)
    alone = interval(Tally.of(correct, np.arange(400)), np.random.default_rng(1))
    together = interval(Tally.of(correct, np.arange(400) // 10), np.random.default_rng(1))
    assert (together[1] - together[0]) / (alone[1] - alone[0]) == pytest.approx(10**0.5, rel=0.25)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        group_mean = np.clip(rng.normal(0.6, 0.2, 60), 0, 1)
        correct = (rng.random((60, 5)) < group_mean[:, None]).astype(float).ravel()
        low, high = interval(Tally.of(correct, np.arange(300) // 5), rng)
        covered += low <= 0.595 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(300)
    base = (rng.random(300) < 0.5).astype(float)
    better = base.copy()
    better[np.flatnonzero(base == 0)[:20]] = 1
    found = difference(Tally.of(better, groups), Tally.of(base, groups), rng)
    assert found.mean == pytest.approx(20 / 300)
    assert found.word == "better"
    # Unpaired, the interval would be about 0.16 wide.
    assert found.high - found.low < 0.07
    assert difference(Tally.of(base, groups), Tally.of(better, groups), rng).word == "worse"
    same = difference(Tally.of(base, groups), Tally.of(base, groups), rng)
    assert (same.mean, same.low, same.high, same.word) == (0, 0, 0, "no better")


def test_two_groups_tell_no_difference() -> None:
    groups = np.repeat(["a", "b"], 30)
    found = difference(
        Tally.of(np.ones(60), groups), Tally.of(np.zeros(60), groups), np.random.default_rng(0)
    )
    assert (found.mean, found.low, found.high, found.word) == (1, -1, 1, "no better")


def test_five_groups_are_enough_for_an_interval() -> None:
    groups = np.repeat(list("abcde"), 4)
    tally = Tally.of(np.ones(20), groups)
    found = difference(tally, Tally.of(np.zeros(20), groups), np.random.default_rng(0))
    assert (tally.few, found.low, found.word) == (False, 1, "better")
    assert Tally.of(np.ones(16), groups[:16]).few


def test_difference_uses_shared_groups_only() -> None:
    a = Tally.of(np.array([1.0, 1.0, 0.0]), np.array(["x", "y", "only a"], object))
    b = Tally.of(np.array([0.0, 1.0]), np.array(["x", "y"], object))
    assert difference(a, b, np.random.default_rng(0)).mean == 0.5
    c = Tally.of(np.ones(1), np.array(["z"], object))
    with pytest.raises(DataError, match=r"share no group.*'z'"):
        difference(a, c, np.random.default_rng(0))
