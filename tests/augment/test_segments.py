"""Permuted segments: what moves, how often, and what stays."""

from collections import Counter
from itertools import chain, pairwise, permutations

import pytest
import torch

from mainspring.augment.segments import permute_segments, segment_order
from mainspring.errors import ConfigError


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everywhere(n: int, time: int) -> torch.Tensor:
    return torch.ones(n, time, dtype=torch.bool)


def pieces(order: list[int]) -> int:
    """In how many runs of consecutive places an order falls."""
    return 1 + sum(after != before + 1 for before, after in pairwise(order))


def test_every_sample_is_kept_once_in_at_most_so_many_pieces():
    orders = segment_order(everywhere(500, 40), 8, dice()).tolist()
    assert all(sorted(order) == list(range(40)) for order in orders)
    counts = Counter(map(pieces, orders))
    assert max(counts) == 8
    assert counts[1] > 60  # uncut, or put back as they were


def test_one_piece_changes_nothing():
    assert torch.equal(segment_order(everywhere(9, 12), 1, dice()), torch.arange(12).expand(9, 12))


def test_cuts_and_orders_are_uniform():
    # Three steps, up to three pieces: each number of pieces, cut and order by its chance.
    want: Counter[tuple[int, ...]] = Counter()
    for cuts in ([[0, 1, 2]], [[0], [1, 2]], [[0, 1], [2]], [[0], [1], [2]]):
        chance = 1 / 3 / (2 if len(cuts) == 2 else 1)
        every = list(permutations(cuts))
        for turn in every:
            want[tuple(chain(*turn))] += chance / len(every)
    orders = segment_order(everywhere(20000, 3), 3, dice())
    got = Counter(map(tuple, orders.tolist()))
    assert set(got) == set(want)
    for order, chance in want.items():
        assert got[order] / 20000 == pytest.approx(chance, abs=0.015)


def test_padding_stays_and_has_no_influence():
    present = torch.arange(30) < torch.tensor([[30], [12], [1], [0], [5]])
    order = segment_order(present, 6, dice())
    for i in range(5):
        there = int(present[i].sum())
        assert sorted(order[i, :there].tolist()) == list(range(there))
        assert order[i, there:].tolist() == list(range(there, 30))
    gap = torch.ones(200, 9, dtype=torch.bool)
    gap[:, 3:5] = False
    order = segment_order(gap, 6, dice())
    assert (order[:, 3:5] == torch.tensor([3, 4])).all()
    assert (order.sort(1).values == torch.arange(9)).all()
    assert (order[:, 2] == 7).any()  # over the gap


def test_whole_time_steps_move_and_missing_values_with_them():
    samples = torch.randn(20, 30, 3, generator=dice(1))
    samples[:, 4, 1] = torch.nan
    samples[:, :, 2] = torch.arange(30)
    moved = permute_segments(samples, everywhere(20, 30), 8, dice())
    came_from = moved[:, :, 2].long()
    assert torch.equal(came_from, segment_order(everywhere(20, 30), 8, dice()))
    want = torch.stack([samples[i, came_from[i]] for i in range(20)])
    torch.testing.assert_close(moved, want, equal_nan=True, rtol=0, atol=0)
    assert not torch.equal(moved[:, :, 0], samples[:, :, 0])


def test_the_generator_decides_alone():
    first, same, other = (segment_order(everywhere(9, 30), 8, dice(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_no_pieces_are_refused():
    with pytest.raises(ConfigError, match="cannot be cut into 0 segments"):
        segment_order(everywhere(2, 5), 0, dice())
