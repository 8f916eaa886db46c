"""Warps: each change against a slow reference or its law, with padding and missing values."""

import numpy as np
import pytest
import torch

from mainspring.augment import warps
from mainspring.augment.series import spread
from mainspring.masks import extents

TIME = 60
EXTENT = torch.tensor([60, 60, 37, 8, 2, 1, 0]).repeat(20)
ROWS = len(EXTENT)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def padded() -> torch.Tensor:
    """Rising series with noise, a tenth missing, NaN in the padding."""
    samples = torch.randn(ROWS, TIME, 2, generator=dice(9)) + torch.arange(TIME)[:, None] / 10
    samples = samples * torch.tensor([1000.0, 0.01])
    missing = torch.rand(samples.shape, generator=dice(8)) < 0.1
    step = torch.arange(TIME)
    return samples.masked_fill(missing | (step >= EXTENT[:, None])[:, :, None], torch.nan)


PLACES = {
    "reverse": lambda g: warps.reverse(EXTENT, TIME),
    "permute": lambda g: warps.permute(EXTENT, TIME, 4, g),
    "warp": lambda g: warps.warp(EXTENT, TIME, 0.6, g),
    "zoom": lambda g: warps.zoom(EXTENT, TIME, 0.4, g),
}
VALUES = {
    "negate": lambda x, g: warps.negate(x),
    "swell": lambda x, g: warps.swell(x, EXTENT, 4.0, g),
    "spike": lambda x, g: warps.spike(x, EXTENT, 3.0, 0.2, g),
    "shift": lambda x, g: warps.shift(x, EXTENT, 3.0, 0.2, g),
    "trend": lambda x, g: warps.trend(x, EXTENT, 3.0, 0.2, g),
    "burst": lambda x, g: warps.burst(x, EXTENT, 3.0, 0.2, g),
    "swap": lambda x, g: warps.swap(x, EXTENT, 3.0, 0.2, g),
}


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLACES)
def test_places_stay_within_the_extent_and_padding_is_read_where_it_is(name):
    places = PLACES[name](dice())
    step = torch.arange(TIME).float().expand(ROWS, -1)
    inside = step < EXTENT[:, None]
    assert torch.equal(places[~inside], step[~inside])
    assert (places[inside] >= 0).all()
    assert (places <= (EXTENT[:, None] - 1).clamp(min=0))[inside].all()
    assert torch.equal(warps.resample(padded(), places).isnan().all(2)[~inside], ~inside[~inside])


@pytest.mark.parametrize("name", VALUES)
def test_changes_of_values_keep_what_is_missing_missing(name):
    samples = padded()
    changed = VALUES[name](samples, dice())
    if name == "swap":  # missing values go with their steps
        assert torch.equal(changed.isnan().sum(1), samples.isnan().sum(1))
    else:
        assert torch.equal(changed.isnan(), samples.isnan())
    assert torch.equal(extents(~changed.isnan().all(2)) <= EXTENT, torch.ones(ROWS).bool())
    if name != "negate":
        assert warps.altered(samples, changed)[:40].any()


@pytest.mark.parametrize("name", VALUES)
def test_units_do_not_matter(name):
    samples = padded()
    unit, level = torch.tensor([0.5, 400.0]), torch.tensor([-30.0, 7.0])
    plain = VALUES[name](samples, dice()) * unit + level
    other = VALUES[name](samples * unit + level, dice())
    torch.testing.assert_close(other, plain, equal_nan=True, rtol=1e-3, atol=1e-2)


