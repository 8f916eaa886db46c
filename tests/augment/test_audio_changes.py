import pytest
import torch

from mainspring.augment.audio import AudioAugment, spec_augment, stretch
from mainspring.errors import ConfigError


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sound(n: int = 64, time: int = 1000) -> torch.Tensor:
    return 0.1 * torch.randn(n, time, generator=dice(99))


def test_with_every_setting_zero_nothing_is_changed():
    samples = sound()
    assert torch.equal(AudioAugment()(samples, dice()), samples)
    assert torch.equal(AudioAugment(gain=6, noise=0.1).still(samples), samples)


def test_the_same_generator_gives_the_same_views():
    augment = AudioAugment(gain=6, polarity=0.5, noise=0.1, hide=0.3)
    assert torch.equal(augment(sound(), dice(1)), augment(sound(), dice(1)))
    assert not torch.equal(augment(sound(), dice(1)), augment(sound(), dice(2)))


def test_gain_scales_a_view_as_a_whole_within_its_decibels():
    ratio = AudioAugment(gain=6)(sound(), dice()) / sound()
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    decibels = 20 * ratio[:, 0].log10()
    assert -6 <= decibels.min() < -4
    assert 4 < decibels.max() <= 6


def test_polarity_turns_about_its_share_upside_down():
    sign = AudioAugment(polarity=0.25)(sound(400), dice()) / sound(400)
    assert torch.equal(sign.abs(), torch.ones_like(sign))
    assert 0.18 < (sign[:, 0] < 0).float().mean() < 0.32


def test_noise_is_relative_to_loudness_and_leaves_silence():
    samples = sound() * torch.logspace(-3, 0, 64)[:, None]
    samples[0] = 0
    added = AudioAugment(noise=0.1)(samples, dice()) - samples
    assert torch.equal(added[0], torch.zeros_like(added[0]))
    level = added[1:].std(1) / samples[1:].std(1)
    assert level.max() < 0.11
    assert abs(level.mean() - 0.05) < 0.015


def test_hide_silences_one_stretch_of_at_most_its_share():
    hidden = AudioAugment(hide=0.3)(sound(), dice()) == 0
    assert 0.2 < hidden.float().mean(1).max() <= 0.3
    edges = (hidden[:, 1:] != hidden[:, :-1]).sum(1)
    assert edges.max() <= 2


def test_a_stretch_begins_anywhere_it_fits():
    hidden = stretch(5, torch.full((3000,), 2.0), dice())
    assert torch.equal(hidden.sum(1), torch.full((3000,), 2))
    starts = hidden.int().argmax(1).bincount(minlength=4) / 3000
    torch.testing.assert_close(starts, torch.full((4,), 0.25), atol=0.04, rtol=0)


def test_a_stretch_of_parts_of_a_place_is_of_whole_places():
    assert torch.equal(stretch(5, torch.full((300,), 2.7), dice()).sum(1), torch.full((300,), 2))


def test_spec_augment_masks_whole_frames_and_whole_bands():
    spectrogram = torch.ones(500, 60, 20)
    masked = spec_augment(spectrogram, dice(), frames=10, bands=5) == 0
    frames, bands = masked.all(2), masked.all(1)
    assert torch.equal(masked, frames[:, :, None] | bands[:, None, :])
    # Widths are U{0..T} and U{0..F}.
    assert set(frames.sum(1).tolist()) == set(range(11))
    assert set(bands.sum(1).tolist()) == set(range(6))
    assert abs(frames.sum(1).float().mean() - 5) < 0.5


def test_spec_augment_keeps_to_its_share_and_number_of_masks():
    spectrogram = torch.ones(200, 10, 20)
    masked = spec_augment(spectrogram, dice(), frames=10, frame_share=0.3, bands=0) == 0
    assert masked.all(2).sum(1).max() == 3
    two = spec_augment(spectrogram, dice(), frames=2, frame_masks=2, band_masks=0) == 0
    assert two.all(2).sum(1).max() == 4
    none = spec_augment(spectrogram, dice(), frame_masks=0, band_masks=0)
    assert torch.equal(none, spectrogram)


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"hide is 1\.5; it must lie between 0 and 1"):
        AudioAugment(hide=1.5)
    with pytest.raises(ConfigError, match="gain is -1; it must not be negative"):
        AudioAugment(gain=-1)
    with pytest.raises(ConfigError, match=r"mask of 10 bands .* spectrogram of 8"):
        spec_augment(torch.zeros(1, 50, 8), dice())
    assert spec_augment(torch.zeros(1, 5, 12), dice()).shape == (
        1,
        5,
        12,
    )  # few frames are no error
