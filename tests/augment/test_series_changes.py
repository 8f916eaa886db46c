import pytest
import torch

from mainspring.augment.series import SeriesAugment, spread
from mainspring.errors import ConfigError


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def series(n: int = 50, time: int = 80) -> torch.Tensor:
    units = torch.tensor([1.0, 1000.0, 0.01])
    samples = torch.randn(n, time, 3, generator=dice(99)) * units
    missing = torch.rand(n, time, 3, generator=dice(98)) < 0.2
    missing[0, :, 1] = True  # a channel that was never observed
    return samples.masked_fill(missing, torch.nan)


def test_with_every_setting_zero_nothing_is_changed():
    samples = series()
    torch.testing.assert_close(
        SeriesAugment()(samples, dice()), samples, equal_nan=True, rtol=0, atol=0
    )
    assert SeriesAugment(jitter=1).still(samples) is samples


def test_missing_stays_missing_and_observed_stays_observed():
    changed = SeriesAugment(jitter=0.5, scale=0.2)(series(), dice())
    assert torch.equal(changed.isnan(), series().isnan())


def test_the_same_generator_gives_the_same_views():
    augment = SeriesAugment(jitter=0.5, scale=0.2, hide=0.3)
    same = augment(series(), dice(1)).nan_to_num()
    assert torch.equal(same, augment(series(), dice(1)).nan_to_num())
    assert not torch.equal(same, augment(series(), dice(2)).nan_to_num())


def test_spread_is_that_of_the_observed_values():
    samples = series()
    got = spread(samples)
    seen = samples[3, :, 1][~samples[3, :, 1].isnan()].double()
    assert float(got[3, 0, 1]) == pytest.approx(float(seen.std(correction=0)), rel=1e-5)
    assert got[0, 0, 1] == 0


@pytest.mark.parametrize("unit", [2.0**-100, 2.0**-30, 2.0**110])
def test_spread_is_in_the_units_of_the_series(unit):
    torch.testing.assert_close(spread(series() * unit), spread(series()) * unit, rtol=0, atol=0)


def test_jitter_is_as_large_in_every_unit():
    added = SeriesAugment(jitter=0.5)(series(), dice()) - series()
    share = (spread(added) / spread(series()))[1:].mean((0, 1))
    torch.testing.assert_close(share, torch.full((3,), 0.5), atol=0.03, rtol=0)


def test_scale_multiplies_each_channel_by_one_number():
    samples = series(400)
    ratio = SeriesAugment(scale=0.1)(samples, dice()) / samples
    assert spread(ratio).max() < 1e-5
    factor = ratio.nanmean(1)
    assert abs(float(factor.nanmean()) - 1) < 0.02
    assert abs(float(factor[1:].std()) - 0.1) < 0.02
    assert abs(float(torch.corrcoef(factor[1:].T)[0, 1])) < 0.2  # channels each have their own


def test_hide_makes_one_stretch_missing_in_all_channels():
    samples = torch.ones(50, 80, 3)
    hidden = SeriesAugment(hide=0.4)(samples, dice()).isnan()
    assert torch.equal(hidden.all(2), hidden.any(2))
    assert 0.3 < hidden[:, :, 0].float().mean(1).max() <= 0.4


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match="hide is -1; it must lie between 0 and 1"):
        SeriesAugment(hide=-1)
    with pytest.raises(ConfigError, match="jitter is -1; it must not be negative"):
        SeriesAugment(jitter=-1)
