"""A log-mel spectrogram and a small residual network: the encoder for sound."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, unknown

Waveforms = Float[Tensor, "n time"]
Spectrogram = Float[Tensor, "n frame mel"]
Present = Bool[Tensor, "n time"] | None

NORMALISE = ("clip", "fixed")
FLOOR = 1e-10  # power that counts as silence: 100 dB below an amplitude of 1
# Of the logarithms of ESC-10 at the default settings (measured on every eighth clip).
FIXED_MEAN, FIXED_SCALE = -13.0, 6.0


class LogMel(Encoder):
    """Log-mel bands and a ResNet-9 (one basic block in each of four stages) over time and
    frequency, of the kind that GDT (Patrick et al., ICCV 2021) uses for sound.

    The spectrogram: Hann windows of 25 ms every 10 ms, centred on multiples of 10 ms with silence
    beyond the ends (101 frames a second of sound), power in units of amplitude², triangular bands
    evenly spaced on the HTK mel scale from 0 Hz to half the rate, each with its peak at 1, natural
    logarithm of power + 1e-10. It is computed in float32 whatever autocast says.

    The network: 3×3 stem of stride 2, then 1, 2, 4 and 8 times `width` channels, the last three
    stages of stride 2: 7 × 3 tokens of a second of 40 bands. GDT's code has 40 bands every 10 ms
    of 1 s of sound too (with pre-emphasis and no taper), and a stem of 7×7 with pooling; the
    window, the stem without pooling and the default width, on which one core trains with some
    hundreds of clips a second, are ours. GDT's 40 × 99 are `rate=24000, window=0.02,
    centred=False`.

    Padding (`present` False) is heard as silence and left out of the embedding's mean, so long as
    anything else is there.

    Args:
        rate: Samples per second of the clips it is given.
        mels: Number of bands.
        window: Seconds in a window.
        hop: Seconds from one window to the next.
        width: Channels of the first stage (ResNet: 64); `dim` is 8 times that.
        normalise: "clip": mean and standard deviation over all cells of a view are taken out, so
            neither the loudness of the whole nor its dynamic range is seen, and recordings made at
            different levels compare. "fixed": one mean and scale for all sound; keeps loudness.
        centred: Whether windows are centred on multiples of the hop, with silence beyond the ends;
            otherwise the first begins with the sound and the last ends within it.

    Raises:
        ConfigError: If a setting is unknown or there are more bands than the window resolves.
    """

    name: ClassVar[str] = "logmel"
    stream: ClassVar[str] = "audio"
    clip: ClassVar[ClipSpec] = ClipSpec(length=16000, rate=16000, stride=1)
    citation: ClassVar[str] = (
        "He et al., Deep Residual Learning, CVPR 2016, on log-mel bands as in "
        "Patrick et al., On Compositions of Transformations (GDT), ICCV 2021"
    )

    filters: Tensor
    taper: Tensor

    def __init__(
        self,
        rate: int = 16000,
        mels: int = 40,
        window: float = 0.025,
        hop: float = 0.010,
        width: int = 16,
        normalise: str = "clip",
        centred: bool = True,
    ) -> None:
        super().__init__()
        if min(rate, mels, window, hop, width) <= 0:
            raise ConfigError(
                f"rate {rate}, mels {mels}, window {window}, hop {hop} and width {width} must all "
                "be positive."
            )
        if normalise not in NORMALISE:
            raise unknown("normalise", normalise, NORMALISE)
        self.settings = {
            "rate": rate,
            "mels": mels,
            "window": window,
            "hop": hop,
            "width": width,
            "normalise": normalise,
            "centred": centred,
        }
        self.normalise = normalise
        self.centred = centred
        self.hop = max(1, round(hop * rate))
        length = max(2, round(window * rate))
        self.bins = 2 ** math.ceil(math.log2(length))
        filters = mel_filters(rate, self.bins, mels)
        if not filters.any(1).all():
            raise ConfigError(
                f"{mels} mel bands at {rate} Hz are finer than a window of {window} s resolves; "
                "use fewer bands or a longer window."
            )
        taper = torch.hann_window(length)
        # Divided by half its sum, so that a sine of amplitude a has power a² at its peak.
        self.register_buffer("taper", taper * (2 / taper.sum()), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

        widths = [width * 2**stage for stage in range(4)]
        self.dim = widths[-1]
        self.conv = nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(
            BasicBlock(widths[max(0, i - 1)], widths[i], stride=1 if i == 0 else 2)
            for i in range(4)
        )

    def spectrogram(self, samples: Waveforms, present: Present = None) -> Spectrogram:
        """Natural logarithm of the power in each band; missing samples and padding are silent."""
        with torch.autocast(samples.device.type, enabled=False):
            heard = samples.float().nan_to_num()
            if present is not None:
                heard = heard * present
            if not self.centred:
                heard = F.pad(heard, self._margins(heard.shape[1]))
            spectrum = torch.stft(
                heard,
                self.bins,
                self.hop,
                len(self.taper),
                self.taper,
                center=self.centred,
                pad_mode="constant",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            return (power.transpose(1, 2) @ self.filters.T + FLOOR).log()

    def _margins(self, time: int) -> tuple[int, int]:
        """Zeros before and after a sound, so that its first and last windows, which lie in the
        middle of a longer Fourier transform, reach to its ends; and silence up to one window."""
        length = len(self.taper)
        before = (self.bins - length) // 2
        return before, self.bins - length - before + max(0, length - time)

    def prepare(self, samples: Waveforms, present: Present = None) -> Spectrogram:
        """The normalised spectrogram, where `mainspring.augment.audio.spec_augment` applies."""
        levels = self.spectrogram(samples, present)
        if self.normalise == "fixed":
            return (levels - FIXED_MEAN) / FIXED_SCALE
        # Below a scale of 0.1 (0.4 dB) a clip is one even hiss or silence: nothing to blow up.
        scale, mean = torch.std_mean(levels, dim=(1, 2), correction=0, keepdim=True)
        return (levels - mean) / scale.clamp(min=0.1)

    def stem(self, prepared: Spectrogram) -> Float[Tensor, "n width t f"]:
        """The first convolution, to half the frames and bands."""
        image = prepared[:, None].contiguous(memory_format=torch.channels_last)
        return F.relu(self.norm(self.conv(image)))

    def trunk(self, hidden: Float[Tensor, "n width t f"]) -> Float[Tensor, "n t2 f2 dim"]:
        """The four stages."""
        for stage in self.stages:
            hidden = stage(hidden)
        return hidden.permute(0, 2, 3, 1)

    def tokens(self, samples: Waveforms, present: Present = None) -> Float[Tensor, "n t f dim"]:
        """Tokens over time and frequency, one every 16 hops and 16 bands."""
        return self.trunk(self.stem(self.prepare(samples, present)))

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Present = None
    ) -> Float[Tensor, "n dim"]:
        """The mean over bands and over the times at which there is sound and no padding."""
        tokens = tokens.float()
        if present is None:
            return tokens.flatten(1, -2).mean(1)
        count = tokens.shape[1]
        first = 0 if self.centred else len(self.taper) // 2
        centre = first + 16 * self.hop * torch.arange(count, device=tokens.device)
        there = present[:, centre.clamp(max=present.shape[1] - 1)].float()
        there = torch.where(there.any(1, keepdim=True), there, 1.0)
        return (tokens.mean(2) * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, Section 3.3, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Float[Tensor, "n inputs t f"]) -> Float[Tensor, "n outputs t2 f2"]:
        """The block."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """The HTK mel scale, 2595 log10(1 + f / 700); 1000 Hz are 1000 mel."""
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz, dtype=np.float64) / 700))


def mel_to_hertz(mel: np.ndarray | float) -> np.ndarray:
    """The inverse of `hertz_to_mel`."""
    return np.asarray(700 * (10 ** (np.asarray(mel, dtype=np.float64) / 2595) - 1))


def mel_filters(rate: float, bins: int, mels: int) -> Float64[np.ndarray, "mels spectrum"]:
    """Triangular filters over the bins of a Fourier transform.

    Band m rises from 0 at the centre of band m - 1 to 1 at its own and falls to 0 at the centre of
    band m + 1, linearly in hertz; centres are evenly spaced in mel between 0 Hz and rate / 2. So
    between the first and the last centre the bands sum to 1.

    Args:
        rate: Samples per second.
        bins: Length of the Fourier transform; it has bins // 2 + 1 frequencies.
        mels: Number of bands.
    """
    edges = mel_to_hertz(np.linspace(0, hertz_to_mel(rate / 2), mels + 2))
    frequency = np.arange(bins // 2 + 1) * (rate / bins)
    rise = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))
