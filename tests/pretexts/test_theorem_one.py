"""Theorem 1 of GDT by simulation: the sampler is unbiased, and its variance is the stated one.

Patrick et al., ICCV 2021, Section 3.2. A batch holds K_V values of the factors that are told apart,
each with K_I values of those that are ignored. The objective is a mean over pairs of views; over
the pairs of values j and j' it has mean L_jj' and variance s²_jj'. Then

    V[GDT]   = sum of s²_jj' / (K_V^4 K_I^2)
    V[naive] = sum of s²_jj' / (K_V^2 K_I^2) + sum of (L_jj' - L)² / K_V^2

The second is the variance of an estimate that draws one pair (j, j') and K_I² pairs of views of it,
so that part of the factor K_V² comes from K_V² times as many pairs. Both statements are about pairs
that are uncorrelated. The sampler compares each view with many, so its pairs are so only where a
view alone says nothing, as where the pair's term is L_jj' + s_jj' e e' with e and e' of mean 0.
Elsewhere it remains unbiased, but views that are shared add to its variance.
"""

import numpy as np
import pytest
import torch

from mainspring.pretexts.hierarchy import Hierarchy, Level

TOLD, IGNORED = 4, 3  # K_V, K_I


def pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Value j and number k of both views of each pair that the sampler lets take part, rows from
    one stream and columns from the other."""
    hierarchy = Hierarchy(
        [
            Level("recording", TOLD, "tell_apart"),
            Level("stream", 2, "ignore"),
            Level("augmentation", IGNORED, "ignore"),
        ],
        crossing="stream",
    )
    views = hierarchy.views()
    factors = {name: torch.from_numpy(v).repeat(TOLD) for name, v in views.items()}
    recording = torch.arange(TOLD).repeat_interleave(hierarchy.size)
    n = len(recording)
    w = hierarchy.rule(recording, factors).block(slice(0, n), slice(0, n))
    rows, columns = (w & (factors["stream"][:, None] == 0)).nonzero(as_tuple=True)
    j, k = recording.numpy(), factors["augmentation"].numpy()
    return j[rows], k[rows], j[columns], k[columns]


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    """L_jj' and s_jj'."""
    rng = np.random.default_rng(0)
    return rng.normal(2, 1, (TOLD, TOLD)), rng.uniform(0.5, 2, (TOLD, TOLD))


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape)


def test_batches_compare_all_values_with_all():
    j, _, other, _ = pairs()
    assert len(j) == TOLD**2 * IGNORED**2
    counts = np.bincount(j * TOLD + other)
    assert (counts == IGNORED**2).all()


def test_variance_is_the_stated_one_and_the_mean_that_of_all_pairs(world):
    mean, scale = world
    trials = 40_000
    rng = np.random.default_rng(1)
    j, k, other, m = pairs()
    e, f = signs(rng, trials, TOLD, IGNORED), signs(rng, trials, TOLD, IGNORED)
    gdt = (mean[j, other] + scale[j, other] * e[:, j, k] * f[:, other, m]).mean(1)

    first, second = rng.integers(TOLD, size=(2, trials))
    noise = signs(rng, trials, IGNORED**2) * signs(rng, trials, IGNORED**2)
    naive = mean[first, second] + scale[first, second] * noise.mean(1)

    of_gdt = (scale**2).sum() / (TOLD**4 * IGNORED**2)
    of_naive = (scale**2).sum() / (TOLD**2 * IGNORED**2) + ((mean - mean.mean()) ** 2).mean()
    assert gdt.mean() == pytest.approx(mean.mean(), abs=5 * np.sqrt(of_gdt / trials))
    assert naive.mean() == pytest.approx(mean.mean(), abs=5 * np.sqrt(of_naive / trials))
    assert gdt.var() == pytest.approx(of_gdt, rel=0.05)
    assert naive.var() == pytest.approx(of_naive, rel=0.05)
    # The multiplicative factor by itself: the naive estimate within its pair of values.
    within = naive - mean[first, second]
    assert within.var() / gdt.var() == pytest.approx(TOLD**2, rel=0.05)


def test_at_equal_numbers_of_pairs_the_gain_is_that_of_strata(world):
    """Independent pairs, as many as the batch has: the first terms agree, and only the differences
    between values are saved."""
    mean, scale = world
    trials, count = 10_000, TOLD**2 * IGNORED**2
    rng = np.random.default_rng(2)
    first, second = rng.integers(TOLD, size=(2, trials, count))
    noise = signs(rng, trials, count)
    independent = (mean[first, second] + scale[first, second] * noise).mean(1)
    of_gdt = (scale**2).sum() / (TOLD**4 * IGNORED**2)
    more = ((mean - mean.mean()) ** 2).sum() / (TOLD**4 * IGNORED**2)
    assert independent.var() == pytest.approx(of_gdt + more, rel=0.06)


def test_unbiased_for_any_objective_over_pairs():
    """Terms that mean nothing in particular, and views drawn from many that a value has."""
    rng = np.random.default_rng(3)
    many, trials = 7, 20_000
    term = rng.exponential(1, (TOLD, many, TOLD, many))
    j, k, other, m = pairs()
    drawn = rng.integers(many, size=(2, trials, TOLD, IGNORED))
    estimate = term[j, drawn[0][:, j, k], other, drawn[1][:, other, m]].mean(1)
    spread = estimate.std() / np.sqrt(trials)
    assert estimate.mean() == pytest.approx(term.mean(), abs=5 * spread)
