"""Content changes of time series: jitter, scale and missing stretches. What is missing stays so.

Series are (n, time, channel) floats with NaN for missing values. One draw a view and channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mainspring.augment.audio import normal, stretch, uniform
from mainspring.errors import ConfigError

Series = Float[Tensor, "n time channel"]


@dataclass(frozen=True)
class SeriesAugment:
    """Random changes of a series, drawn once a view. With every setting 0 nothing is changed.

    The order is fixed: scale, jitter, hide. Sizes are relative to the data, so raw units do. Jitter
    and scale are those of Um et al. (ICMI 2017); TS-TCC (Eldele et al., IJCAI 2021) adds a jitter
    of 0.8 in its strong augmentation and multiplies by N(2, 1.1) in its weak one.

    Attributes:
        jitter: Normal noise is added to every value, its standard deviation this many times that
            of the observed values of the view's channel.
        scale: Each channel is multiplied by N(1, scale). An encoder that normalises each
            recording sees of it no more than a change of sign.
        hide: One stretch of U[0, hide] of the view becomes missing, in all channels.

    Raises:
        ConfigError: If a setting is out of range.
    """

    jitter: float = 0.0
    scale: float = 0.0
    hide: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.hide <= 1:
            raise ConfigError(f"hide is {self.hide}; it must lie between 0 and 1.")
        for name in ("jitter", "scale"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")

    def __call__(self, samples: Series, generator: torch.Generator) -> Series:
        """Draws and applies the changes; deterministic given the generator's state."""
        n, time, channels = samples.shape
        if self.scale:
            samples = samples * (1 + self.scale * normal((n, 1, channels), samples, generator))
        if self.jitter:
            noise = normal((n, time, channels), samples, generator)
            samples = samples + self.jitter * spread(samples) * noise
        if self.hide:
            hidden = stretch(time, self.hide * time * uniform(n, samples, generator), generator)
            samples = samples.masked_fill(hidden[:, :, None], torch.nan)
        return samples

    def still(self, samples: Series) -> Series:
        """The change for evaluation: none."""
        return samples


def spread(samples: Series) -> Float[Tensor, "n 1 channel"]:
    """Standard deviation of the observed values of each channel; 0 where there are none."""
    observed = ~samples.isnan()
    count = observed.sum(1, keepdim=True).clamp(min=1)
    # In units of a power of two, which is exact, so that squares neither overflow nor vanish.
    exponent = samples.abs().nan_to_num(0.0).amax(1, keepdim=True).frexp().exponent.clamp(-125, 127)
    unit = torch.ones_like(samples[:, :1]).ldexp(exponent - 1)
    away = samples / unit
    away = away - away.nansum(1, keepdim=True) / count
    return (away.square().nansum(1, keepdim=True) / count).sqrt() * unit
