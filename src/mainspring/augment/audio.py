"""Content changes of sound: gain, polarity, noise and silence on waveforms, masks on spectrograms.

Waveforms are (n, time) floats, spectrograms (n, frame, band). One draw a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mainspring.errors import ConfigError

Waveforms = Float[Tensor, "n time"]


@dataclass(frozen=True)
class AudioAugment:
    """Random changes of a waveform, drawn once a view. With every setting 0 nothing is changed.

    The order is fixed: gain, polarity, noise, hide. The strengths are ours to set, no paper's.

    Attributes:
        gain: The view is made louder or softer by U[-gain, gain] decibels (GDT's volume of
            ± 10 % is about 0.9).
        polarity: Chance of turning the waveform upside down, which nobody hears.
        noise: White noise of a standard deviation of U[0, noise] times the view's root mean
            square is added (0.1 is 20 dB below the sound). Silence stays silent.
        hide: One stretch of U[0, hide] of the view is silenced.

    Raises:
        ConfigError: If a setting is out of range.
    """

    gain: float = 0.0
    polarity: float = 0.0
    noise: float = 0.0
    hide: float = 0.0

    def __post_init__(self) -> None:
        for name in ("polarity", "hide"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        for name in ("gain", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")

    def __call__(self, samples: Waveforms, generator: torch.Generator) -> Waveforms:
        """Draws and applies the changes; deterministic given the generator's state."""
        n, time = samples.shape
        if self.gain:
            decibels = (2 * uniform(n, samples, generator) - 1) * self.gain
            samples = samples * (10 ** (decibels / 20))[:, None]
        if self.polarity:
            upside_down = uniform(n, samples, generator) < self.polarity
            samples = torch.where(upside_down[:, None], -samples, samples)
        if self.noise:
            level = samples.square().mean(1, keepdim=True).sqrt()
            level = level * self.noise * uniform(n, samples, generator)[:, None]
            samples = samples + level * normal((n, time), samples, generator)
        if self.hide:
            hidden = stretch(time, self.hide * time * uniform(n, samples, generator), generator)
            samples = samples.masked_fill(hidden, 0.0)
        return samples

    def still(self, samples: Waveforms) -> Waveforms:
        """The change for evaluation: none."""
        return samples


def spec_augment(
    spectrogram: Float[Tensor, "n frame band"],
    generator: torch.Generator,
    *,
    frames: int = 25,
    frame_masks: int = 1,
    frame_share: float = 1.0,
    bands: int = 10,
    band_masks: int = 1,
) -> Float[Tensor, "n frame band"]:
    """SpecAugment (Park et al., Interspeech 2019, Section 2) without the time warp, which
    the paper's discussion finds to be no major factor.

    A mask of bands is f ~ U[0, F] wide and begins at U[0, bands - f); a mask of frames is
    t ~ U[0, T] wide and begins at U[0, frames - t). Masked cells become 0, the mean of a
    spectrogram that was normalised. The paper's policies (F 27 of 80 bands, T 100 frames of
    utterances of some 15 s) do not carry over to clips of 1 s; the defaults are ours: a quarter
    of 100 frames and of 40 bands at most.

    Args:
        spectrogram: Normalised spectrogram.
        generator: Source of the masks.
        frames: T, greatest width of a mask in time.
        frame_masks: m_T, number of masks in time.
        frame_share: p, a mask is at most this share of all frames wide.
        bands: F, greatest width of a mask in frequency.
        band_masks: m_F, number of masks in frequency.

    Raises:
        ConfigError: If a mask could be wider than the spectrogram is high.
    """
    n, length, height = spectrogram.shape
    if bands > height:
        raise ConfigError(
            f"A mask of {bands} bands was asked of a spectrogram of {height}; use fewer bands."
        )
    widest = min(frames, int(frame_share * length))
    for _ in range(frame_masks):
        wide = ((widest + 1) * uniform(n, spectrogram, generator)).floor()
        hidden = stretch(length, wide, generator)
        spectrogram = spectrogram.masked_fill(hidden[:, :, None], 0.0)
    for _ in range(band_masks):
        wide = ((bands + 1) * uniform(n, spectrogram, generator)).floor()
        hidden = stretch(height, wide, generator)
        spectrogram = spectrogram.masked_fill(hidden[:, None, :], 0.0)
    return spectrogram


def stretch(
    length: int, wide: Float[Tensor, "n"], generator: torch.Generator
) -> Bool[Tensor, "n length"]:
    """True on floor(`wide`) places in a row, which begin anywhere that they fit, all alike."""
    wide = wide.floor()
    start = ((length - wide + 1) * uniform(len(wide), wide, generator)).floor()
    place = torch.arange(length, device=wide.device)
    return (place >= start[:, None]) & (place < (start + wide)[:, None])


def uniform(n: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n"]:
    """One draw of U[0, 1) a view, on the device of `like`."""
    return torch.rand(n, generator=generator, device=generator.device).to(like.device)


def normal(size: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of N(0, 1), on the device of `like`."""
    return torch.randn(size, generator=generator, device=generator.device).to(like.device)
