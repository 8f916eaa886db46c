"""Cepstra of sound: the shape of a spectrum in a dozen numbers, and how it changes."""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

COUNT = 13
REACH = 2


def cosines(bands: int, count: int = COUNT) -> Float[Tensor, "bands count"]:
    """The first columns of the orthonormal discrete cosine transform (DCT-II), for log-mel bands.

    Args:
        bands: Bands of the spectrogram.
        count: Cepstral coefficients to keep, no more than there are bands.
    """
    whole = scipy.fft.dct(np.eye(bands), type=2, norm="ortho", axis=1)
    return torch.from_numpy(whole[:, :count].copy()).float()


def cepstra(
    levels: Float[Tensor, "n time bands"], basis: Float[Tensor, "bands count"]
) -> Float[Tensor, "n time three_counts"]:
    """Mel-frequency cepstral coefficients with their first and second derivatives, side by side:
    of 13 coefficients the 39 numbers that HuBERT clusters first (Hsu et al. 2021, Section IV-B).

    Args:
        levels: Logarithm of the power in mel bands, not normalised.
        basis: From `cosines`.
    """
    with torch.autocast(levels.device.type, enabled=False):
        level = levels.float() @ basis
        slope = derivative(level)
        return torch.cat([level, slope, derivative(slope)], dim=2)


def derivative(values: Float[Tensor, "n time count"]) -> Float[Tensor, "n time count"]:
    """The slope of a line through five values, a frame; the first and last value are held beyond
    the ends (Young et al., The HTK Book, Section 5.9, with a window of 2)."""
    time = values.shape[1]
    padded = F.pad(values.transpose(1, 2), (REACH, REACH), mode="replicate").transpose(1, 2)
    rise = torch.zeros_like(values)
    for lag in range(1, REACH + 1):
        later, earlier = padded[:, REACH + lag :][:, :time], padded[:, REACH - lag :][:, :time]
        rise = rise + lag * (later - earlier)
    return rise / (2 * sum(lag * lag for lag in range(1, REACH + 1)))
