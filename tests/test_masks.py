"""Masks: how much they hide, in pieces of which length, and that rows are independent."""

import itertools

import numpy as np
import pytest
import torch

from mainspring.errors import ConfigError
from mainspring.masks import begin, block_mask, extents, random_mask, span_mask


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def runs(row: np.ndarray) -> list[tuple[bool, int]]:
    return [(bool(kind), len(list(group))) for kind, group in itertools.groupby(row)]


def slow_chain(rows: int, length: int, share: float, mean: float, seed: int) -> np.ndarray:
    """Zerveas et al., step by step: leave a span with 1 / mean, a gap with share / mean / (1 -
    share)."""
    rng = np.random.default_rng(seed)
    leave = {True: 1 / mean, False: share / (mean * (1 - share))}
    out = np.zeros((rows, length), bool)
    for i in range(rows):
        state = rng.random() < share
        for t in range(length):
            out[i, t] = state
            if rng.random() < leave[state]:
                state = not state
    return out


def test_random_cells_are_hidden_one_by_one():
    mask = random_mask((200, 100, 3), 0.15, dice())
    assert float(mask.float().mean()) == pytest.approx(0.15, abs=0.005)
    both = (mask[:, 1:] & mask[:, :-1]).float().mean()
    assert float(both) == pytest.approx(0.15**2, abs=0.003)
    assert not random_mask((50, 50), 0.0, dice()).any()


@pytest.mark.parametrize(("share", "mean"), [(0.15, 3.0), (0.5, 1.0), (0.4, 8.0), (0.7, 2.5)])
def test_spans_have_the_share_and_the_mean_length_asked_for(share, mean):
    mask = span_mask(400, 1000, share, mean, dice())
    assert float(mask.float().mean()) == pytest.approx(share, rel=0.05)
    inner = [run for row in mask.numpy() for run in runs(row)[1:-1]]  # the ends are cut
    hidden = [length for kind, length in inner if kind]
    gaps = [length for kind, length in inner if not kind]
    assert np.mean(hidden) == pytest.approx(mean, rel=0.05)
    assert np.mean(gaps) == pytest.approx(mean * (1 - share) / share, rel=0.05)


def test_lengths_of_spans_are_geometric():
    inner = [run for row in span_mask(400, 1000, 0.15, 3.0, dice()).numpy() for run in runs(row)]
    lengths = np.array([length for kind, length in inner[1:-1] if kind])
    for length in (1, 2, 3, 6):
        want = (2 / 3) ** (length - 1) / 3
        assert float((lengths == length).mean()) == pytest.approx(want, abs=0.015)


def test_spans_equal_a_slow_chain_in_distribution():
    fast = span_mask(4000, 12, 0.3, 2.0, dice()).numpy()
    slow = slow_chain(4000, 12, 0.3, 2.0, 0)
    np.testing.assert_allclose(fast.mean(0), slow.mean(0), atol=0.035)  # at every step alike
    for lag in (1, 2, 4):
        pair = (fast[:, lag:] & fast[:, :-lag]).mean()
        assert pair == pytest.approx((slow[:, lag:] & slow[:, :-lag]).mean(), abs=0.012)


def test_no_span_runs_on_into_the_next_row():
    mask = span_mask(20_000, 6, 0.4, 5.0, dice())
    last, first = mask[:-1, -1].float(), mask[1:, 0].float()
    assert abs(float(torch.corrcoef(torch.stack([last, first]))[0, 1])) < 0.03
    inside = torch.corrcoef(torch.stack([mask[:, 2].float(), mask[:, 3].float()]))[0, 1]
    assert float(inside) > 0.5


def test_spans_that_cannot_be_are_named():
    with pytest.raises(ConfigError, match=r"mean must be at least 4"):
        span_mask(2, 10, 0.8, 3.0, dice())
    with pytest.raises(ConfigError, match=r"share of 1 was to be hidden"):
        span_mask(2, 10, 1.0, 3.0, dice())
    with pytest.raises(ConfigError, match=r"share of -0.1"):
        random_mask((2, 2), -0.1, dice())
    assert not span_mask(5, 20, 0.0, 3.0, dice()).any()


def test_a_block_is_one_stretch_in_some_channels_within_the_extent():
    extent = torch.tensor([100, 40, 7, 1]).repeat(50)
    mask = block_mask(extent, 100, 5, 0.5, 0.4, dice())
    channels = mask.any(1)
    assert (channels.sum(1) == 2).all()
    for row, reach in zip(mask.numpy(), extent.tolist(), strict=True):
        column = row.any(1)
        steps = np.flatnonzero(column)
        assert len(steps) == max(1, round(reach / 2))
        assert (np.diff(steps) == 1).all()
        assert steps[-1] < reach
        assert (row[steps] == row[steps[0]]).all()
    share = channels.float().mean(0)
    torch.testing.assert_close(share, torch.full((5,), 0.4), atol=0.12, rtol=0)


def test_a_block_never_takes_all_of_many_channels_and_takes_the_only_one():
    extent = torch.full((30,), 20)
    assert (block_mask(extent, 20, 2, 0.5, 0.99, dice()).any(1).sum(1) == 1).all()
    assert (block_mask(extent, 20, 1, 0.5, 0.01, dice()).sum((1, 2)) == 10).all()
    assert not block_mask(0 * extent, 20, 2, 0.5, 0.5, dice()).any()  # nothing but padding


def test_stretches_begin_anywhere_that_they_fit():
    start = begin(torch.full((5000,), 10), torch.full((5000,), 7), dice())
    share = np.bincount(start.numpy(), minlength=4) / 5000
    np.testing.assert_allclose(share, 0.25, atol=0.03)


def test_extents_count_up_to_the_last_present_step():
    present = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    assert extents(present).tolist() == [2, 3, 0, 4]


def test_the_same_generator_gives_the_same_masks():
    extent = torch.full((9,), 30)
    for draw in (
        lambda g: random_mask((9, 30, 2), 0.3, g),
        lambda g: span_mask(9, 30, 0.3, 3.0, g),
        lambda g: block_mask(extent, 30, 2, 0.3, 0.5, g),
    ):
        assert torch.equal(draw(dice(1)), draw(dice(1)))
        assert not torch.equal(draw(dice(1)), draw(dice(2)))
