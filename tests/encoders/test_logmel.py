import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mainspring.augment.audio import spec_augment
from mainspring.encoders.logmel import BasicBlock, LogMel, hertz_to_mel, mel_filters, mel_to_hertz
from mainspring.errors import ConfigError

RATE = 16000


def tone(hertz: float, amplitude: float = 0.5, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return amplitude * torch.sin(2 * torch.pi * hertz * time)[None]


def noise(n: int = 2, time: int = RATE) -> torch.Tensor:
    return 0.1 * torch.randn(n, time, generator=torch.Generator().manual_seed(0))


def small(**settings) -> LogMel:
    torch.manual_seed(0)
    return LogMel(**{"width": 8, **settings}).eval()


# -- the mel scale and its filters ----------------------------------------------------------------


def test_known_values_of_the_htk_scale():
    assert hertz_to_mel(0) == 0
    assert float(hertz_to_mel(1000)) == pytest.approx(1000, abs=0.05)
    assert float(hertz_to_mel(8000)) == pytest.approx(2840.02, abs=0.01)
    frequencies = np.linspace(0, 24000, 50)
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(frequencies)), frequencies, atol=1e-8)


@pytest.mark.parametrize(
    ("rate", "bins", "mels"), [(16000, 512, 40), (8000, 256, 40), (44100, 2048, 80)]
)
def test_filters_are_triangles_that_sum_to_one(rate, bins, mels):
    filters = mel_filters(rate, bins, mels)
    assert filters.shape == (mels, bins // 2 + 1)
    assert filters.min() == 0
    assert filters.max() <= 1
    assert filters.any(1).all()
    frequency = np.arange(bins // 2 + 1) * rate / bins
    centre = mel_to_hertz(np.linspace(0, hertz_to_mel(rate / 2), mels + 2))
    between = (frequency >= centre[1]) & (frequency <= centre[-2])
    np.testing.assert_allclose(filters[:, between].sum(0), 1, atol=1e-12)
    for m in range(mels):
        outside = (frequency <= centre[m]) | (frequency >= centre[m + 2])
        assert not filters[m, outside].any()
        want = np.interp(frequency, centre[m : m + 3], [0, 1, 0])
        np.testing.assert_allclose(filters[m], want, atol=1e-12)


# -- the spectrogram ------------------------------------------------------------------------------


def slow_spectrogram(wave: np.ndarray) -> np.ndarray:
    """Frame by frame in float64."""
    padded = np.concatenate([np.zeros(256), wave, np.zeros(256)])
    taper = np.zeros(512)
    taper[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    taper *= 2 / taper.sum()
    rows = []
    for start in range(0, len(wave) + 1, 160):
        power = np.abs(np.fft.rfft(padded[start : start + 512] * taper)) ** 2
        rows.append(np.log(mel_filters(RATE, 512, 40) @ power + 1e-10))
    return np.array(rows)


def test_spectrogram_equals_a_slow_float64_reference():
    wave = noise(1)
    got = small().spectrogram(wave)[0].numpy()
    assert got.shape == (101, 40)
    np.testing.assert_allclose(got, slow_spectrogram(wave[0].double().numpy()), atol=1e-3)


def test_gdts_spectrogram_has_40_bands_and_99_frames_and_equals_a_slow_reference():
    encoder = small(rate=24000, window=0.02, hop=0.01, centred=False)
    wave = noise(1, 24000)
    got = encoder.spectrogram(wave)[0].numpy()
    assert got.shape == (99, 40)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480)
    taper *= 2 / taper.sum()
    exact = wave[0].double().numpy()
    power = [
        np.abs(np.fft.rfft(exact[s : s + 480] * taper, 512)) ** 2 for s in range(0, 23521, 240)
    ]
    want = np.log(mel_filters(24000, 512, 40) @ np.array(power).T + 1e-10).T
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_uncentred_windows_are_the_centred_ones_half_a_window_later():
    settings = {"rate": 24000, "window": 0.02, "hop": 0.01}
    wave = noise(1, 24000)
    centred = small(**settings).spectrogram(wave)
    inside = small(**settings, centred=False).spectrogram(wave)
    torch.testing.assert_close(inside, centred[:, 1:100], atol=1e-3, rtol=0)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_its_own_band(hertz):
    levels = small().spectrogram(tone(hertz))[0, 20:80].mean(0)
    centre = mel_to_hertz(np.linspace(0, hertz_to_mel(RATE / 2), 42))[1:-1]
    assert int(levels.argmax()) == int(np.abs(centre - hertz).argmin())


def test_levels_are_those_of_the_amplitude():
    encoder = small()
    centre = float(mel_to_hertz(np.linspace(0, hertz_to_mel(RATE / 2), 42))[20])
    loud, soft = (float(encoder.spectrogram(tone(centre, a))[0, 50].max()) for a in (0.5, 0.05))
    assert loud - soft == pytest.approx(np.log(100), abs=1e-3)
    # a² in each of the 1.5 bins of a Hann window's main lobe, 512 / 400 times as many with padding.
    assert loud == pytest.approx(np.log(0.25 * 1.5 * 512 / 400), abs=0.2)


def test_silence_is_the_floor_and_stays_finite():
    silence = torch.zeros(2, RATE)
    for normalise in ("clip", "fixed"):
        encoder = small(normalise=normalise).train()
        levels = encoder.spectrogram(silence)
        torch.testing.assert_close(levels, torch.full_like(levels, float(np.log(1e-10))))
        out = encoder(silence)
        out.sum().backward()
        assert out.isfinite().all()
        assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert not small().prepare(silence).abs().gt(1e-4).any()


def test_it_is_computed_in_float32_under_autocast():
    encoder = small()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = encoder.prepare(noise())
    assert under.dtype == torch.float32
    assert torch.equal(under, encoder.prepare(noise()))


def test_a_clips_own_level_is_taken_out_or_kept():
    sound = noise()
    levels = small().prepare(sound)
    torch.testing.assert_close(levels.mean((1, 2)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(levels.std((1, 2)), torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(small().prepare(sound / 4), levels, atol=1e-3, rtol=0)
    fixed = small(normalise="fixed")
    torch.testing.assert_close(fixed.prepare(sound), (fixed.spectrogram(sound) + 13) / 6)
    difference = fixed.prepare(sound) - fixed.prepare(sound / 4)
    torch.testing.assert_close(
        difference, torch.full_like(difference, float(np.log(16) / 6)), atol=1e-2, rtol=0
    )


def test_sound_played_backwards_is_the_spectrogram_played_backwards():
    levels = small().spectrogram(noise())
    backwards = small().spectrogram(noise().flip(1))
    inner = slice(5, -5)
    assert (levels - backwards.flip(1))[:, inner].abs().median() < 0.2
    assert (levels - backwards)[:, inner].abs().median() > 0.5


# -- the encoder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_equals_its_formula_in_float64(stride):
    torch.manual_seed(0)
    block = BasicBlock(4, 4 * stride, stride).double().train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    weight = dict(block.named_parameters())

    def normed(x, name):
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        gain = weight[f"{name}.weight"] / (variance + 1e-5).sqrt()
        offset = weight[f"{name}.bias"] - mean * gain
        return x * gain[:, None, None] + offset[:, None, None]

    x = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    inner = F.conv2d(x, weight["conv1.weight"], stride=stride, padding=1)
    inner = F.conv2d(normed(inner, "norm1").clamp(min=0), weight["conv2.weight"], padding=1)
    shortcut = x
    if stride > 1:
        shortcut = normed(F.conv2d(x, weight["shortcut.0.weight"], stride=stride), "shortcut.1")
    torch.testing.assert_close(block(x), (normed(inner, "norm2") + shortcut).clamp(min=0))


def test_tokens_lie_on_a_grid_of_time_and_frequency():
    encoder = LogMel().eval()
    assert encoder.tokens(noise()).shape == (2, 7, 3, encoder.dim)
    assert encoder.dim == 128
    torch.testing.assert_close(encoder(noise()), encoder.tokens(noise()).mean((1, 2)))
    assert encoder.tokens(noise(time=4 * RATE)).shape[1] == 26


@pytest.mark.parametrize("time", [1, 10, 300])
def test_very_short_sounds_are_encoded(time):
    assert small()(noise(time=time)).isfinite().all()
    assert small(centred=False).spectrogram(noise(time=time)).shape[1] == 1
    assert small(centred=False)(noise(time=time)).isfinite().all()


def test_what_lies_in_padding_is_never_heard():
    encoder, sound = small(), noise()
    present = (torch.arange(RATE) < 9000).expand(2, RATE)
    loud = torch.where(present, sound, torch.nan)
    assert torch.equal(encoder(loud, present), encoder(sound, present))
    assert not torch.allclose(encoder(sound, present), encoder(sound))
    assert encoder(sound, torch.zeros(2, RATE, dtype=torch.bool)).isfinite().all()


def test_the_embedding_leaves_padding_out():
    encoder = small()
    tokens = torch.arange(7.0)[None, :, None, None].expand(1, 7, 3, encoder.dim)
    present = (torch.arange(RATE) < 16 * 160 * 3).expand(1, RATE)  # the times of tokens 0, 1, 2
    torch.testing.assert_close(encoder.embed(tokens, present), torch.ones(1, encoder.dim))
    inside = small(centred=False)
    half = (torch.arange(RATE) < 16 * 160 * 2 + 100).expand(1, RATE)
    torch.testing.assert_close(encoder.embed(tokens, half)[0, 0].item(), 1.0)
    torch.testing.assert_close(inside.embed(tokens, half)[0, 0].item(), 0.5)  # token 2 is later
    everywhere = torch.ones(1, RATE, dtype=torch.bool)
    torch.testing.assert_close(encoder.embed(tokens, everywhere), encoder.embed(tokens))


def test_a_spectrogram_can_be_masked_on_its_way():
    encoder = small()
    prepared = encoder.prepare(noise())
    masked = spec_augment(prepared, torch.Generator().manual_seed(0))
    tokens = encoder.trunk(encoder.stem(masked))
    assert tokens.shape == encoder.tokens(noise()).shape
    assert not torch.allclose(tokens, encoder.tokens(noise()))


def test_settings_build_the_same_encoder_again():
    encoder = small(normalise="fixed", mels=32)
    again = LogMel(**json.loads(json.dumps(encoder.settings))).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(noise()), encoder(noise()))
    assert not any("filters" in key or "taper" in key for key in encoder.state_dict())


def test_encoders_saved_before_windows_had_a_choice_still_load():
    old = {k: v for k, v in small().settings.items() if k != "centred"}
    again = LogMel(**old).eval()
    again.load_state_dict(small().state_dict())
    assert torch.equal(again(noise()), small()(noise()))
    assert again.settings["centred"] is True


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"Unknown normalise 'fix'\. Did you mean 'fixed'"):
        LogMel(normalise="fix")
    with pytest.raises(ConfigError, match=r"400 mel bands at 16000 Hz .* fewer bands"):
        LogMel(mels=400)
    with pytest.raises(ConfigError, match="width 0"):
        LogMel(width=0)