def test_the_same_generator_gives_the_same_changes():
    for name in ("permute", "warp", "zoom"):
        assert torch.equal(PLACES[name](dice(1)), PLACES[name](dice(1)))
        assert not torch.equal(PLACES[name](dice(1)), PLACES[name](dice(2)))
    for name in ("swell", "spike", "shift", "trend", "burst", "swap"):
        one, same, other = (VALUES[name](padded(), dice(seed)).nan_to_num() for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_no_rows_are_no_trouble():
    none, extent = torch.zeros(0, 9, 2), torch.zeros(0, dtype=torch.int64)
    for change in (warps.spike, warps.shift, warps.trend, warps.burst, warps.swap):
        assert change(none, extent, 3.0, 0.2, dice()).shape == (0, 9, 2)
    assert warps.swell(none, extent, 4.0, dice()).shape == (0, 9, 2)
    assert warps.permute(extent, 9, 4, dice()).shape == (0, 9)
    assert warps.warp(extent, 9, 0.6, dice()).shape == (0, 9)


# -- reading --------------------------------------------------------------------------------------


def slow_read(column: np.ndarray, place: float) -> float:
    low = int(np.floor(place))
    high, share = min(low + 1, len(column) - 1), place - low
    first, second = column[low], column[high]
    nearest = first if share < 0.5 else second
    if share == 0 or np.isnan(first) or np.isnan(second):
        return nearest
    return (1 - share) * first + share * second


def test_reading_equals_a_slow_reference_and_missing_values_do_not_spread():
    samples = torch.randn(5, 40, 2, generator=dice())
    samples[torch.rand(samples.shape, generator=dice(1)) < 0.3] = torch.nan
    places = torch.rand(5, 40, generator=dice(2)) * 39
    got = warps.resample(samples, places)
    for i in range(5):
        for c in range(2):
            column = samples[i, :, c].double().numpy()
            want = [slow_read(column, float(place)) for place in places[i]]
            np.testing.assert_allclose(got[i, :, c], want, atol=1e-5)
    assert float(got.isnan().float().mean()) == pytest.approx(0.3, abs=0.06)


def test_at_whole_places_samples_are_copied():
    samples = padded()
    still = warps.resample(samples, warps.unmoved(EXTENT, TIME))
    torch.testing.assert_close(still, samples, equal_nan=True, rtol=0, atol=0)


# -- time -----------------------------------------------------------------------------------------


def test_reverse_is_its_own_inverse_and_flips_what_is_there():
    samples = padded()
    places = warps.reverse(EXTENT, TIME)
    once = warps.resample(samples, places)
    torch.testing.assert_close(
        once[2, :37], samples[2, :37].flip(0), equal_nan=True, rtol=0, atol=0
    )
    torch.testing.assert_close(
        warps.resample(once, places), samples, equal_nan=True, rtol=0, atol=0
    )


def test_permute_moves_whole_pieces_none_of_them_short_and_always_moves_some():
    places = warps.permute(EXTENT, TIME, 4, dice()).long().numpy()
    for row, reach in zip(places, EXTENT.tolist(), strict=True):
        inside = row[:reach]
        assert sorted(inside) == list(range(reach))
        joins = np.flatnonzero(np.diff(inside) != 1)
        assert len(joins) <= 3
        if reach >= 37:
            assert len(joins) >= 1
            pieces = np.diff([0, *joins + 1, reach])
            assert pieces.min() >= reach / 4 / 2 - 1


def test_all_orders_but_the_old_one_come_up():
    extent = torch.full((4000,), 9)
    order = warps.permute(extent, 9, 3, dice()).long()
    pieces = {tuple(row.tolist()) for row in order}
    firsts = {row[0] for row in pieces}
    assert tuple(range(9)) not in pieces
    assert 0 in firsts  # the first piece may stay
    assert len(firsts) > 3


def test_a_warp_keeps_both_ends_and_never_turns_back():
    places = warps.warp(EXTENT, TIME, 0.6, dice())
    for row, reach in zip(places, EXTENT.tolist(), strict=True):
        if reach < 2:
            continue
        assert float(row[0]) == 0
        assert float(row[reach - 1]) == pytest.approx(reach - 1, abs=1e-3)
        assert (row[:reach].diff() > 0).all()
    away = (places - warps.unmoved(EXTENT, TIME))[EXTENT == 60].abs().amax(1)
    assert 2 < float(away.mean()) < 20
    weak = warps.warp(EXTENT, TIME, 0.01, dice()) - warps.unmoved(EXTENT, TIME)
    assert float(weak.abs().max()) < 1


def test_a_warp_goes_at_the_pace_of_its_knots():
    extent, strength = torch.tensor([50]), 0.6
    knots = strength * torch.randn(1, warps.KNOTS + 2, generator=dice(3)).double().numpy()[0]
    at = np.arange(50) / 49 * (warps.KNOTS + 1)
    pace = np.exp(np.interp(at, np.arange(warps.KNOTS + 2), knots))
    passed = np.cumsum(pace) - pace[0]
    want = passed / passed[-1] * 49
    np.testing.assert_allclose(warps.warp(extent, 50, strength, dice(3))[0], want, atol=1e-3)


def test_a_zoom_is_a_part_at_an_even_slower_pace():
    places = warps.zoom(EXTENT, TIME, 0.4, dice())[EXTENT == 60]
    pace = places.diff()
    assert float((pace - pace[:, :1]).abs().max()) < 1e-3
    assert float(pace.min()) > 0.39
    assert float(pace.max()) < 0.71
    assert float(places[:, 0].min()) < 3
    assert float(places[:, -1].max()) > 56


# -- values ---------------------------------------------------------------------------------------


def test_negate_is_its_own_inverse_and_keeps_the_level():
    samples = padded()
    torch.testing.assert_close(
        warps.negate(warps.negate(samples)), samples, equal_nan=True, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        warps.middle(warps.negate(samples)), warps.middle(samples), rtol=1e-3, atol=1e-3
    )


def test_a_swell_comes_and_goes_smoothly_and_is_as_large_as_asked():
    samples = torch.ones(400, 100, 1)
    samples[:, ::2] = -1
    extent = torch.full((400,), 100)
    gain = warps.swell(samples, extent, 4.0, dice()) / samples
    peak = gain.amax(1)
    grown = peak[:, 0] > 1.5
    assert 0.4 < float(grown.float().mean()) < 0.6
    assert float(peak[grown].min()) > 1.95
    assert float(peak[grown].max()) <= 4.001
    trough = gain.amin(1)[~grown]
    assert float(trough.min()) >= 0.249
    assert float(trough.max()) < 0.52
    assert float(gain.log().diff(dim=1).abs().max()) < 0.1


def ground(n: int = 300, time: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, time, 2, generator=dice(5)), torch.full((n,), time)


def test_one_to_three_steps_are_spikes():
    samples, extent = ground()
    added = warps.spike(samples, extent, 3.0, 0.2, dice()) - samples
    hit = (added != 0).all(2)
    assert torch.equal(hit, (added != 0).any(2))
    share = torch.bincount(hit.sum(1), minlength=4) / 300
    assert share[0] == 0
    torch.testing.assert_close(share[1:], torch.full((3,), 1 / 3), atol=0.1, rtol=0)
    height = (added / spread(samples))[hit].abs()
    assert 2.99 < float(height.min()) < 3.2
    assert 5.8 < float(height.max()) < 6.01


def test_spikes_hit_what_is_there_however_short_it_is():
    extent = torch.tensor([3, 5]).repeat(50)
    samples = torch.randn(100, TIME, 1, generator=dice(5))
    samples = samples.masked_fill(torch.arange(TIME)[:, None] >= extent[:, None, None], torch.nan)
    hit = warps.altered(samples, warps.spike(samples, extent, 3.0, 0.2, dice())).sum((1, 2))
    assert set(hit.tolist()) == {1, 2, 3}


def lengths(added: torch.Tensor) -> torch.Tensor:
    """Of the stretch that was changed, which must be one."""
    hit = (added != 0).any(2)
    assert ((hit[:, 1:] & ~hit[:, :-1]).sum(1) + hit[:, 0] == 1).all()
    return hit.sum(1)


@pytest.mark.parametrize("kind", [warps.shift, warps.trend, warps.burst])
def test_a_stretch_of_five_to_twenty_steps_is_changed_anywhere(kind):
    samples, extent = ground()
    added = kind(samples, extent, 3.0, 0.2, dice()) - samples
    long = lengths(added)
    assert (int(long.min()), int(long.max())) == (5, 20)
    where = (added != 0).any(2).float().mean(0)
    assert float(where[10:90].min()) > 0.05
    assert float(where[[0, -1]].max()) < 0.05


def test_shifts_are_flat_trends_are_even_and_bursts_are_noise():
    samples, extent = ground()
    unit = spread(samples)
    flat = (warps.shift(samples, extent, 3.0, 0.2, dice()) - samples) / unit
    height = flat.abs().amax(1)
    assert float(height.min()) > 1.49
    assert float(height.max()) < 3.01
    assert ((height[:, 0] - height[:, 1]).abs() > 1e-3).float().mean() > 0.9  # one a channel
    on = flat.abs() > 0.5
    assert float((flat.abs() - height[:, None])[on].abs().max()) < 1e-4

    slope = (warps.trend(samples, extent, 3.0, 0.2, dice()) - samples) / unit
    assert float(slope.abs().amax(1).min()) > 1.49
    assert float(slope.abs().amax(1).max()) < 3.01
    run = (slope != 0).sum(1)
    sums = slope.abs().sum(1)  # of 1/w .. w/w is (w + 1) / 2
    torch.testing.assert_close(sums, slope.abs().amax(1) * (run + 1) / 2, rtol=1e-3, atol=1e-3)

    noise = (warps.burst(samples, extent, 3.0, 0.2, dice()) - samples) / unit
    loud = noise[noise != 0]
    assert float(loud.square().mean().sqrt()) == pytest.approx(1.14, abs=0.08)  # U[.75, 1.5]
    assert abs(float(loud.mean())) < 0.05


@pytest.mark.parametrize("kind", [warps.spike, warps.shift, warps.trend])
def test_as_many_changes_go_up_as_down(kind):
    samples, extent = ground()
    added = (kind(samples, extent, 3.0, 0.2, dice()) - samples).sum(1)
    assert (added > 0).float().mean() == pytest.approx(0.5, abs=0.08)


def test_two_stretches_are_swapped_and_nothing_else():
    samples = torch.arange(100.0)[None, :, None].repeat(300, 1, 1)
    extent = torch.full((300,), 100)
    swapped = warps.swap(samples, extent, 3.0, 0.2, dice())
    assert torch.equal(swapped.sort(1).values, samples)
    for row in swapped[:, :, 0].long().numpy():
        moved = np.flatnonzero(row != np.arange(100))
        assert len(moved) % 2 == 0
        first, second = np.split(moved, 2)
        assert 5 <= len(first) <= 20
        assert (np.diff(first) == 1).all()
        assert (row[first] == second).all()
        assert (row[second] == first).all()


def test_a_difference_is_one_of_values_or_of_absence():
    a = torch.tensor([1.0, torch.nan, torch.nan, 2.0])[None, :, None]
    b = torch.tensor([1.0, torch.nan, 3.0, 4.0])[None, :, None]
    assert warps.altered(a, b)[0, :, 0].tolist() == [False, False, True, True]
