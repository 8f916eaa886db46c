"""What encoders of series see: values in units of the recording, which were observed, and what is
put where none was."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mainspring.errors import DataError

NORMALISE = ("recording", "none")

Series = Float[Tensor, "n time channel"]
Present = Bool[Tensor, "n time"] | None


def normalised(
    samples: Series, present: Present, channels: int, normalise: str
) -> Float[Tensor, "n time 2*channel"]:
    """Values, 0 where missing, and after them the flags that say what was observed.

    Args:
        samples: NaN where values are missing.
        present: False at padding.
        channels: How many the encoder reads.
        normalise: "recording" takes each channel's own mean and deviation out; "none" does not.

    Raises:
        DataError: If the series has another number of channels than the encoder.
    """
    if samples.shape[-1] != channels:
        raise DataError(
            f"The series has {samples.shape[-1]} channels, and this encoder reads {channels}: give "
            "it series of the channels that it learnt from, or train another on these."
        )
    observed = ~samples.isnan()
    if present is not None:
        observed = observed & present[:, :, None]
    values = torch.where(observed, samples, 0.0).float()
    if normalise == "recording":
        mean, scale = statistics(values, observed)
        values = torch.where(observed, (values - mean) / scale, 0.0)
    return torch.cat([values, observed.to(values.dtype)], dim=-1)


def filled(
    prepared: Float[Tensor, "n time inputs"], present: Present, causal: bool
) -> Float[Tensor, "n time inputs"]:
    """What `normalised` gave, with values where none was observed: on a straight line between the
    observed ones before and after, at the ends the nearest one. The flags then say what is there,
    be it observed or filled in. A channel of which nothing was observed stays as it is.

    Args:
        prepared: Values and flags.
        present: False at padding, which stays empty.
        causal: Take the last observed value instead; what comes before the first stays as it is.
    """
    values, flags = prepared.chunk(2, dim=-1)
    observed, time = flags.bool(), values.shape[1]
    steps = torch.arange(time, device=values.device)[None, :, None]
    before = torch.where(observed, steps, -1).cummax(1).values
    after = torch.where(observed, steps, time).flip(1).cummin(1).values.flip(1)
    there = before >= 0 if causal else observed.any(1, keepdim=True).expand_as(observed)
    if causal:
        line = values.gather(1, before.clamp(min=0))
    else:
        first = torch.where(before < 0, after, before).clamp(max=time - 1)
        last = torch.where(after == time, before, after).clamp(min=0)
        share = (steps - first) / (last - first).clamp(min=1)
        line = values.gather(1, first) * (1 - share) + values.gather(1, last) * share
    if present is not None:
        there = there & present[:, :, None]
    return torch.cat([torch.where(there, line, 0.0), there.to(values.dtype)], dim=-1)


def statistics(
    values: Series, observed: Bool[Tensor, "n time channel"]
) -> tuple[Float[Tensor, "n 1 channel"], Float[Tensor, "n 1 channel"]]:
    """Mean and standard deviation of the observed values of each channel of each view.

    Args:
        values: Values, 0 where nothing was observed.
        observed: Where something was.

    Returns:
        The mean (0 if nothing was observed) and the scale: the standard deviation, or 1 where it
        is less than a millionth of the level, which is rounding and no signal.
    """
    unit = _power_of_two(values.abs().amax(1, keepdim=True))
    values = values / unit
    count = observed.sum(1, keepdim=True).clamp(min=1)
    mean = values.sum(1, keepdim=True) / count
    mean = mean + ((values - mean) * observed).sum(1, keepdim=True) / count  # float32's rounding
    scale = ((((values - mean) * observed) ** 2).sum(1, keepdim=True) / count).sqrt()
    return mean * unit, torch.where(scale > 1e-6 * mean.abs(), scale * unit, 1.0)


def _power_of_two(size: Float[Tensor, "n 1 channel"]) -> Float[Tensor, "n 1 channel"]:
    """The size to the next power of two below, 1 for 0. Division by it is exact, and squares of
    what is left neither overflow nor vanish."""
    return size.where(size > 0, 1.0).log2().floor().clamp(-126, 126).exp2()
