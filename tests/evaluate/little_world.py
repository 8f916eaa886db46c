"""Recordings made of arithmetic, a reader and an encoder that need no file."""

from __future__ import annotations

import time

import numpy as np
import torch

from mainspring.clips import NOTHING, ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.recordings.recording import Recording

SERIES = ClipSpec(length=8, rate=None)


class SeriesReader:
    """Recording `row` has `lengths[row]` positions; channel 0 is 100 * row + position."""

    def __init__(self, lengths: list[int], rate: float = 4.0, pause: float = 0.0) -> None:
        self.lengths = lengths
        self.rate = rate
        self.pause = pause
        self.reads = 0

    def timeline(self, recording: Recording) -> Timeline:
        row = number(recording)
        if self.lengths[row] < 0:
            raise DataError(f"{recording.uri} is no series")
        return Timeline({"series": Extent(self.lengths[row], self.rate)})

    def read(self, recording: Recording, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.reads += 1
        time.sleep(self.pause)
        clips = draws["series"]
        assert clips.max() < self.lengths[number(recording)]
        values = np.stack([100.0 * number(recording) + clips, -clips], axis=-1)
        return {"series": np.where(clips[..., None] == NOTHING, np.nan, values).astype(np.float32)}

    def stamp(self) -> dict[str, str]:
        return {"decoder": "arithmetic 1"}


class MeanEncoder(Encoder):
    """The mean of each channel over what is present, and how much is."""

    stream = "series"
    clip = SERIES
    citation = "none"

    def __init__(self) -> None:
        super().__init__()
        self.dim = 3
        self.settings: dict = {}
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, samples: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        assert not self.training
        assert present is not None
        real = torch.nan_to_num(samples) * present[..., None]
        count = present.sum(1, keepdim=True).float()
        return torch.cat([self.scale * real.sum(1) / count, count], dim=1)


def number(recording: Recording) -> int:
    return int(recording.uri.split("/")[-1].split(".")[0])


def recordings(count: int) -> list[Recording]:
    return [
        Recording(f"data/{row}.csv", start=float(row), group=f"g{row // 2}", label="ab"[row % 2])
        for row in range(count)
    ]
