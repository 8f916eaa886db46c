"""Recordings side by side: what a pretext is given to encode."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass
class Views:
    """All views of one stream in a batch.

    Attributes:
        samples: (batch, view, time, ...) as the reader delivers them; None after encoding.
        present: (batch, view, time), False where a position was padding.
        factors: Each (batch, view).
    """

    samples: Tensor | None
    present: Bool[Tensor, "batch view time"]
    factors: dict[str, Tensor]

    def flat(self) -> tuple[Tensor, Bool[Tensor, "n time"]]:
        """Samples and presence with batch and view as one axis, ready for an encoder."""
        assert self.samples is not None, "samples were dropped after encoding"
        return self.samples.flatten(0, 1), self.present.flatten(0, 1)

    def map(self, change: Callable[[Tensor], Tensor]) -> Views:
        """The same change made to every tensor."""
        return Views(
            samples=None if self.samples is None else change(self.samples),
            present=change(self.present),
            factors={name: change(value) for name, value in self.factors.items()},
        )


@dataclass
class Batch:
    """Recordings side by side.

    Attributes:
        streams: The views of each stream.
        recording: (batch,) row of each recording in the catalogue.
        generator: Randomness for content changes, a pure function of (seed, samples seen).
        common: Randomness that all recordings of the step share, in whatever part or process they
            are; always on the CPU.
    """

    streams: dict[str, Views]
    recording: Int64[Tensor, "batch"]
    generator: torch.Generator
    common: torch.Generator = field(default_factory=torch.Generator)

    def __len__(self) -> int:
        return len(self.recording)

    def __getitem__(self, stream: str) -> Views:
        return self.streams[stream]

    def without_samples(self) -> Batch:
        """What `ask` may know: factors, presence and identity, but no samples."""
        return replace(self, streams={k: replace(v, samples=None) for k, v in self.streams.items()})

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same change made to every tensor, with a fresh generator where they end up."""
        recording = change(self.recording)
        return Batch(
            {stream: views.map(change) for stream, views in self.streams.items()},
            recording,
            torch.Generator(recording.device),
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; its generator has to be seeded again."""
        return self.map(lambda value: value.to(device, non_blocking=True))

    def split(self, parts: int) -> list[Batch]:
        """So many contiguous micro-batches (fewer if there are fewer recordings)."""
        bounds = np.linspace(0, len(self), min(parts, len(self)) + 1).astype(int).tolist()
        return [
            self.map(lambda value, rows=slice(start, stop): value[rows])  # type: ignore[misc]
            for start, stop in itertools.pairwise(bounds)
        ]
