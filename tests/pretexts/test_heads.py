"""Heads compute what TaCo's Section 4.2.2 says in words."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from mainspring.errors import ConfigError
from mainspring.pretexts.heads import (
    ComparingHead,
    NamingHead,
    pairwise_differences,
    projection_head,
)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_differences_are_summed_over_all_pairs(count):
    v = torch.randn(3, count, 7, dtype=torch.float64)
    if count == 1:
        expected = torch.zeros(3, 7, dtype=torch.float64)
    else:
        expected = sum(v[:, i] - v[:, j] for i, j in combinations(range(count), 2))
    torch.testing.assert_close(pairwise_differences(v), expected)


@pytest.mark.parametrize("count", [3, 5])
def test_an_odd_number_of_branches_has_one_that_cannot_be_seen(count):
    v = torch.randn(2, count, 4)
    changed = v.clone()
    changed[:, count // 2] += torch.randn(2, 4)
    torch.testing.assert_close(pairwise_differences(v), pairwise_differences(changed))


@pytest.mark.parametrize("count", [2, 4, 6])
def test_an_even_number_of_branches_has_none(count):
    v = torch.randn(2, count, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(pairwise_differences(v).sum(), v)
    assert (gradient != 0).all()


def test_what_all_clips_share_drops_out_of_a_comparison():
    head = ComparingHead(6, 8, 4)
    v = F.relu(torch.randn(2, 4, 8))
    fused = head.fused(pairwise_differences(v))
    torch.testing.assert_close(head.fused(pairwise_differences(v + 3)), fused)


@pytest.mark.parametrize("odd", range(4))
def test_a_comparison_can_tell_each_of_four_branches(odd):
    """With one direction that only odd clips have, the fused value differs for each position."""
    values = []
    for position in range(4):
        v = torch.zeros(1, 4, 1)
        v[0, position] = 1
        values.append(pairwise_differences(v).item())
    assert len({values[odd], *values}) == 4


def test_projections_are_those_of_section_3_2_and_4_2_2():
    h = torch.randn(5, 6)
    linear = projection_head("linear", 6, 3, 4)
    torch.testing.assert_close(linear(h), h @ linear[0].weight.T + linear[0].bias)
    mlp = projection_head("mlp", 6, 3, 4)
    torch.testing.assert_close(mlp(h), mlp[2](mlp[0](h).clamp(min=0)))
    normed = projection_head("normed", 6, 3, 4)
    first = normed[0](h)
    torch.testing.assert_close(normed(h), normed[2](first / first.norm(dim=1, keepdim=True)))
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        projection_head("liner", 6, 3, 4)


def test_naming_takes_a_vector_of_length_one_so_logits_can_grow():
    head = NamingHead(6, 8, 2)
    with torch.no_grad():
        head.layers[2].weight.mul_(100)
    probability = head(torch.randn(50, 1, 6)).softmax(1).max()
    assert probability > 1 / (1 + math.exp(-math.sqrt(2)))  # the most that unit logits allow


@pytest.mark.parametrize("kind", ["linear", "mlp", "normed"])
def test_autocast_does_not_round_a_projection(kind):
    head, h = projection_head(kind, 6, 3, 4), torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head(h)
    torch.testing.assert_close(cast, head(h), rtol=0, atol=0)
