"""Dilated convolutions over time series: the encoder of TS2Vec, with missing values and padding."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mainspring.clips import NOTHING, ClipSpec
from mainspring.encoders.dilated_block import Block, Extent, Hidden, keep, through
from mainspring.encoders.dropout import Dropout
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.units import NORMALISE, Present, Series, filled, normalised
from mainspring.errors import ConfigError, unknown

POOLS = ("mean", "max")
MISSING = ("flag", "channel", "step", "fill")


class Dilated(Encoder):
    """Residual blocks of two convolutions of three taps, their dilation doubling from block to
    block, one token a step (Yue et al., AAAI 2022, Section 3.1 and the authors' code).

    Of TS2Vec are the linear input projection, ten blocks of 64 channels and an eleventh of 320
    with a 1×1 projection on its residual, GELU, no norm layers, masked steps at 0 after the input
    projection. Ours are the defaults: no dropout, the mean as the pool, normalisation in here, and
    missing values seen by channel (a 0 and an "observed" flag beside it), so that one missing
    channel does not take the step's other channels with it. The pretext `ts2vec` sets them all
    the paper's way, but for missing values of single channels.

    Two kinds of absence are told apart. A step where nothing was observed gets a token from its
    neighbours. A step of padding (`present` False) is kept at 0 in every layer, so
    padding a series changes neither the tokens of its real steps nor its embedding.

    Args:
        channels: Variables of the series.
        width: Channels of the blocks (TS2Vec: 64).
        depth: Blocks before the last one (TS2Vec: 10, a receptive field of 8189 steps).
        dim: Width of the tokens (TS2Vec: 320).
        causal: Whether a step sees only itself and the past (padding on the left). With
            `normalise="recording"` mean and scale still come from all of what is passed in.
        normalise: "recording": each channel of a view has its own mean and standard deviation
            over observed values taken out, so raw units do and level and size are not seen.
            "none" leaves values as they are.
        pool: "mean" or "max" over present steps (TS2Vec: max).
        missing: What becomes of a missing value: "flag" enters 0 and, as a further input, that it
            was not observed; "channel" enters 0 alone; "step" takes the whole step out when one
            of its channels is missing, as TS2Vec's code does. With these three a step where
            nothing was observed enters as 0. "fill" puts it on a straight line between the observed
            values of its channel in the view, at the ends takes the nearest, and in a causal
            encoder the last one.
        dropout: Share of the tokens' values set to 0 in training (TS2Vec: 0.1).

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    name: ClassVar[str] = "dilated"
    stream: ClassVar[str] = "series"
    clip: ClassVar[ClipSpec] = ClipSpec(length=128, rate=None, stride=1)
    citation: ClassVar[str] = (
        "Yue et al., TS2Vec: Towards Universal Representation of Time Series, AAAI 2022"
    )

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        depth: int = 10,
        dim: int = 320,
        causal: bool = False,
        normalise: str = "recording",
        pool: str = "mean",
        missing: str = "flag",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(channels, width, dim) < 1 or depth < 0:
            raise ConfigError(
                f"channels {channels}, width {width} and dim {dim} must be at least 1, "
                f"depth {depth} at least 0."
            )
        if normalise not in NORMALISE:
            raise unknown("normalise", normalise, NORMALISE)
        if pool not in POOLS:
            raise unknown("pool", pool, POOLS)
        if missing not in MISSING:
            raise unknown("way with missing values", missing, MISSING)
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout is {dropout}; it must be at least 0 and below 1.")
        self.settings = {
            "channels": channels,
            "width": width,
            "depth": depth,
            "dim": dim,
            "causal": causal,
            "normalise": normalise,
            "pool": pool,
            "missing": missing,
            "dropout": dropout,
        }
        self.dim = dim
        self.channels = channels
        self.causal = causal
        self.normalise = normalise
        self.pool = pool
        self.missing = missing
        self.project = nn.Linear(channels * (2 if missing == "flag" else 1), width)
        widths = [width] * (depth + 1) + [dim]
        self.blocks = nn.ModuleList(
            Block(widths[i], widths[i + 1], 2**i, causal, last=i == depth) for i in range(depth + 1)
        )
        self.dropout = Dropout(dropout)

    def prepare(
        self, samples: Series, present: Present = None
    ) -> Float[Tensor, "n time 2*channel"]:
        """Normalised values, 0 where missing, and after them the flags that say what was observed,
        or filled in.

        Raises:
            DataError: If the series has another number of channels than the encoder.
        """
        prepared = normalised(samples, present, self.channels, self.normalise)
        if self.missing == "fill" and bool(samples.isnan().any()):
            return filled(prepared, present, self.causal)
        return prepared

    def stem(self, prepared: Float[Tensor, "n time inputs"]) -> Hidden:
        """The input projection; 0 where no channel was observed."""
        observed = prepared[..., self.channels :].bool()
        seen = observed.all(-1, True) if self.missing == "step" else observed.any(-1, True)
        values = prepared if self.missing == "flag" else prepared[..., : self.channels]
        with torch.autocast(values.device.type, enabled=False):  # raw values need all their digits
            return (self.project(values) * seen).transpose(1, 2)

    def trunk(
        self,
        hidden: Hidden,
        present: Present = None,
        only: Int64[Tensor, "n kept"] | None = None,
    ) -> Float[Tensor, "n kept dim"]:
        """The blocks, and dropout.

        Args:
            hidden: What the stem gave.
            present: False at padding.
            only: The steps whose tokens are wanted, -1 for none (a token of 0); None for all. The
                last blocks, whose dilation is greater than the series is long, then see no other.
        """
        extent = Extent(hidden.shape[2]) if present is None else Extent.of(present)
        if only is not None and present is not None:
            only = only.where(present.gather(1, only.clamp(min=0)), NOTHING)
        blocks, exact = [b for b in self.blocks if isinstance(b, Block)], hidden.dtype
        if only is None:
            hidden = through(blocks, hidden, extent)
        else:
            alone = [block.alone(extent.length) for block in blocks]
            last = alone.index(True) if any(alone) else len(blocks)
            hidden = through(blocks[:last], hidden, extent)
            kept = Extent.of(only != NOTHING)
            hidden = through(blocks[last:], keep(hidden, only, kept), kept)
        return self.dropout(hidden.transpose(1, 2).to(exact))

    def tokens(self, samples: Series, present: Present = None) -> Float[Tensor, "n time dim"]:
        """One token a step, in context; 0 where there is padding."""
        return self.trunk(self.stem(self.prepare(samples, present)), present)

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Present = None
    ) -> Float[Tensor, "n dim"]:
        """Mean or maximum over the steps that are no padding; 0 if all are."""
        tokens = tokens.float()
        if present is None:
            present = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        there = present[:, :, None]
        if self.pool == "mean":
            return (tokens * there).sum(1) / there.sum(1).clamp(min=1)
        most = tokens.masked_fill(~there, -torch.inf).amax(1)
        return torch.where(there.any(1), most, 0.0)
