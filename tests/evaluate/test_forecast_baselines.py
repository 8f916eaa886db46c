import numpy as np
import pytest

from mainspring.evaluate.forecast_baselines import (
    LAST,
    MEAN,
    RIDGE,
    SEASON,
    carried,
    forecast_baselines,
    guess_period,
    raw_windows,
)
from mainspring.evaluate.forecasting import chronological


def season(time: int = 600, period: int = 24, noise: float = 0.2, trend: float = 0.0):
    rng = np.random.default_rng(0)
    shape = np.random.default_rng(1).normal(size=period)
    steps = np.arange(time)
    return (10 + 3 * shape[steps % period] + trend * steps + noise * rng.normal(size=time))[:, None]


def slow(data, splits, horizon: int, told) -> float:
    """Mean squared error of standardised values, origin after origin."""
    train = data[splits.train]
    scaled = (data - train.mean(axis=0)) / train.std(axis=0)
    errors = [
        (told(scaled[: t + 1], ahead) - scaled[t + ahead]) ** 2
        for t in range(splits.test.start, splits.test.stop - horizon)
        for ahead in range(1, horizon + 1)
    ]
    return float(np.mean(errors))


def test_equal_slow_loops() -> None:
    data = season(period=10)
    splits = chronological(600)
    found = forecast_baselines(data, splits, (3, 25), period=10, window=12, drop=12)

    def same_phase(past, ahead):
        at = len(past) - 1 + ahead
        while at >= len(past):
            at -= 10
        return past[at]

    for horizon in (3, 25):
        assert found[MEAN][horizon].mse == pytest.approx(
            slow(data, splits, horizon, lambda past, ahead: 0)
        )
        assert found[LAST][horizon].mse == pytest.approx(
            slow(data, splits, horizon, lambda past, ahead: past[-1])
        )
        assert found[SEASON][horizon].mse == pytest.approx(slow(data, splits, horizon, same_phase))
        origins = {method[horizon].origins for method in found.values()}
        assert origins == {120 - horizon}, "the same for all"


def test_order_on_a_seasonal_series() -> None:
    found = {n: m[12].mse for n, m in forecast_baselines(
        season(1500), chronological(1500), (12,), window=48, drop=48
    ).items()}  # fmt: skip
    assert found[RIDGE] < found[SEASON] < found[MEAN] < found[LAST]
    assert found[MEAN] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("period", [7, 24, 96])
@pytest.mark.parametrize("trend", [0.0, 0.01])
def test_period_is_guessed(period: int, trend: float) -> None:
    assert guess_period(season(period=period, noise=0.5, trend=trend)[None]) == period


def test_smooth_seasons_and_days_in_weeks() -> None:
    steps = np.arange(24 * 7 * 30)
    rng = np.random.default_rng(0)
    day, week = np.sin(2 * np.pi * steps / 24), np.sin(2 * np.pi * steps / 168)
    noise = 0.1 * rng.normal(size=len(steps))
    assert guess_period((day + noise)[None, :, None]) == 24
    assert guess_period((day + 2 * week + noise)[None, :, None]) == 168, "a week holds days"


def test_without_a_season_it_is_persistence() -> None:
    rng = np.random.default_rng(0)
    assert guess_period(np.zeros((1, 50, 2))) == 1
    assert guess_period(np.arange(100.0)[None, :, None]) == 1
    data = np.cumsum(rng.normal(size=(900, 1)), axis=0)
    found = forecast_baselines(data, chronological(900), (4,), period=1, window=5)
    assert found[SEASON][4] == found[LAST][4]


def test_missing_values_are_the_last_known() -> None:
    values = np.array([[[np.nan], [1], [np.nan], [np.nan], [4]]])
    np.testing.assert_array_equal(carried(values)[0, :, 0], [0, 1, 1, 1, 4])
    data = season()
    data[np.random.default_rng(2).random(data.shape) < 0.05] = np.nan
    found = forecast_baselines(data, chronological(600), (5,), period=24, window=24, drop=24)
    assert all(np.isfinite(method[5].mse) for method in found.values())
    assert found[SEASON][5].mse < 0.3
    units = [method[5].raw_mse / method[5].mse for method in found.values()]
    assert units == pytest.approx([np.nanvar(data[:360])] * 4), "of what is known, in its units"


def test_windows_end_at_their_step() -> None:
    values = np.arange(10.0).reshape(1, 5, 2)
    found = raw_windows(values, 3)
    for t in range(5):
        past = [values[0, s] if s >= 0 else np.zeros(2) for s in (t - 2, t - 1, t)]
        np.testing.assert_array_equal(found[0, t], np.stack(past, axis=1).reshape(-1))
