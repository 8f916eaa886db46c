"""The order of recordings is a permutation each epoch and a function of (seed, sample)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mainspring.training.order import Order, seeded, torch_seed


@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_each_epoch_visits_every_row_once(count, seed):
    order = Order(count, seed)
    for epoch in range(2):
        rows = [order[epoch * count + i] for i in range(count)]
        assert sorted(rows) == list(range(count))


def test_epochs_and_seeds_differ_and_repeat():
    def epoch(seed: int, which: int) -> list[int]:
        order = Order(500, seed)
        return [order[which * 500 + i] for i in range(500)]

    assert epoch(3, 0) == epoch(3, 0)
    assert epoch(3, 0) != epoch(3, 1)
    assert epoch(3, 0) != epoch(4, 0)


def test_any_sample_is_found_without_the_ones_before():
    one, two = Order(1_000_000, 9), Order(1_000_000, 9)
    wanted = [5, 999_999, 1_000_000, 7_654_321]
    assert [one[n] for n in wanted] == [two[n] for n in reversed(wanted)][::-1]


def test_places_are_uniform_and_neighbours_unrelated():
    order = Order(1000, 1)
    rows = np.array([order[n] for n in range(40_000)]).reshape(40, 1000)
    means = rows.mean(0)
    assert abs(means - 499.5).max() < 5 * 288.7 / np.sqrt(40)
    flat = rows.ravel()
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.02


def test_seeded_generators_depend_on_the_whole_key():
    assert seeded(1, 2).integers(1 << 40) == seeded(1, 2).integers(1 << 40)
    assert seeded(1, 2).integers(1 << 40) != seeded(2, 1).integers(1 << 40)
    assert 0 <= torch_seed(1, 2, 3) < 1 << 63
