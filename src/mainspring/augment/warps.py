"""Changes of time series that leave a trace: of order and pace, and of values.

Changes of time are places: for each step, where in the series it is read, a float, so that several
changes are read with one interpolation (`resample`). Changes of values take and return series
(n, time, channel) with NaN for missing values.

Everywhere `extent` is the number of steps before a recording's padding, which stays where it is,
and sizes are relative to the data, so raw units do. What was not observed stays so: NaN moves with
its step and does not spread.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mainspring.augment.audio import normal, uniform
from mainspring.augment.series import spread
from mainspring.masks import begin

Series = Float[Tensor, "n time channel"]
Extent = Int64[Tensor, "n"]
Places = Float[Tensor, "n time"]
Inside = Bool[Tensor, "n time"]

KNOTS = 4
"""Points between which the pace of a warp changes evenly (Um et al. draw curves through four)."""
SPIKES = 3
"""Most spikes in a series."""


# -- places ---------------------------------------------------------------------------------------


def unmoved(extent: Extent, time: int) -> Places:
    """Every step read where it is."""
    return torch.arange(time, device=extent.device).float().repeat(len(extent), 1)


def reverse(extent: Extent, time: int) -> Places:
    """The series backwards."""
    place = unmoved(extent, time)
    return held(extent[:, None] - 1 - place, extent)


def permute(extent: Extent, time: int, pieces: int, generator: torch.Generator) -> Places:
    """The series cut into pieces that change places, as Um et al. (ICMI 2017) do.

    Cuts lie at most a quarter of a piece from where they would make all pieces alike, so none is
    too short to be missed. An order that would be the old one is turned by one piece.
    """
    device = extent.device
    n = len(extent)
    off = torch.rand(n, pieces - 1, generator=generator, device=generator.device).to(device) - 0.5
    grid = torch.arange(1, pieces, device=device) + 0.5 * off
    cuts = (extent[:, None] * grid / pieces).round().long()
    step = torch.arange(time, device=device).repeat(n, 1)
    piece = torch.searchsorted(cuts, step, right=True)
    score = torch.rand(n, pieces, generator=generator, device=generator.device).to(device)
    rank = score.argsort(1)
    same = (rank == torch.arange(pieces, device=device)).all(1, keepdim=True)
    rank = torch.where(same, rank.roll(1, 1), rank)
    turn = rank.gather(1, piece).where(step < extent[:, None], pieces)
    return (turn * time + step).argsort(1).float()


def warp(extent: Extent, time: int, strength: float, generator: torch.Generator) -> Places:
    """The series at a pace that changes on the way, its first and last step where they were.

    The logarithm of the pace runs evenly between knots drawn from N(0, strength). Um et al. draw
    the pace itself from N(1, 0.2), which can turn time back where the spread is large.
    """
    size = (len(extent), KNOTS + 2)
    step = unmoved(extent, time)
    last = (extent[:, None] - 1).clamp(min=1)
    knots = strength * normal(size, step, generator)
    at = (step / last).clamp(max=1) * (KNOTS + 1)
    knot = at.long().clamp(max=KNOTS)
    pace = torch.lerp(knots.gather(1, knot), knots.gather(1, knot + 1), at - knot).exp()
    passed = pace.double().cumsum(1)
    passed = passed - passed[:, :1]
    whole = passed.gather(1, (last.clamp(max=time - 1))).clamp(min=1e-9)
    return held((passed / whole * last).float(), extent)


def zoom(extent: Extent, time: int, keep: float, generator: torch.Generator) -> Places:
    """A part of the series, stretched to the length of the whole.

    The part is U[keep, (1 + keep) / 2] of the series, anywhere in it.
    """
    step = unmoved(extent, time)
    share = keep + (1 - keep) / 2 * uniform(len(extent), step, generator)
    start = (1 - share) * uniform(len(extent), step, generator)
    last = extent[:, None] - 1
    return held(start[:, None] * last + share[:, None] * step, extent)


def resample(samples: Series, places: Places) -> Series:
    """The series read at places, on the straight line between its two nearest samples.

    What is read is missing where the nearest sample is; where only the other one is, the nearest
    is taken alone. At whole places samples are copied.
    """
    channels = samples.shape[2]
    low = places.floor()
    share = (places - low)[:, :, None]
    index = low.long().clamp(0, samples.shape[1] - 1)

    def at(step: Int64[Tensor, "n time"]) -> Float[Tensor, "n time channel"]:
        return samples.gather(1, step[:, :, None].expand(-1, -1, channels))

    first, second = at(index), at((index + 1).clamp(max=samples.shape[1] - 1))
    nearest = torch.where(share < 0.5, first, second)
    alone = first.isnan() | second.isnan() | (share == 0)
    return torch.where(alone, nearest, first + share * (second - first))


def held(places: Places, extent: Extent) -> Places:
    """Places beyond the first and last step of the extent brought back to them; padding is read
    where it is."""
    step = unmoved(extent, places.shape[1])
    last = (extent[:, None] - 1).clamp(min=0).float()
    return torch.where(step < extent[:, None], places.clamp(min=0).minimum(last), step)


# -- values ---------------------------------------------------------------------------------------
# The five that inject something take the same arguments, whether or not they need them all: `size`
# in standard deviations of the observed values of the channel, `wide`, the longest stretch as a
# share of the extent.


def middle(samples: Series) -> Float[Tensor, "n 1 channel"]:
    """Mean of the observed values of each channel; 0 where there are none."""
    return samples.nanmean(1, keepdim=True).nan_to_num()


def negate(samples: Series) -> Series:
    """Upside down about the mean of each channel, so that the level stays."""
    return 2 * middle(samples) - samples


def swell(samples: Series, extent: Extent, most: float, generator: torch.Generator) -> Series:
    """A stretch grows or shrinks about the mean of its channel, and comes back.

    Halfway along a stretch of U[0.5, 1] of the series, what is left after the mean is multiplied
    or divided by U[sqrt(most), most], uniformly in the logarithm; towards both its ends the
    change dies away like a raised cosine. An encoder that takes out mean and size of a recording
    would not see all of it scaled alike; this it sees, and there is no edge to see it by.
    """
    n, time, _ = samples.shape
    step = unmoved(extent, time)
    wide = extent * (0.5 + 0.5 * uniform(n, samples, generator))
    start = (extent - wide) * uniform(n, samples, generator)
    along = ((step - start[:, None]) / wide.clamp(min=1)[:, None]).clamp(0, 1)
    size = math.log(most) * (0.5 + 0.5 * uniform(n, samples, generator))
    size = torch.where(uniform(n, samples, generator) < 0.5, size, -size)
    gain = (size[:, None] * (0.5 - 0.5 * (2 * math.pi * along).cos())).exp()
    level = middle(samples)
    return level + (samples - level) * gain[:, :, None]


def spike(
    samples: Series, extent: Extent, size: float, wide: float, generator: torch.Generator
) -> Series:
    """One to three steps jump by U[1, 2] times `size` standard deviations, up or down."""
    n, time, _ = samples.shape
    count = (SPIKES * uniform(n, samples, generator)).long() + 1
    field = torch.rand(n, time, generator=generator, device=generator.device).to(samples.device)
    field = field.masked_fill(unmoved(extent, time) >= extent[:, None], 2.0)
    chosen = field.argsort(1).argsort(1) < count[:, None]
    height = size * (1 + _even(samples, generator)) * _sign(samples, generator)
    return samples + chosen[:, :, None] * height * spread(samples)


def shift(
    samples: Series, extent: Extent, size: float, wide: float, generator: torch.Generator
) -> Series:
    """A stretch lies U[0.5, 1] times `size` standard deviations higher or lower."""
    inside, _ = _stretch(samples, extent, wide, generator)
    return samples + inside[:, :, None] * _height(samples, size, generator)


def trend(
    samples: Series, extent: Extent, size: float, wide: float, generator: torch.Generator
) -> Series:
    """A stretch drifts evenly, by U[0.5, 1] times `size` standard deviations at its end."""
    inside, along = _stretch(samples, extent, wide, generator)
    slope = (inside * along)[:, :, None]
    return samples + slope * _height(samples, size, generator)


def burst(
    samples: Series, extent: Extent, size: float, wide: float, generator: torch.Generator
) -> Series:
    """Normal noise on a stretch, of U[0.25, 0.5] times `size` standard deviations."""
    inside, _ = _stretch(samples, extent, wide, generator)
    loud = (_height(samples, size, generator) / 2).abs()
    return samples + inside[:, :, None] * loud * normal(tuple(samples.shape), samples, generator)


def swap(
    samples: Series, extent: Extent, size: float, wide: float, generator: torch.Generator
) -> Series:
    """Two stretches of one length exchange their places; missing values go with them."""
    width = _width(samples, extent, wide, generator).minimum(extent // 2)
    first = begin(extent, 2 * width, generator)  # of both stretches as if side by side
    second = first + width + begin(extent - first - width, width, generator)
    step = unmoved(extent, samples.shape[1])

    def within(start: Extent) -> Inside:
        return (step >= start[:, None]) & (step < (start + width)[:, None])

    apart = (second - first)[:, None]
    return resample(samples, step + apart * within(first) - apart * within(second))


def altered(before: Series, after: Series) -> Bool[Tensor, "n time channel"]:
    """Where two series differ; missing equals missing."""
    return ~((before == after) | (before.isnan() & after.isnan()))


def _width(samples: Series, extent: Extent, wide: float, generator: torch.Generator) -> Extent:
    """Of a stretch: U[wide / 4, wide] of the extent, at least two steps where there are two."""
    share = wide * (0.25 + 0.75 * uniform(len(extent), samples, generator))
    return (extent * share).round().long().clamp(min=2).minimum(extent)


def _stretch(
    samples: Series, extent: Extent, wide: float, generator: torch.Generator
) -> tuple[Inside, Places]:
    """A stretch anywhere in the extent: where it is, and the way passed in it, in (0, 1]."""
    width = _width(samples, extent, wide, generator)
    start = begin(extent, width, generator)
    step = unmoved(extent, samples.shape[1])
    along = (step - start[:, None] + 1) / width.clamp(min=1)[:, None]
    return (along > 0) & (along <= 1), along


def _height(
    samples: Series, size: float, generator: torch.Generator
) -> Float[Tensor, "n 1 channel"]:
    """± U[0.5, 1] times `size` standard deviations, one a channel."""
    share = 0.5 + 0.5 * _even(samples[:, :1], generator)
    return size * share * _sign(samples[:, :1], generator) * spread(samples)


def _even(like: Series, generator: torch.Generator) -> Series:
    """U[0, 1) in every cell."""
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)


def _sign(like: Series, generator: torch.Generator) -> Series:
    """1 or -1 in every cell, by a coin."""
    return torch.where(_even(like, generator) < 0.5, -1.0, 1.0)
