import math

import numpy as np
import pytest
import torch

from mainspring.training.monitors import effective_rank, feature_spread


def test_effective_rank_counts_equal_directions() -> None:
    for rank in (1, 2, 5, 15):
        noise = torch.randn(64, rank, generator=seeded(0), dtype=torch.float64)
        orthogonal = torch.linalg.qr(noise - noise.mean(0)).Q
        values = orthogonal @ torch.eye(16, dtype=torch.float64)[:rank]
        assert effective_rank(values) == pytest.approx(rank)
        assert effective_rank(values + 100) == pytest.approx(rank), "a shared offset says nothing"
    assert effective_rank(torch.eye(16)) == pytest.approx(15), "16 points differ in 15 directions"


def test_effective_rank_is_the_entropy_of_singular_values() -> None:
    values = torch.randn(40, 12, generator=seeded(1)) * torch.arange(1, 13)
    centred = values.double().numpy() - values.double().numpy().mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    share = singular / singular.sum()
    assert effective_rank(values) == pytest.approx(math.exp(-(share * np.log(share)).sum()))


def test_effective_rank_ignores_scale_rotation_and_order() -> None:
    values = torch.randn(40, 12, generator=seeded(2)) * torch.arange(1, 13)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=seeded(3))).Q
    expected = pytest.approx(effective_rank(values), rel=1e-4)
    assert effective_rank(1000 * values) == expected
    assert effective_rank(values @ rotation) == expected
    assert effective_rank(values.flip(0)) == expected


def test_effective_rank_at_the_edges() -> None:
    assert effective_rank(torch.full((10, 4), 0.1)) == 0
    assert effective_rank(torch.zeros(10, 4)) == 0
    assert effective_rank(torch.ones(1, 4)) == 0
    noise = torch.randn(10, 4, generator=seeded(6), dtype=torch.float64)
    assert effective_rank(1 + 1e-8 * noise) == 0
    assert effective_rank(1 + 1e-4 * noise) > 1
    line = torch.linspace(0, 1, 10)[:, None] * torch.tensor([[1.0, -2.0, 3.0]]) + 5
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("nan")]])))
    assert effective_rank(torch.eye(3, dtype=torch.bfloat16)) == pytest.approx(2)


def test_spread_is_one_for_isotropic_noise_and_zero_when_collapsed() -> None:
    noise = torch.randn(4000, 64, generator=seeded(4))
    assert feature_spread(noise) == pytest.approx(1, abs=0.02)
    assert feature_spread(noise * torch.rand(4000, 1, generator=seeded(5))) == pytest.approx(
        feature_spread(noise)
    )
    assert feature_spread(torch.ones(10, 4)) == pytest.approx(0, abs=1e-12)
    assert math.isnan(feature_spread(torch.full((2, 2), float("nan"))))
    assert math.isnan(feature_spread(torch.tensor([[1.0, float("inf")], [0.0, 1.0]])))


def test_spread_by_hand() -> None:
    # Unit vectors (1, 0) and (0, 1): each dimension has standard deviation 1/2; times sqrt(2).
    assert feature_spread(torch.tensor([[3.0, 0.0], [0.0, 0.5]])) == pytest.approx(2**0.5 / 2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
