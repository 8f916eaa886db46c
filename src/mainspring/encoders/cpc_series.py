"""Strided convolutions and a recurrent context over time series: the encoder of CPC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.units import NORMALISE, Present, Series, normalised
from mainspring.errors import ConfigError, unknown

POOLS = ("mean", "last")


class CpcSeries(Encoder):
    """Latents z by a few strided convolutions, and of their past a context c by a GRU: the tokens
    are the contexts (van den Oord et al. 2018, Section 2.2).

    Of the paper are the two parts, the GRU of 256 units and kernels twice as wide as their stride
    (3 taps where the stride is 1). Made for series rather than for 16 kHz sound are three layers
    instead of five, so that a latent stands for 4 steps and sees 12 (the paper: 160 and 465, in
    about the same proportion), and 128 channels instead of 512. Ours are: convolutions that look
    back only, so that a token knows nothing that comes after its own steps; layer normalisation
    of each latent where the paper has batch normalisation, so that no recording sees another; and
    missing values entering as 0 with an "observed" flag beside them.

    Padding (`present` False) at the end of a series changes neither the tokens of its real steps
    nor its embedding. Padding before or within a series reads as steps where nothing was observed.

    Args:
        channels: Variables of the series.
        width: Channels of the convolutions, the width of a latent (paper: 512).
        dim: Units of the GRU, the width of the tokens (paper: 256).
        strides: Of each convolution; their product is the number of steps a token stands for.
        normalise: "recording": each channel of a view has its own mean and standard deviation over
            observed values taken out. They are those of all of the view, the future included.
            "none" leaves values as they are.
        pool: "mean" of the contexts, or the "last" one, which has seen everything but remembers
            the end best. The paper uses either, as the task asks.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    name: ClassVar[str] = "cpc_series"
    stream: ClassVar[str] = "series"
    clip: ClassVar[ClipSpec] = ClipSpec(length=128, rate=None, stride=1)
    citation: ClassVar[str] = (
        "van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018"
    )
    causal: ClassVar[bool] = True

    def __init__(
        self,
        channels: int = 1,
        width: int = 128,
        dim: int = 256,
        strides: Sequence[int] = (1, 2, 2),
        normalise: str = "recording",
        pool: str = "mean",
    ) -> None:
        super().__init__()
        if min(channels, width, dim) < 1:
            raise ConfigError(
                f"channels {channels}, width {width} and dim {dim} must be at least 1."
            )
        if not strides or min(strides) < 1:
            raise ConfigError(
                f"strides are {list(strides)}; at least one number is needed, each at least 1."
            )
        if normalise not in NORMALISE:
            raise unknown("normalise", normalise, NORMALISE)
        if pool not in POOLS:
            raise unknown("pool", pool, POOLS)
        self.settings = {
            "channels": channels,
            "width": width,
            "dim": dim,
            "strides": list(strides),
            "normalise": normalise,
            "pool": pool,
        }
        self.dim = dim
        self.channels = channels
        self.hop = math.prod(strides)
        self.normalise = normalise
        self.pool = pool
        self.layers = nn.ModuleList(
            BackConv(width if i else 2 * channels, width, stride)
            for i, stride in enumerate(strides)
        )
        self.recurrent = nn.GRU(width, dim, batch_first=True)

    def prepare(
        self, samples: Series, present: Present = None
    ) -> Float[Tensor, "n time 2*channel"]:
        """Normalised values, 0 where missing, and after them the flags that say what was observed.

        Raises:
            DataError: If the series has another number of channels than the encoder.
        """
        return normalised(samples, present, self.channels, self.normalise)

    def stem(self, prepared: Float[Tensor, "n time inputs"]) -> Float[Tensor, "n width token"]:
        """The latents, one for `hop` steps; the last one's missing steps are filled up with 0."""
        hidden = F.pad(prepared, (0, 0, 0, -prepared.shape[1] % self.hop)).transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden

    def trunk(
        self, hidden: Float[Tensor, "n width token"], present: Present = None
    ) -> Float[Tensor, "n token dim"]:
        """The contexts, in float32 whatever the autocast (errors add up along a recurrence); 0
        where all of a token's steps are padding."""
        with torch.autocast(hidden.device.type, enabled=False):
            context, _ = self.recurrent(hidden.float().transpose(1, 2).contiguous())
        return context if present is None else context * by_hop(present, self.hop)[:, :, None]

    def tokens(self, samples: Series, present: Present = None) -> Float[Tensor, "n token dim"]:
        """One context for `hop` steps (rounded up)."""
        return self.trunk(self.stem(self.prepare(samples, present)), present)

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Present = None
    ) -> Float[Tensor, "n dim"]:
        """The mean of the contexts that are no padding, or the last of them; 0 if all are."""
        tokens = tokens.float()
        if present is None:
            there = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        else:
            there = by_hop(present, self.hop)
        if self.pool == "mean":
            return (tokens * there[:, :, None]).sum(1) / there.sum(1)[:, None].clamp(min=1)
        place = torch.arange(there.shape[1], device=there.device)
        last = torch.where(there, place, 0).amax(1)
        return tokens[torch.arange(len(tokens), device=last.device), last] * there.any(1)[:, None]


class BackConv(nn.Module):
    """A convolution that ends with the last of the steps it stands for, layer normalisation over
    channels, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        taps = 2 * stride if stride > 1 else 3
        self.before = taps - stride
        self.conv = nn.Conv1d(inputs, outputs, taps, stride=stride)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Float[Tensor, "n inputs time"]) -> Float[Tensor, "n outputs token"]:
        """From `time` steps, a multiple of the stride, to time / stride."""
        out = self.conv(F.pad(x, (self.before, 0)))
        return F.relu(self.norm(out.transpose(1, 2))).transpose(1, 2)


def by_hop(there: Bool[Tensor, "n time"], hop: int) -> Bool[Tensor, "n token"]:
    """Whether any of the `hop` steps that a token stands for is there."""
    return F.pad(there, (0, -there.shape[1] % hop)).unflatten(1, (-1, hop)).any(-1)
