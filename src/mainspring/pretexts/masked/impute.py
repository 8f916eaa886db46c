"""Imputation: restore values of a time series that were hidden from the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.units import statistics
from mainspring.errors import ConfigError
from mainspring.masks import block_mask, extents, random_mask, span_mask
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

LEAST = 8
"""Positions a recording must have: something to hide and something to tell it from."""

Cells = Bool[Tensor, "n time channel"]


@dataclass(frozen=True)
class ImputeConfig:
    """Settings of imputation. The three masks are drawn together; a cell is hidden if any hides it.

    Attributes:
        span: Share of cells hidden in spans, drawn for each channel by itself (TST's r).
        length: Mean length of a span in steps (TST's l_m).
        point: Share of cells hidden one by one.
        channel: Share of the channels that are hidden for one long stretch, which the others may
            tell of; at least one channel unless 0.
        stretch: Length of that stretch as a share of the recording.
        limit: Targets further than this many standard deviations from the mean of what was seen
            count as that far, lest one outlier outweigh all else.
    """

    span: float = 0.15
    length: float = 3.0
    point: float = 0.0
    channel: float = 0.0
    stretch: float = 0.5
    limit: float = 10.0


class Impute(Pretext):
    """What was hidden? The encoder sees a series with holes; one linear map of each step's token
    gives the values of that step, and only values that were observed and then hidden are asked for.

    This is the denoising task of TST: spans of geometric length, 3 steps on average, hide 15 % of
    each channel independently of the others; squared error; a linear layer on each token. Ours
    are: hidden cells are missing to the encoder (NaN; TST puts in 0, which is also a value), other
    shapes of holes, and the unit of the error, which is that of what was left to see: each channel
    of each recording has the mean and standard deviation of its visible values taken out, so that
    recordings in any unit weigh alike and nothing hidden is known. A channel of which nothing or
    a constant was left has no unit, and is not asked for; that is why a channel is hidden for a
    stretch and never as a whole. Values missing in the data are never asked for.

    Clips are whole recordings of up to 512 steps, as TST's are whole; the bound is ours.

    Beside the error stand those of two fillings that know nothing: the mean of the visible values
    of the channel, and the straight line between its visible neighbours; skill is 1 - mse /
    theirs, 0 for a filling no better and 1 for a perfect one. The answer named `side` is the share
    of values that lie above or below that line as restored; a coin gets 0.5, but where a series
    returns to its mean, the mean gets more. The line is hard to beat in short holes of smooth
    series; longer spans or `channel` ask for more than smoothness.
    """

    question: ClassVar[str] = "Which values were hidden?"
    citation: ClassVar[str] = (
        "Zerveas et al., A Transformer-based Framework for Multivariate Time Series "
        "Representation Learning, KDD 2021"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 512

    Config: ClassVar[type] = ImputeConfig

    config: ImputeConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: ImputeConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if config.limit <= 0:
            raise ConfigError(f"limit is {config.limit}; it must be positive.")
        if config.span == config.point == config.channel == 0:
            raise ConfigError("span, point and channel are all 0; impute must hide something.")
        self.hide(torch.ones(1, 2, 1, dtype=torch.bool), torch.Generator())  # tells of wrong shares

    def needs(self, stream: str) -> int:
        """Shorter recordings than a clip are padded, down to eight samples."""
        spec = self.clips[stream]
        return span(min(LEAST, spec.length), spec.stride)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Builds the head, whose outputs are as many as the series has channels."""
        encoder = encoders["series"]
        if "channels" not in encoder.settings:
            raise ConfigError(
                f"impute must know how many channels a series has, and {type(encoder).__name__} "
                "has no setting `channels`; use an encoder that has, such as dilated."
            )
        self.head = nn.Linear(self.dims["series"], int(encoder.settings["channels"]))

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window anywhere in the recording, or all of it and padding."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        return {"series": Draw(clip[None], {})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Sums, for each recording, over what was hidden."""
        encoder = encoders["series"]
        samples, present = batch["series"].flat()
        observed = ~samples.isnan() & present[:, :, None]
        hidden = self.hide(observed, batch.generator)
        tokens = encoder.tokens(samples.masked_fill(hidden, torch.nan), present)
        if tokens.shape[1:-1] != samples.shape[1:2]:
            raise ConfigError(
                f"impute reads one token a step, and {type(encoder).__name__} makes tokens of "
                f"shape {tuple(tokens.shape[1:-1])} of {samples.shape[1]} steps; use an encoder "
                "that keeps the steps, such as dilated."
            )
        sums = self.compare(self.head(tokens).float(), samples.float(), observed, hidden)
        return {**sums, "embedding": encoder.embed(tokens, present)}

    def hide(self, observed: Cells, generator: torch.Generator) -> Cells:
        """Which of the observed values to hide."""
        config, (n, time, channels) = self.config, observed.shape
        hidden = span_mask(n * channels, time, config.span, config.length, generator)
        hidden = hidden.unflatten(0, (n, channels)).transpose(1, 2)
        hidden = hidden | random_mask((n, time, channels), config.point, generator)
        if config.channel:
            extent = extents(observed.any(2))
            hidden = hidden | block_mask(
                extent, time, channels, config.stretch, config.channel, generator
            )
        return hidden.to(observed.device) & observed

    def compare(
        self,
        restored: Float[Tensor, "n time channel"],
        samples: Float[Tensor, "n time channel"],
        observed: Cells,
        hidden: Cells,
    ) -> dict[str, Float[Tensor, "n"]]:
        """Sums over the hidden values of each recording.

        Args:
            restored: What the head says, in units of the visible values.
            samples: The series in its own units.
            observed: Where it has values.
            hidden: Which of those the encoder did not see.

        Returns:
            error: Squared errors, and those of the fillings `mean` and `linear`.
            cells: Number of values asked for.
            right, moved: How many of the `moved` values that are off the straight line are on
                the side of it that was restored.
        """
        seen = observed & ~hidden
        values = torch.where(seen, samples, 0.0)
        mean, scale = statistics(values, seen)
        highest = values.masked_fill(~seen, -torch.inf).amax(1, keepdim=True)
        lowest = values.masked_fill(~seen, torch.inf).amin(1, keepdim=True)
        asked = hidden & (highest > lowest)

        def counted(cells: Tensor) -> Tensor:
            return torch.where(asked, cells.clamp(-self.config.limit, self.config.limit), 0.0)

        target = counted((samples - mean) / scale)
        line = counted((interpolate(values, seen) - mean) / scale)
        restored = torch.where(asked, restored, 0.0)
        moved = target != line
        sums = {
            "error": (restored - target).square(),
            "mean": target.square(),
            "linear": (line - target).square(),
            "cells": asked.float(),
            "right": ((target - line) * (restored - line) > 0).float(),
            "moved": moved.float(),
        }
        return {name: cells.sum((1, 2)) for name, cells in sums.items()}

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The mean over all values asked for, whatever recording they are of."""
        total = {k: v.sum() for k, v in features.items() if k != "embedding"}
        cells = total["cells"].clamp(min=1)
        mse = total["error"] / cells
        metrics = {"mse": mse}
        for naive in ("mean", "linear"):
            level = total[naive] / cells
            metrics[f"mse_{naive}"] = level
            metrics[f"skill_{naive}"] = 1 - mse / level.clamp(min=1e-12)
        answers = {}
        if total["moved"] > 0:
            answers["side"] = Answer((total["right"] / total["moved"]).detach(), 0.5)
        return Outcome(
            loss=mse,
            answers=answers,
            metrics={name: value.detach() for name, value in metrics.items()},
            embedding=features["embedding"].detach(),
        )


def interpolate(
    values: Float[Tensor, "n time channel"], seen: Cells
) -> Float[Tensor, "n time channel"]:
    """Every cell on the straight line between its seen neighbours in time; before the first and
    after the last seen value that value, and 0 where a channel has none.

    Args:
        values: Values, 0 where nothing was seen.
        seen: Where something was.
    """
    time = values.shape[1]
    step: Int64[Tensor, "time 1"] = torch.arange(time, device=values.device)[:, None]
    before = torch.where(seen, step, -1).cummax(1).values
    after = torch.where(seen, step, time).flip(1).cummin(1).values.flip(1)
    left = torch.where(before < 0, after, before).clamp(max=time - 1)
    right = torch.where(after == time, left, after)
    share = (step - left) / (right - left).clamp(min=1)
    first, second = values.gather(1, left), values.gather(1, right)
    return first + torch.where(right > left, share, 0.0) * (second - first)
