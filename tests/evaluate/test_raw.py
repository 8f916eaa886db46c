import numpy as np
import pytest

from mainspring.encoders.logmel import mel_filters
from mainspring.errors import ConfigError
from mainspring.evaluate.raw import LAGS, POINTS, raw_features


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_video_by_a_slow_reference(rng) -> None:
    clip = rng.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    found = raw_features("video", clip, np.ones((2, 3), bool))
    pixels = clip.astype(np.float64) / 255
    colour = pixels.mean(1).reshape(2, 4, 4, 4, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    grey = pixels.mean(-1).reshape(2, 3, 8, 2, 8, 2).mean((3, 5)).reshape(2, 3, 64)
    change = grey[:, 1:] - grey[:, :-1]
    expected = [colour.reshape(2, -1), grey.reshape(2, -1), change.reshape(2, -1)]
    expected.append(np.abs(change).mean(1))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-5)


def test_video_tells_direction_and_a_single_frame_works(rng) -> None:
    clip = rng.integers(0, 256, (1, 4, 20, 12, 3), dtype=np.uint8)
    present = np.ones((1, 4), bool)
    forward, backward = (raw_features("video", c, present) for c in (clip, clip[:, ::-1]))
    np.testing.assert_allclose(forward[:, :48], backward[:, :48], atol=1e-6)
    assert np.abs(forward - backward).max() > 0.05
    assert np.isfinite(raw_features("video", clip[:, :1], present[:, :1])).all()


def test_a_tone_lights_its_mel_band(rng) -> None:
    rate = 16_000.0
    bank = mel_filters(rate, 512, 64)
    time = np.arange(16_000) / rate
    for hertz in (300.0, 1000.0, 4000.0):
        tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)[None]
        found = raw_features("audio", tone, np.ones((1, 16_000), bool), rate)
        expected = bank[:, round(hertz / rate * 512)].argmax()
        assert abs(int(found[0, :64].argmax()) - int(expected)) <= 1
        assert found[0, 64:128].max() < 1.5, "a steady tone hardly changes"


def test_sound_shorter_than_a_frame_and_silence() -> None:
    found = raw_features("audio", np.zeros((2, 100), np.float32), np.ones((2, 100), bool), 16_000.0)
    assert found.shape == (2, 256)
    assert np.isfinite(found).all()


def test_padding_of_sound_is_silence(rng) -> None:
    sound = rng.normal(size=(1, 8000)).astype(np.float32)
    present = np.arange(8000)[None] < 5000
    found = raw_features("audio", sound, present, 16_000.0)
    silenced = np.where(present, sound, 0)
    np.testing.assert_array_equal(found, raw_features("audio", silenced, present | True, 16_000.0))


def test_series_by_hand(rng) -> None:
    values = rng.normal(size=(1, 50, 2)).astype(np.float32)
    found = raw_features("series", values, np.ones((1, 50), bool))[0].reshape(2, -1)
    for channel in range(2):
        x = values[0, :, channel].astype(np.float64)
        np.testing.assert_allclose(
            found[channel, :5], [x.mean(), x.std(), x.min(), x.max(), 0], atol=1e-6
        )
        centred = x - x.mean()
        for place, lag in enumerate(LAGS):
            expected = (centred[:-lag] * centred[lag:]).mean() / x.var()
            assert found[channel, 5 + place] == pytest.approx(expected, abs=1e-5)
        assert found[channel, -POINTS] == pytest.approx(x[0])
        assert found[channel, -1] == pytest.approx(x[-1])


def test_missing_values_and_padding_change_little(rng) -> None:
    time = np.arange(64)
    whole = np.sin(time / 5).astype(np.float32)[None, :, None]
    holes = whole.copy()
    holes[0, [3, 20, 21, 40]] = np.nan
    padded = np.concatenate([whole, np.full((1, 20, 1), np.nan, np.float32)], axis=1)
    reference = raw_features("series", whole, np.ones((1, 64), bool))
    with_holes = raw_features("series", holes, np.ones((1, 64), bool))
    assert with_holes[0, 4] == pytest.approx(4 / 64)
    np.testing.assert_allclose(np.delete(with_holes, 4), np.delete(reference, 4), atol=0.06)
    present = np.arange(84)[None] < 64
    np.testing.assert_allclose(raw_features("series", padded, present), reference, atol=1e-6)


def test_nothing_known_and_constant_series_are_finite() -> None:
    values = np.full((2, 10, 1), np.nan, np.float32)
    values[1] = 3
    present = np.ones((2, 10), bool)
    present[0] = False
    found = raw_features("series", values, present)
    assert np.isfinite(found).all()
    assert found[0, 4] == 1
    assert (found[1, 5:11] == 0).all()
    assert (found[1, 11:] == 3).all()


def test_other_streams() -> None:
    with pytest.raises(ConfigError, match=r"Unknown stream 'vdeo'. Did you mean 'video'"):
        raw_features("vdeo", np.zeros((1, 1)), np.ones((1, 1), bool))


def test_words_are_counted_and_what_is_no_word_is_not():
    samples = np.array([[5, 5, 9, 0], [9, 7, 0, 0]])
    present = np.array([[True] * 4, [True, False, True, True]])
    features = raw_features("text", samples, present)
    assert features[0, 5] == 2
    assert features[0, 9] == features[1, 9] == 1
    assert features.sum() == 4
