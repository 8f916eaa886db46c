"""Rows of frames: tokens brought to their times, spans of them hidden, hidden ones replaced.

start = spans(8, 16, 0.8, 5, generator)          which frames to hide, and where each span began
source = elsewhere(start, 5, generator)          which frames to show in their place
frames = at_places(tokens, places)               tokens at the times of the frames
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NOT_HIDDEN = -1


def spans(
    rows: int, length: int, share: float, span: int, generator: torch.Generator
) -> Int64[Tensor, "rows length"]:
    """Spans of a fixed length that may overlap, as wav2vec 2.0 and HuBERT hide them: of all places
    where a span fits, share * length / span are drawn in each row (rounded up or down by chance,
    at least one). As spans overlap, fewer than `share` of the frames end up hidden: of a long row
    1 - (1 - share / span) ** span.

    Args:
        rows: Rows to draw, all independent.
        length: Frames of a row.
        share: The share that would be hidden if no two spans overlapped; 0 hides nothing.
        span: Frames in a span; cut to the length.
        generator: Source of the spans.

    Returns:
        For each frame the first frame of the last span that covers it, -1 where none does.
    """
    device = generator.device
    if share == 0:
        return torch.full((rows, length), NOT_HIDDEN, device=device)
    span = min(span, length)
    luck = torch.rand(rows, 1, generator=generator, device=device)
    count = (share * length / span + luck).floor().clamp(min=1)
    order = torch.rand(rows, length - span + 1, generator=generator, device=device)
    begins = torch.zeros(rows, length, dtype=torch.bool, device=device)
    begins[:, : order.shape[1]] = order.argsort(1).argsort(1) < count
    place = torch.arange(length, device=device).expand(rows, length)
    last = torch.where(begins, place, -length).cummax(1).values
    return torch.where(place - last < span, last, NOT_HIDDEN)


def elsewhere(
    start: Int64[Tensor, "rows length"], span: int, generator: torch.Generator
) -> Int64[Tensor, "rows length"]:
    """For each frame the one to show: itself, or where it is hidden a frame of a stretch of the
    same row, as long as its span and apart from it, drawn anew for each span. Of rows too short
    for that the farthest stretch is shown.

    Args:
        start: From `spans`.
        span: Frames in a span.
        generator: Source of the stretches.
    """
    rows, length = start.shape
    span = min(span, length)
    places = length - span + 1
    place = torch.arange(length, device=start.device)
    gap = (place[:places] - place[:places, None]).abs()
    luck = torch.rand(rows, places, places, generator=generator, device=generator.device)
    allowed = (gap >= span).to(luck.dtype) * 2 + gap.clamp(max=span) / span
    source = (luck.to(start.device) * (gap >= span) + allowed).argmax(2)
    shown = source.gather(1, start.clamp(min=0)) + place - start
    return torch.where(start == NOT_HIDDEN, place, shown)


def at_places(
    tokens: Float[Tensor, "n token dim"], places: Float[Tensor, "frame"]
) -> Float[Tensor, "n frame dim"]:
    """Tokens at fractional places, linear in between and held before the first and after the last,
    in float32 whatever the autocast.

    Args:
        tokens: One after another.
        places: In tokens: 0 is the first, 1.5 lies in the middle between the second and third.
    """
    number = torch.arange(tokens.shape[1], device=tokens.device)
    place = places.to(tokens.device).clamp(0, tokens.shape[1] - 1)
    weight = (1 - (place[:, None] - number).abs()).clamp(min=0)
    with torch.autocast(tokens.device.type, enabled=False):
        return torch.einsum("ft,ntd->nfd", weight, tokens.float())


def token_stride(samples: int, tokens: int) -> int:
    """Samples from one token to the next of a network that halves its input again and again,
    rounding up, as convolutions of stride 2 do whose padding keeps their centres in step: token j
    stands over sample j * stride.

    Args:
        samples: Length before.
        tokens: Length after.
    """
    stride = 1
    while stride * tokens < samples:
        stride *= 2
    return stride
