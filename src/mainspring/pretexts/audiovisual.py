"""What pretexts of picture and sound share: both are there, and strangers to pair them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError
from mainspring.pretexts.pretext import Pretext

STREAMS = ("video", "audio")


class AudioVisual(Pretext):
    """Base of pretexts that need both video and audio.

    Raises:
        ConfigError: If one of the two is not read.
    """

    accepts = STREAMS

    def __init__(
        self, clips: Mapping[str, ClipSpec], dims: Mapping[str, int], recordings: int, config: Any
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if set(clips) != set(STREAMS):
            raise ConfigError(
                f"{type(self).__name__} needs video and audio together, not "
                f"{' and '.join(clips)} alone. Use recordings with both."
            )

    @classmethod
    def wants(cls, config: Any, there: Mapping[str, int]) -> list[str]:
        """Both streams or nothing."""
        return list(STREAMS) if set(STREAMS) <= set(there) else []


def of_others(recording: Int64[Tensor, "n"], generator: torch.Generator) -> Int64[Tensor, "n"]:
    """For each row another row, by one random cycle through all of them; -1 where that happens to
    be of the same recording. Each row is so the other of one row at most.

    Args:
        recording: What each row is of.
        generator: Source of the cycle.
    """
    order = torch.randperm(len(recording), generator=generator, device=generator.device)
    order = order.to(recording.device)
    other = torch.empty_like(recording)
    other[order] = order.roll(1)
    return torch.where(recording[other] == recording, -1, other)
