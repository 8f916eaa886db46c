"""Cepstra are the cosine transform of levels, with slopes of lines through five values."""

import math

import numpy as np
import pytest
import torch

from mainspring.pretexts.cepstra import cepstra, cosines, derivative


@pytest.mark.parametrize("bands", [13, 40])
def test_the_basis_is_the_orthonormal_cosine_transform(bands):
    expected = [
        [
            math.sqrt((1 if k == 0 else 2) / bands)
            * math.cos(math.pi * k * (2 * b + 1) / 2 / bands)
            for k in range(13)
        ]
        for b in range(bands)
    ]
    torch.testing.assert_close(cosines(bands), torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_derivative_is_the_slope_of_a_line_through_five_values():
    values = np.random.default_rng(0).normal(size=(2, 9, 3))
    held = np.concatenate([values[:, :1]] * 2 + [values] + [values[:, -1:]] * 2, axis=1)
    got = derivative(torch.from_numpy(values))
    for n in range(2):
        for t in range(9):
            slopes = np.polyfit(np.arange(5), held[n, t : t + 5], 1)[0]
            np.testing.assert_allclose(got[n, t], slopes, atol=1e-9)


def test_cepstra_come_with_first_and_second_derivatives():
    levels = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 8, 20))).float()
    basis = cosines(20)
    level = torch.einsum("ntb,bc->ntc", levels, basis)
    got = cepstra(levels, basis)
    assert got.shape == (2, 8, 39)
    torch.testing.assert_close(got[..., :13], level)
    torch.testing.assert_close(got[..., 13:26], derivative(level))
    torch.testing.assert_close(got[..., 26:], derivative(derivative(level)))
