"""Content changes of a pretext's clips, by stream: what is done to samples rather than to time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mainspring.augment.video import VideoAugment
from mainspring.clips import ClipSpec

Change = Callable[[Tensor, torch.Generator], Tensor]


def unchanged(samples: Tensor, generator: torch.Generator) -> Tensor:
    """Samples as they are."""
    return samples


def content_change(stream: str, spec: ClipSpec, flip: float, jitter: float) -> Change:
    """Video is cropped, flipped and jittered, alike in all frames of a clip and anew for each
    clip; other streams stay as they are.

    Args:
        stream: Which stream.
        spec: How its clips are cut; the crop is `spec.crop`, where 0 keeps the whole frame.
        flip: Chance of a horizontal flip.
        jitter: Strength of colour jitter, 0 for none.
    """
    if stream != "video":
        return unchanged
    return VideoAugment(crop=spec.crop, flip=flip, jitter=jitter)
