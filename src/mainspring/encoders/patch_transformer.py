"""A transformer over patches of time series, each channel by itself: the encoder of PatchTST."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.dropout import Dropout
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.patch_layers import Layer
from mainspring.encoders.units import NORMALISE, Present, Series, statistics
from mainspring.errors import ConfigError, DataError, unknown

Patches = Float[Tensor, "n patches channel cells"]
Tokens = Float[Tensor, "n patches channel width"]
Seen = Bool[Tensor, "n patches channel"]

NORMS = ("batch", "layer")
POSITIONS = ("learned", "sincos")
POOLS = ("mean", "channels")
SPREAD = 0.02
"""Learned positions begin as U[-0.02, 0.02], as in the authors' code."""


class PatchTransformer(Encoder):
    """Each channel of a window is a sequence of its own, cut in patches that are the tokens of one
    transformer shared by all channels (Nie et al., ICLR 2023, Section 3.1).

    Of PatchTST are: units of the window (RevIN: each channel's mean and standard deviation taken
    out, no affine part), patches of 12 steps side by side, a linear embedding, positions that are
    learnt, three layers of 16 heads, width 128 and 512 between the two linear maps of a layer,
    GELU (the released pretraining has ReLU), dropout 0.2, and batch norm after each residual sum.
    A window whose length is no multiple of the patch loses its first steps: 512 make 42 patches.

    Ours is what concerns values that are not there. They enter as 0, the channel's mean, and
    beside them "missing" flags with weights that begin at 0, so without gaps this is PatchTST. A
    patch without any observed value does not exist: no other attends to it, batch norm does not
    count it, its token is exactly 0, and `embed` leaves it out. Patches end with the last present
    step of each row, so padding at the end of a series changes neither tokens nor embedding.

    Batch or layer norm: the paper found batch norm better for series (after Zerveas et al. 2021).
    It makes a recording's tokens in training depend on its neighbours in the micro-batch, and its
    running statistics are those of training: with two fifths of the patches hidden, they are not
    those of whole windows. Layer norm is free of both.

    For forecasting, `channel_tokens` gives what PatchTST's linear head reads, and `units` takes
    its forecasts back: value = foretold * scale + mean.

    Args:
        channels: Variables of the series. Weights do not depend on it, and any number is read,
            unless `affine` is set or `pool` is "channels".
        patch: Steps in a patch.
        stride: Steps from one patch to the next; 0 takes `patch` (no overlap).
        dim: Width of the tokens.
        depth: Layers.
        heads: Of attention; they share `dim`.
        hidden: Width between the two linear maps of a layer.
        dropout: On embedded patches and in both halves of a layer; none on attention weights.
        norm: "batch" or "layer".
        positions: "learned", for windows up to `context`, or "sincos", for any (Vaswani et al.,
            2017).
        context: Steps of the longest window that learned positions are made for.
        normalise: "recording" (RevIN) or "none".
        affine: Whether each channel gets a gain and an offset in its units (RevIN's affine part).
        pool: "mean" over patches and channels, or "channels": over patches, with the channels
            side by side (then the embedding is `channels` times as wide as the tokens, which
            pretexts that read both side by side cannot use).

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    name: ClassVar[str] = "patch_transformer"
    stream: ClassVar[str] = "series"
    clip: ClassVar[ClipSpec] = ClipSpec(length=512, rate=None, stride=1)
    citation: ClassVar[str] = (
        "Nie et al., A Time Series is Worth 64 Words: Long-term Forecasting with Transformers, "
        "ICLR 2023"
    )

    def __init__(
        self,
        channels: int = 1,
        patch: int = 12,
        stride: int = 0,
        dim: int = 128,
        depth: int = 3,
        heads: int = 16,
        hidden: int = 512,
        dropout: float = 0.2,
        norm: str = "batch",
        positions: str = "learned",
        context: int = 512,
        normalise: str = "recording",
        affine: bool = False,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        if min(channels, patch, dim, depth, heads, hidden, context) < 1:
            raise ConfigError(
                f"channels {channels}, patch {patch}, dim {dim}, depth {depth}, heads {heads}, "
                f"hidden {hidden} and context {context} must be at least 1."
            )
        if not 0 <= stride <= patch:
            raise ConfigError(
                f"stride is {stride}, but patches have {patch} steps; it must lie between 1 and "
                "that, or no patch would hold the steps between (0 puts them side by side)."
            )
        if dim % heads or (positions == "sincos" and dim % 2):
            raise ConfigError(
                f"dim is {dim}; it must be a multiple of heads ({heads}), and even with "
                'positions "sincos".'
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is {dropout}; it must be at least 0 and below 1.")
        for kind, value, choices in (
            ("norm", norm, NORMS),
            ("positions", positions, POSITIONS),
            ("normalise", normalise, NORMALISE),
            ("pool", pool, POOLS),
        ):
            if value not in choices:
                raise unknown(kind, value, choices)
        self.settings = {
            "channels": channels,
            "patch": patch,
            "stride": stride,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "hidden": hidden,
            "dropout": dropout,
            "norm": norm,
            "positions": positions,
            "context": context,
            "normalise": normalise,
            "affine": affine,
            "pool": pool,
        }
        self.channels = channels
        self.patch = patch
        self.stride = stride or patch
        self.width = dim
        self.dim = dim * channels if pool == "channels" else dim
        self.normalise = normalise
        self.pool = pool
        self.fixed_channels = affine or pool == "channels"
        self.gain = nn.Parameter(torch.ones(channels, 1)) if affine else None
        self.offset = nn.Parameter(torch.zeros(channels, 1)) if affine else None
        self.project = nn.Linear(patch, dim)
        self.missing = nn.Linear(patch, dim, bias=False)
        nn.init.zeros_(self.missing.weight)
        self.positions = None
        if positions == "learned":
            start = torch.empty(self.count(context), dim).uniform_(-SPREAD, SPREAD)
            self.positions = nn.Parameter(start)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            Layer(dim, heads, hidden, dropout, norm == "batch") for _ in range(depth)
        )

    def count(self, time: int) -> int:
        """Patches of a window of so many steps."""
        return max(0, time - self.patch) // self.stride + 1

    def units(
        self, samples: Series, present: Present = None
    ) -> tuple[Float[Tensor, "n 1 channel"], Float[Tensor, "n 1 channel"]]:
        """Mean and scale of the observed values of each channel of each window; with
        `normalise="none"`, 0 and 1."""
        values, observed = known(samples, present)
        if self.normalise == "none":
            one = torch.ones_like(values[:, :1])
            return torch.zeros_like(one), one
        return statistics(values, observed)

    def prepare(self, samples: Series, present: Present = None) -> Patches:
        """Patches in units of their window, 0 where missing, and after the values of each patch as
        many flags that are 1 where something was observed.

        Raises:
            DataError: If channels have weights of their own and the series has others, or if the
                window is longer than learned positions reach.
        """
        if self.fixed_channels and samples.shape[-1] != self.channels:
            raise DataError(
                f"The series has {samples.shape[-1]} channels, and this encoder reads "
                f"{self.channels}: give it series of the channels that it learnt from, or train "
                "another on these."
            )
        count = self.count(samples.shape[1])
        if self.positions is not None and count > len(self.positions):
            raise DataError(
                f"A window of {samples.shape[1]} steps makes {count} patches, and this encoder "
                f"has learned positions for {len(self.positions)}; build it with "
                f'context={samples.shape[1]} or positions="sincos", or use shorter windows.'
            )
        values, observed = known(samples, present)
        mean, scale = self.units(samples, present)
        values = torch.where(observed, (values - mean) / scale, 0.0)
        return torch.cat([self.cut(values, present), self.cut(observed.float(), present)], dim=-1)

    def cut(self, steps: Series, present: Present) -> Patches:
        """Steps to patches, the last one of each row ending with its last present step; 0 where
        a patch reaches beyond the row."""
        n, time, channels = steps.shape
        device = steps.device
        extent = torch.full((n, 1), time, device=device)
        if present is not None:
            after = torch.arange(1, time + 1, device=device)
            extent = (after * present).amax(1, keepdim=True)
        behind = (extent - self.patch).clamp(min=0) // self.stride * self.stride
        span = self.patch + (self.count(time) - 1) * self.stride
        place = extent - self.patch - behind + torch.arange(span, device=device)
        there = (place >= 0) & (place < extent)
        place = place.clamp(0, time - 1)[:, :, None].expand(n, span, channels)
        return (steps.gather(1, place) * there[:, :, None]).unfold(1, self.patch, self.stride)

    def seen(self, prepared: Patches) -> Seen:
        """Which patches hold any observed value."""
        return prepared[..., self.patch :].any(-1)

    def stem(self, prepared: Patches) -> Tokens:
        """The linear embedding of each patch, without its position."""
        values, observed = prepared.split(self.patch, dim=-1)
        if self.gain is not None and self.offset is not None:
            values = values * self.gain + self.offset * observed
        return self.project(values) + self.missing(1 - observed)

    def trunk(self, hidden: Tokens, seen: Seen | None = None) -> Tokens:
        """Positions, then the layers over the patches of each channel; 0 where nothing was seen."""
        n, patches, channels, _ = hidden.shape
        if self.positions is None:
            positions = sine_positions(patches, self.width).to(hidden)
        else:
            positions = self.positions[:patches]
        rows = (hidden.transpose(1, 2) + positions).flatten(0, 1)
        mask = None if seen is None or bool(seen.all()) else seen.transpose(1, 2).flatten(0, 1)
        rows = self.dropout(rows)
        for layer in self.layers:
            rows = layer(rows, mask)
        if mask is not None:
            rows = rows.masked_fill(~mask[:, :, None], 0)
        return rows.unflatten(0, (n, channels)).transpose(1, 2)

    def tokens(self, samples: Series, present: Present = None) -> Tokens:
        """One token for each patch of each channel, in the context of that channel's patches."""
        prepared = self.prepare(samples, present)
        return self.trunk(self.stem(prepared), self.seen(prepared))

    def embed(
        self, tokens: Float[Tensor, "n *grid width"], present: Present = None
    ) -> Float[Tensor, "n dim"]:
        """Mean of the tokens, over patches and as `pool` says channels; 0 if there are none.

        Tokens that are 0 throughout stand for nothing and are left out. That tells padding and
        gaps alike, and `present` has nothing to add.
        """
        tokens = tokens.float()
        if self.pool == "mean":
            tokens = tokens.flatten(1, -2)
        there = (tokens != 0).any(-1, keepdim=True)
        return (tokens.sum(1) / there.sum(1).clamp(min=1)).flatten(1)

    def channel_tokens(
        self, samples: Series, present: Present = None
    ) -> Float[Tensor, "n channel features"]:
        """All tokens of each channel side by side, patch after patch (`count` × `dim` numbers).

        The paper's linear head maps these to the horizon, with one map for all channels, in the
        `units` of the window (Section 3.1).
        """
        return self.tokens(samples, present).transpose(1, 2).flatten(2)


def known(
    samples: Series, present: Present
) -> tuple[Float[Tensor, "n time channel"], Bool[Tensor, "n time channel"]]:
    """Values, 0 where nothing was observed, and where something was."""
    observed = ~samples.isnan()
    if present is not None:
        observed = observed & present[:, :, None]
    return torch.where(observed, samples, 0.0).float(), observed


def sine_positions(count: int, dim: int) -> Float[Tensor, "count dim"]:
    """Sines and cosines of wavelengths from 2 pi to 10,000 × 2 pi (Vaswani et al., 2017, Section
    3.5), interleaved. `dim` is even."""
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    angle = torch.arange(count)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
