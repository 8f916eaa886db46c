"""Permutation of segments: a series cut into pieces that are put back in another order."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mainspring.errors import ConfigError


def permute_segments(
    samples: Float[Tensor, "n time channel"],
    present: Bool[Tensor, "n time"],
    most: int,
    generator: torch.Generator,
) -> Float[Tensor, "n time channel"]:
    """Each view with its segments in another order; whole time steps move, all channels together.

    The permutation of Um et al. (ICMI 2017) with pieces of random lengths, as the strong
    augmentation of TS-TCC has it (Eldele et al., IJCAI 2021, Section 3.1).

    Args:
        samples: Any values; missing ones move like others.
        present: False at padding, which stays where it is.
        most: A view is cut into U{1 .. most} pieces (1 leaves it as it is).
        generator: Source of cuts and orders.
    """
    order = segment_order(present, most, generator)
    return samples.gather(1, order[:, :, None].expand_as(samples))


def segment_order(
    present: Bool[Tensor, "n time"], most: int, generator: torch.Generator
) -> Int64[Tensor, "n time"]:
    """For each place of each view the place whose sample comes there.

    The number of pieces is U{1 .. most}, or of as many as there are steps; all ways of cutting
    into so many are alike, and so are all orders of the pieces, the given one among them.

    Args:
        present: False at padding, which is neither cut nor moved; it may lie anywhere.
        most: Greatest number of pieces.
        generator: Source of cuts and orders.

    Raises:
        ConfigError: If `most` is less than 1.
    """
    if most < 1:
        raise ConfigError(f"A series cannot be cut into {most} segments; use at least 1.")
    n, time = present.shape
    device = present.device

    def luck(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=generator.device).to(device)

    steps = present.sum(1)
    pieces = (luck(n) * steps.clamp(1, most)).long() + 1
    # From here on the j-th column is the j-th sample that is no padding; those come first.
    place = (~present).long().argsort(dim=1, stable=True)
    inside = torch.arange(time, device=device) < steps[:, None]
    may_begin = inside & (torch.arange(time, device=device) > 0)
    rank = luck(n, time).masked_fill(~may_begin, 2.0).argsort(1).argsort(1)
    begins = may_begin & (rank < pieces[:, None] - 1)
    turn = luck(n, most).gather(1, begins.cumsum(1)).masked_fill(~inside, 2.0)
    source = place.gather(1, turn.argsort(dim=1, stable=True))
    return torch.empty_like(place).scatter_(1, place, source)
