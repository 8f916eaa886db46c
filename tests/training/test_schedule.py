"""Learning rates, weight decay and averages."""

import math

import pytest
import torch
from torch import nn

from mainspring.errors import ConfigError
from mainspring.training import schedule
from mainspring.training.schedule import Optimiser


def test_rate_rises_to_the_peak_and_falls_to_zero_along_half_a_cosine():
    rates = [schedule.rate(step, 100, 0.4, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.04 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(0.4)
    assert rates[55] == pytest.approx(0.2)
    assert rates[99] == pytest.approx(0.2 * (1 + math.cos(math.pi * 89 / 90)))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule.rate(27, 100, 1.0, 0.29) == pytest.approx(28 / 29)  # 0.29 * 100 is below 29


def test_sgd_follows_the_linear_scaling_rule():
    assert Optimiser(name="sgd").peak(1024) == pytest.approx(0.06)
    assert Optimiser(name="sgd").peak(64) == pytest.approx(0.06 / 16)
    assert Optimiser(lr=0.3).peak(64) == 0.3
    assert Optimiser().peak(64) == 1e-3


def test_vectors_do_not_decay():
    layer = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimiser = schedule.build(Optimiser(weight_decay=0.5), layer.parameters(), 8)
    decaying, free = optimiser.param_groups
    assert [p.ndim for p in decaying["params"]] == [2]
    assert decaying["weight_decay"] == 0.5
    assert {p.ndim for p in free["params"]} == {1}
    assert free["weight_decay"] == 0


def test_unknown_optimiser_is_suggested():
    with pytest.raises(ConfigError, match="Did you mean 'adamw'"):
        schedule.build(Optimiser(name="adam"), nn.Linear(1, 1).parameters(), 8)


def test_average_is_the_closed_form():
    mean, source = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = mean.weight.detach().clone()
    joining = schedule.Average(mean, source)
    for _ in range(5):
        with torch.no_grad():
            source.weight += 1
        joining.join(0.9)
        expected = 0.9 * expected + 0.1 * source.weight.detach()
    torch.testing.assert_close(mean.weight.detach(), expected)


def test_what_is_no_weight_is_averaged_too_and_counts_are_copied():
    mean, source = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    joining = schedule.Average(mean, source)
    source(torch.randn(8, 2) + 5)
    joining.join(0.75)
    torch.testing.assert_close(mean.running_mean, source.running_mean / 4)
    assert mean.num_batches_tracked == 1


def test_frozen_weights_are_not_learnt():
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    decaying, free = schedule.build(Optimiser(), layer.parameters(), 8).param_groups
    assert decaying["params"] == []
    assert free["params"] == [layer.bias]
