"""What a trained encoder has to beat: its own architecture untrained, and features without any
network, on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.evaluate.embed import Recordings, embed
from mainspring.evaluate.forward import Reads
from mainspring.evaluate.raw import raw_features
from mainspring.evaluate.vectors import Vectors

RANDOM = "random weights"
RAW = "raw features"
RAW_WIDTH = 256
"""Principal components kept of raw features, at most."""


def baselines(
    encoder: Encoder,
    clip: ClipSpec,
    catalogue: Recordings,
    reader: Reads,
    hop_seconds: float | None = None,
    batch: int = 64,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Vectors]:
    """Vectors of the untrained encoder and of raw features; everything is read once for both.

    The untrained encoder is used as it is initialised (batch norms at mean 0 and variance 1). Raw
    features are standardised, reduced to their first 256 principal components, which takes no
    label, and turned.

    Returns:
        `Vectors` under "random weights" and "raw features", row for row of the same windows.
    """
    both = _SideBySide([untrained(encoder, seed), RawFeatures(encoder.stream, clip)])
    together = embed(
        both, clip, catalogue, reader, None, hop_seconds, batch,
        stamps={"encoder": f"baselines of {type(encoder).__name__}, seed {seed}"},
        progress=progress,
    )  # fmt: skip
    random, raw = np.split(together.matrix, [encoder.dim], axis=1)
    return {
        RANDOM: replace(together, matrix=np.ascontiguousarray(random)),
        RAW: replace(together, matrix=turned(principal(raw, RAW_WIDTH))),
    }


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """The same architecture and settings, freshly initialised from a seed, on the same device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(encoder)(**encoder.settings)
    parameter = next(encoder.parameters(), None)
    return fresh if parameter is None else fresh.to(parameter.device)


def principal(matrix: Float32[np.ndarray, "n dim"], width: int) -> Float32[np.ndarray, "n kept"]:
    """Standardised columns rotated to their first `width` principal components.

    Columns that never vary count for nothing. Signs are fixed (each component's largest loading
    is positive), so that the same data give the same numbers.
    """
    centred = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    deviation = centred.std(axis=0)
    centred /= np.where(deviation < 1e-12, 1.0, deviation)
    vectors = np.linalg.eigh(centred.T @ centred).eigenvectors
    loadings = vectors[:, ::-1][:, : min(width, *matrix.shape)]
    largest = np.abs(loadings).argmax(axis=0)
    loadings = loadings * np.sign(loadings[largest, np.arange(loadings.shape[1])])
    return (centred @ loadings).astype(np.float32)


def turned(matrix: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n dim"]:
    """Rotated at random, always alike: distances and cosines stay, and all columns vary alike.

    A probe standardises columns. Done to principal components, that makes the last direction, which
    is noise, as large as the first, and a probe of few recordings finds nothing.
    """
    width = matrix.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width))).Q
    return (matrix @ rotation).astype(np.float32)


class RawFeatures(Encoder):
    """Raw features in an encoder's place, so that they are embedded and probed like one.

    Args:
        stream: Which stream it reads.
        clip: How its windows are cut.
    """

    citation: ClassVar[str] = "none"

    def __init__(self, stream: str, clip: ClipSpec) -> None:
        super().__init__()
        self.stream = stream  # type: ignore[misc]
        self.rate = clip.rate
        self.dim = 0
        self.settings: dict[str, Any] = {}

    def forward(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float32[Tensor, "n dim"]:
        """One row of features a view."""
        if present is None:
            present = torch.ones(samples.shape[:2], dtype=torch.bool)
        features = raw_features(
            self.stream, samples.cpu().numpy(), present.cpu().numpy(), self.rate
        )
        return torch.from_numpy(features)


class _SideBySide(Encoder):
    """Several encoders of one stream as one, whose vector is theirs one after the other."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        super().__init__()
        self.encoders = torch.nn.ModuleList(encoders)
        self.stream = encoders[0].stream  # type: ignore[misc]

    def forward(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float32[Tensor, "n dim"]:
        """One vector a view."""
        return torch.cat([each(samples, present).float().cpu() for each in self.encoders], dim=1)
