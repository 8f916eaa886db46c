import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mainspring.errors import DataError
from mainspring.evaluate import rocket as module
from mainspring.evaluate.rocket import KERNELS, LENGTH, MiniRocket, dilations, rocket


def slow_share(series, kernel, dilation, padded, bias) -> float:
    """One feature of one channel, output after output."""
    weights = [2 if place in KERNELS[kernel] else -1 for place in range(LENGTH)]
    reach = dilation * (LENGTH // 2)
    inside = range(len(series)) if padded else range(reach, len(series) - reach)
    above = []
    for t in inside:
        at = [t + (place - LENGTH // 2) * dilation for place in range(LENGTH)]
        seen = [series[i] if 0 <= i < len(series) else 0.0 for i in at]
        above.append(np.dot(weights, seen) > bias)
    return float(np.mean(above)) if above else 0.0


def slow(transform: MiniRocket, series) -> np.ndarray:
    rows = []
    for one in series:
        row = []
        for dilation, groups in transform.groups.items():
            for group in groups:
                line = one[:, list(group.channels)].sum(axis=1)
                how = group.kernel, dilation, group.padded
                row += [slow_share(line, *how, bias) for bias in group.biases]
        rows.append(row)
    return np.array(rows)


def bursts(seed: int, n: int, length: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Fast or slow waves somewhere in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    steps = np.arange(length) - rng.uniform(15, length - 15, size=(n, 1))
    speed = np.where(labels == 0, 0.8, 1.2)[:, None]
    wave = np.sin(speed * steps) * np.exp(-((steps / 8) ** 2))
    return 2 * wave + 0.5 * rng.normal(size=(n, length)), labels


def test_kernels_are_the_papers() -> None:
    assert len(KERNELS) == 84
    assert len(set(KERNELS)) == 84


@pytest.mark.parametrize("length", [5, 9, 24, 150, 1000])
@pytest.mark.parametrize("features", [1, 3, 119])
def test_dilations_grow_to_the_length(length: int, features: int) -> None:
    found = dilations(length, features)
    sizes = [size for size, _ in found]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert len(sizes) <= 32
    assert sum(count for _, count in found) == features
    assert all(count > 0 for _, count in found)
    if length >= LENGTH:
        assert (LENGTH - 1) * sizes[-1] <= length - 1
    if features > 32 and length >= LENGTH:
        assert (LENGTH - 1) * (sizes[-1] + 1) > length - 1, "the last one spans the series"


@pytest.mark.parametrize(("length", "features"), [(24, 119), (150, 119), (1000, 119), (150, 20)])
def test_dilations_by_hand(length: int, features: int) -> None:
    """32 exponents at most; the rest goes to the smallest dilations, one by one."""
    count, top = min(features, 32), np.log2((length - 1) / 8)
    sizes = [int(2 ** (top * at / (count - 1)) + 1e-9) for at in range(count)]
    given = {size: int(sizes.count(size) * features / count) for size in sorted(set(sizes))}
    while (left := features - sum(given.values())) > 0:
        for size in [*given][:left]:
            given[size] += 1
    assert dilations(length, features) == [*given.items()]


def test_padding_takes_turns_over_kernels_and_dilations() -> None:
    groups = MiniRocket(84 * 5).fit(bursts(0, 3)[0]).groups
    assert len(groups) > 1
    for at, kernels in enumerate(groups.values()):
        assert [one.padded for one in kernels] == [(at + k) % 2 == 0 for k in range(84)]


def test_at_most_nine_channels_are_added_up() -> None:
    series = np.random.default_rng(0).normal(size=(3, 30, 20))
    groups = MiniRocket(84 * 4).fit(series).groups
    sizes = np.array([len(one.channels) for kernels in groups.values() for one in kernels])
    assert sizes.max() == 9
    # Log-uniform: floor(2^e) with e up to log2(10).
    assert (sizes == 1).mean() == pytest.approx(1 / np.log2(10), abs=0.08)


def test_the_classifier_is_a_ridge_with_the_papers_penalties() -> None:
    (train, labels), (test, truth) = bursts(0, 30), bursts(1, 40)
    found = rocket(train, labels, test, truth, features=200)
    transform = MiniRocket(200).fit(train)
    ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)))
    ridge.fit(transform.transform(train).astype(float), labels)
    np.testing.assert_array_equal(found.told, ridge.predict(transform.transform(test)))
    assert found.settings["alpha"] == ridge[-1].alpha_


@pytest.mark.parametrize("channels", [1, 3])
def test_shares_equal_a_slow_loop(channels: int, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(length, channels)) for length in (40, 31, 12, 40, 3)]
    transform = MiniRocket(84 * 5, seed=1).fit(series)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", 80)  # two at a time
    monkeypatch.setattr(module, "MOST_COUNTED", 7)
    found = transform.transform(series)
    assert found.shape == (5, 84 * 5)
    # float32: an output that equals a bias but for rounding may fall on either side.
    assert (np.abs(found - slow(transform, series)) > 1e-6).mean() < 0.005
    assert {group.padded for groups in transform.groups.values() for group in groups} == {0, 1}
    if channels == 3:
        sets = {group.channels for groups in transform.groups.values() for group in groups}
        assert {len(some) for some in sets} == {1, 2, 3}


def test_biases_are_quantiles_of_train() -> None:
    """Over many features the shares on train are spread evenly."""
    train = bursts(0, 30)[0]
    shares = MiniRocket(2000).fit(train).transform(train)
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.75]), [0.25, 0.75], atol=0.06)


def test_seeds() -> None:
    train = bursts(0, 10)[0]
    one, same, other = (MiniRocket(200, seed).fit(train).transform(train) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_level_and_length_of_padding_do_not_count() -> None:
    train, _ = bursts(0, 10)
    transform = MiniRocket(500).fit(train)
    alone = transform.transform(train[:1, :45])
    beside = np.full((2, 60), np.nan)
    beside[0, :45], beside[1] = train[0, :45], train[1]
    np.testing.assert_array_equal(transform.transform(beside)[:1], alone)


def test_told_far_beyond_chance_even_with_holes() -> None:
    (train, labels), (test, truth) = bursts(0, 60), bursts(1, 200)
    found = rocket(train, labels, test, truth, features=2000)
    assert found.accuracy > 0.9 > found.chance
    assert found.auprc > 0.95
    holes = np.where(np.random.default_rng(0).random(test.shape) < 0.1, np.nan, test)
    assert rocket(train, labels, holes, truth, features=2000).accuracy > 0.8


def test_labels_at_random_give_chance_and_several_classes_work() -> None:
    train, test = bursts(0, 60)[0], bursts(1, 300)[0]
    rng = np.random.default_rng(0)
    labels, truth = rng.choice(list("abc"), 60), rng.choice(list("abc"), 300)
    found = rocket(train, labels, test, truth, features=500)
    assert found.accuracy == pytest.approx(1 / 3, abs=0.1)
    assert found.scores.shape == (300, 3)


def test_what_cannot_be_transformed() -> None:
    train, _ = bursts(0, 5)
    with pytest.raises(DataError, match="2 channels; `fit` saw 1"):
        MiniRocket(84).fit(train).transform(np.stack([train, train], axis=2))
