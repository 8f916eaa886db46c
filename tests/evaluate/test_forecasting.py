import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mainspring.errors import ConfigError, DataError
from mainspring.evaluate import forecasting
from mainspring.evaluate.forecasting import ETT_HOURLY, PENALTIES, Splits, chronological, forecast


def world(seed: int, instances: int = 1, time: int = 400, channels: int = 2, dim: int = 6):
    """A slow wave with noise; vectors know its recent past and more noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(time)[None, :, None]
    phases = rng.uniform(0, 6, size=(instances, 1, channels))
    data = 20 + 5 * np.sin(steps / 7 + phases) + 2 * rng.normal(size=(instances, time, channels))
    mixing = rng.normal(size=(channels, dim))
    vectors = data @ mixing + np.roll(data, 3, axis=1) @ mixing[::-1]
    return vectors + rng.normal(size=vectors.shape), data


def literal(vectors, data, splits: Splits, horizon: int, drop: int) -> dict:
    """The protocol spelled out with scikit-learn, origin after origin."""
    scaled, raw = [], []
    for one in data:
        scaler = StandardScaler().fit(one[splits.train])
        scaled.append(scaler.transform(one))
        raw.append(scaler.scale_)

    def rows(part: slice, skip: int, strict: bool):
        inputs, targets, whose = [], [], []
        for at, one in enumerate(scaled):
            for t in range(part.start + skip, part.stop):
                following = one[t + 1 : min(t + 1 + horizon, part.stop)]
                if len(following) == horizon and not (strict and np.isnan(following).any()):
                    inputs.append(vectors[at, t])
                    targets.append(following.reshape(-1))
                    whose.append(at)
        return np.array(inputs), np.array(targets), whose

    x, y, _ = rows(splits.train, drop, True)
    vx, vy, _ = rows(splits.valid, 0, False)
    best, least = None, np.inf
    for penalty in PENALTIES:
        error = Ridge(alpha=penalty).fit(x, y).predict(vx) - vy
        score = np.sqrt(np.nanmean(error**2)) + np.nanmean(np.abs(error))
        if score < least:
            best, least = penalty, score
    tx, ty, whose = rows(splits.test, 0, False)
    error = (Ridge(alpha=best).fit(x, y).predict(tx) - ty).reshape(len(tx), horizon, -1)
    in_units = error * np.array([raw[at] for at in whose])[:, None]
    return {
        "penalty": best, "mse": np.nanmean(error**2), "mae": np.nanmean(np.abs(error)),
        "raw_mse": np.nanmean(in_units**2), "raw_mae": np.nanmean(np.abs(in_units)),
        "origins": len(tx),
    }  # fmt: skip


@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize("holes", [0.0, 0.02])
def test_equals_the_protocol_spelled_out(instances: int, holes: float, monkeypatch) -> None:
    vectors, data = world(0, instances)
    data[np.random.default_rng(1).random(data.shape) < holes] = np.nan
    splits = chronological(400)
    monkeypatch.setattr(forecasting, "VALUES_AT_ONCE", 1000)
    found = forecast(vectors, data, splits, (5, 1, 24), drop=20)
    assert list(found) == [5, 1, 24]
    for horizon, result in found.items():
        for name, value in literal(vectors, data, splits, horizon, 20).items():
            assert getattr(result, name) == pytest.approx(value, rel=1e-9), (horizon, name)
        assert np.mean(result.channels) == pytest.approx(result.mse, rel=0.02)
    json.dumps(found[1].to_dict())


def test_one_instance_needs_no_axis_and_horizons_do_not_touch_one_another() -> None:
    vectors, data = world(2)
    splits = chronological(400)
    whole = forecast(vectors, data, splits, (3, 12, 40), drop=10)
    alone = forecast(vectors[0], data[0], splits, (12,), drop=10)
    assert alone[12].mse == pytest.approx(whole[12].mse, rel=1e-9)
    assert alone[12].penalty == whole[12].penalty


def test_the_future_and_the_test_part_are_never_seen() -> None:
    vectors, data = world(3)
    splits = chronological(400, (240, 80, 60))
    base = forecast(vectors, data, splits, (10,), drop=10)[10]
    # What lies past the test part is not looked at.
    later = data.copy()
    later[:, 380:] = 1e6
    assert forecast(vectors, later, splits, (10,), drop=10)[10] == base
    # What is in test changes neither scale nor penalty: errors grow as the values do.
    moved = data.copy()
    moved[:, 320:380] += 100
    deviation = data[0, :240].std(axis=0)
    shifted = forecast(vectors, moved, splits, (10,), drop=10)[10]
    assert shifted.penalty == base.penalty
    assert shifted.mae == pytest.approx(np.mean(100 / deviation), rel=0.1)


def test_units_do_not_matter_once_standardised() -> None:
    vectors, data = world(4)
    splits = chronological(400)
    base = forecast(vectors, data, splits, (6,), drop=0)[6]
    other = forecast(vectors, data * [3.0, 0.01] - 7, splits, (6,), drop=0)[6]
    assert other.mse == pytest.approx(base.mse)
    assert other.raw_mse != pytest.approx(base.raw_mse)
    twice = forecast(vectors, data * 2, splits, (6,), drop=0)[6]
    assert twice.raw_mse == pytest.approx(4 * base.raw_mse)
    assert twice.raw_mae == pytest.approx(2 * base.raw_mae)


def test_noise_is_forecast_by_its_mean() -> None:
    rng = np.random.default_rng(0)
    found = forecast(
        rng.normal(size=(3000, 4)), rng.normal(size=(3000, 1)), chronological(3000), (5,)
    )
    assert found[5].mse == pytest.approx(1, abs=0.15)


def test_a_draw_of_origins_is_nearly_as_good() -> None:
    vectors, data = world(5, instances=4, time=1000)
    splits = chronological(1000)
    whole = forecast(vectors, data, splits, (2, 20), drop=0)
    some = forecast(vectors, data, splits, (2, 20), drop=0, rows=500)
    for horizon in (2, 20):
        assert some[horizon].origins == whole[horizon].origins
        assert some[horizon].mse == pytest.approx(whole[horizon].mse, rel=0.1)
        assert some[horizon].mse != whole[horizon].mse


def test_origins_are_drawn_from_the_whole_part() -> None:
    """Signs turn in the middle of train: a map fitted to its beginning alone is off by twice the
    values, one fitted to both halves tells the mean."""
    vectors = np.random.default_rng(0).normal(size=(2000, 1))
    sign = np.where(np.arange(2000) < 600, 1, -1)[:, None]
    data = np.concatenate([np.zeros((1, 1)), (sign * vectors)[:-1]])
    found = forecast(vectors, data, chronological(2000), (1,), drop=0, rows=500)
    assert found[1].mse == pytest.approx(1, abs=0.5)


def test_a_constant_channel_is_forecast_as_such() -> None:
    vectors, data = world(6)
    data[..., 1] = 0.1
    found = forecast(vectors, data, chronological(400), (4,), drop=0)[4]
    assert found.channels[1] < 1e-15
    data[:, 320:, 1] = 2.1  # constant in train, it is only moved: errors are in the data's units
    found = forecast(vectors, data, chronological(400), (4,), drop=0)[4]
    assert found.channels[1] == pytest.approx(4)


def test_parts() -> None:
    found = chronological(17420, ETT_HOURLY)
    assert (found.train, found.valid, found.test) == (
        slice(0, 8640), slice(8640, 11520), slice(11520, 14400),
    )  # fmt: skip
    found = chronological(10, (0.7, 0.2, 0.1))
    assert (found.train, found.valid, found.test) == (slice(0, 7), slice(7, 9), slice(9, 10))
    for parts in ((0.8, 0.2, 0.2), (5, 5, 5), (0.9, 0.1), (0.9, 0.05, 0.05), (8, -1, 3)):
        with pytest.raises(ConfigError, match="three"):
            chronological(10, parts)


def test_what_cannot_be_forecast() -> None:
    vectors, data = world(7)
    splits = chronological(400)
    with pytest.raises(DataError, match="No step of train is followed by 230 known"):
        forecast(vectors, data, splits, (230,), drop=20)
    with pytest.raises(DataError, match="validation part is followed by 80"):
        forecast(vectors, data, splits, (80,), drop=20)
    broken = vectors.copy()
    broken[0, 3] = np.nan
    with pytest.raises(DataError, match="1 of 400 vectors"):
        forecast(broken, data, splits, (1,))
    data[0, :240, 1] = np.nan
    with pytest.raises(DataError, match="Channel 1 of instance 0"):
        forecast(vectors, data, splits, (1,))
