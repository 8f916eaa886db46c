"""Masks: which cells of a batch to hide. True is hidden.

Pure functions of shapes and a generator, on the generator's device. Every row is drawn on its own,
so that no stretch runs on from one recording into the next.

    random_mask((8, 100, 3), 0.15, generator)      single cells
    span_mask(8, 100, 0.15, 3.0, generator)        spans of geometric length, a row at a time
    block_mask(extent, 100, 3, 0.5, 0.3, generator)    one stretch in some of the channels
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mainspring.errors import ConfigError


def random_mask(shape: tuple[int, ...], share: float, generator: torch.Generator) -> Tensor:
    """Each cell is hidden with chance `share`, independently: Bool of the given shape.

    Raises:
        ConfigError: If the share is no share.
    """
    _check(share)
    return torch.rand(shape, generator=generator, device=generator.device) < share


def span_mask(
    rows: int, length: int, share: float, mean: float, generator: torch.Generator
) -> Bool[Tensor, "rows length"]:
    """Spans whose lengths, and the gaps between them, are geometric (Zerveas et al., KDD 2021,
    Section 3.3: masked stretches of mean length l_m = 3, gaps of mean l_m (1 - r) / r, r = 0.15).

    That is a chain of two states in its steady state, drawn here by its runs: a row begins hidden
    with chance `share`, runs of both kinds take turns, and a geometric run that began earlier is
    as long from here on as one that begins here. Where a row ends its last span is cut.

    Args:
        rows: Chains to draw, all independent.
        length: Steps of a row.
        share: r, the expected share of hidden steps.
        mean: l_m, the mean length of a span in steps.
        generator: Source of the spans.

    Raises:
        ConfigError: If spans so short cannot hide so much with gaps of at least a step.
    """
    _check(share)
    if mean < 1 or mean * (1 - share) < share:
        least = max(1.0, share / (1 - share))
        raise ConfigError(
            f"Spans of {mean:g} steps on average cannot hide a share of {share:g}, because gaps "
            f"last at least a step; the mean must be at least {least:g}."
        )
    device = generator.device
    if share == 0:
        return torch.zeros(rows, length, dtype=torch.bool, device=device)
    hidden_first = torch.rand(rows, 1, generator=generator, device=device) < share
    turn = torch.arange(length, device=device) % 2 == 0
    kind = turn == hidden_first  # of each run, True where it hides
    ending = torch.where(kind, 1 / mean, share / (mean * (1 - share))).double()
    chance = torch.rand(rows, length, generator=generator, device=device, dtype=torch.float64)
    runs = (torch.log1p(-chance) / torch.log1p(-ending)).floor() + 1
    ends = runs.clamp(max=length).long().cumsum(1)
    step = torch.arange(length, device=device).expand(rows, length).contiguous()
    run = torch.searchsorted(ends, step, right=True)
    return kind.gather(1, run)


def block_mask(
    extent: Int64[Tensor, "n"],
    length: int,
    channels: int,
    width: float,
    share: float,
    generator: torch.Generator,
) -> Bool[Tensor, "n length channels"]:
    """One stretch of each recording in some of its channels, which the others may tell of.

    Args:
        extent: Steps of each recording before its padding; the stretch lies among them.
        length: Steps of a row.
        channels: Channels of a row.
        width: Length of the stretch as a share of the extent, rounded, at least one step.
        share: Share of the channels to hide, rounded; at least one, and never all of many.
        generator: Source of places and channels.

    Raises:
        ConfigError: If width or share is no share.
    """
    _check(width)
    _check(share)
    device = generator.device
    extent = extent.to(device)
    wide = (extent * width).round().long().clamp(min=1).minimum(extent)
    start = begin(extent, wide, generator)[:, None]
    step = torch.arange(length, device=device)
    inside = (step >= start) & (step < start + wide[:, None])
    count = min(max(1, round(share * channels)), max(1, channels - 1))
    order = torch.rand(len(extent), channels, generator=generator, device=device).argsort(1)
    return inside[:, :, None] & (order.argsort(1) < count)[:, None, :]


def begin(
    extent: Int64[Tensor, "n"], wide: Int64[Tensor, "n"], generator: torch.Generator
) -> Int64[Tensor, "n"]:
    """Where stretches of `wide` steps begin: anywhere that they fit, all places alike."""
    chance: Float[Tensor, "n"] = torch.rand(
        len(extent), generator=generator, device=generator.device, dtype=torch.float64
    )
    return ((extent - wide + 1) * chance.to(extent.device)).long()


def extents(present: Bool[Tensor, "n time"]) -> Int64[Tensor, "n"]:
    """Steps of each row up to its last present one; what follows is padding."""
    step = torch.arange(1, present.shape[1] + 1, device=present.device)
    return (present * step).amax(1)


def _check(share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(f"A share of {share:g} was to be hidden; it must lie in [0, 1).")
