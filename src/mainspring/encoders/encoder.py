"""What every encoder offers: `stem` (samples to tokens), `trunk` (tokens in context), `embed`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec


class Encoder(nn.Module):
    """Base of all encoders. A subclass is one file and one architecture.

    Samples come as the reader delivers them, one row a view (views of a batch are flattened):
    video uint8 (or float in [0, 1]) of shape (n, time, height, width, 3), audio float32 (n, time),
    series float32 (n, time, channel) with NaN for missing values, text int64 (n, time) with a
    number a word and 0 for none. `present` tells real samples from padding, shape (n, time).

    Class attributes:
        stream: Which stream it reads.
        clip: The clip it was designed for; the default where the user asks for no other.
        citation: Where the architecture comes from.
        ordered: Whether it can tell a clip from the same clip in another order.

    Attributes:
        dim: Width of the embedding.
        settings: Keyword arguments that build the same encoder again; plain JSON values.
    """

    stream: ClassVar[str]
    clip: ClassVar[ClipSpec]
    citation: ClassVar[str]
    ordered: bool = True

    dim: int
    settings: dict[str, Any]

    def prepare(self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None) -> Tensor:
        """Raw samples to what the stem takes: normalised floats, missing values dealt with."""
        raise NotImplementedError

    def tokens(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n *grid dim"]:
        """Tokens in context: trunk(stem(prepare(samples))), channels last."""
        raise NotImplementedError

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n dim"]:
        """One vector a view: the mean of its tokens in float32, unless the architecture says
        otherwise. `present` lets an encoder leave padding out of the mean."""
        return tokens.float().flatten(1, -2).mean(1)

    def forward(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n dim"]:
        """One vector a view."""
        return self.embed(self.tokens(samples, present), present)


def as_float_image(samples: Tensor) -> Float[Tensor, "n time height width 3"]:
    """uint8 pixels to floats in [0, 1]; floats pass unchanged."""
    if samples.dtype == torch.uint8:
        return samples.to(torch.float32) / 255
    return samples
