"""Masked patches: restore the hidden patches of a time series from the others, as PatchTST does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.patch_transformer import Patches, PatchTransformer, Seen, Tokens
from mainspring.errors import ConfigError, unknown
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

FILLS = ("zeros", "learned")


@dataclass(frozen=True)
class MaskedPatchesConfig:
    """Settings of masked patches.

    Attributes:
        ratio: Share of the patches of each channel that is hidden.
        fill: What the encoder sees of a hidden patch: "zeros", the window's mean, as in the paper,
            or a "learned" vector in place of the embedded patch.
        dropout: On the tokens that the head reads.
    """

    ratio: float = 0.4
    fill: str = "zeros"
    dropout: float = 0.2


class MaskedPatches(Pretext):
    """What was hidden? Some patches of each channel are hidden from the encoder, and a linear map
    of their tokens restores the values (Nie et al., ICLR 2023, Section 3.2).

    Of the paper: windows of 512 steps in patches of 12 that do not overlap; two fifths of the
    patches of each channel, drawn anew each time and in each channel by itself, are set to zero;
    the loss is the squared error on them, in the units of the window (mean 0 and deviation 1 by
    channel, taken over hidden values too). Of 42 patches 25 stay and 17 are hidden: the number
    that stays is rounded down. From the authors' code are the dropout before the head, Adam without
    decay at a batch of 64 and a peak rate of 1e-4 (from which their script goes on to search for
    a better one), reached after three tenths of the run. Their one-cycle schedule rises and falls
    by half cosines; here the rise is linear. They train for ten passes over all windows; the
    length of a run is left to you.

    Ours: a value that is missing, or padding, is never asked for; a patch without any observed
    value is neither hidden nor counted when two fifths are taken; recordings shorter than the
    window end in padding. The encoder must be one that cuts series into patches. Positions are
    sines and cosines, where the paper learns them: learned ones begin near 0, and attention takes
    thousands of steps to find a neighbour by them (ETTh1 after 300 steps of 16 windows: a squared
    error of 0.92 with learned positions, 0.81 with sines).

    Beside the error stand those of two fillings that know nothing: the window's mean, and a line
    from the last value seen before a gap to the first one after it (level at the ends). Skill is
    1 - mse / theirs: 0 for a restoration no better, 1 for a perfect one. The answer named `side`
    is the share of hidden values that lie above or below that line as restored; a coin gets 0.5,
    but where a series returns to its mean, the mean gets more (0.73 on white noise).
    """

    question: ClassVar[str] = "What was hidden?"
    citation: ClassVar[str] = (
        "Nie et al., A Time Series is Worth 64 Words: Long-term Forecasting with Transformers, "
        "ICLR 2023"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    recipe: ClassVar[dict[str, Any]] = {
        "encoder": ["patch_transformer"],
        "architecture": {"series": {"positions": "sincos"}},
        "batch": 64,
        "optimiser": {"lr": 1e-4, "weight_decay": 0.0, "warmup": 0.3},
    }
    whole: ClassVar[int] = 512

    Config: ClassVar[type] = MaskedPatchesConfig

    config: MaskedPatchesConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: MaskedPatchesConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if not 0 < config.ratio < 1:
            raise ConfigError(f"ratio is {config.ratio}; it must lie between 0 and 1.")
        if not 0 <= config.dropout < 1:
            raise ConfigError(f"dropout is {config.dropout}; it must be at least 0 and below 1.")
        if config.fill not in FILLS:
            raise unknown("fill", config.fill, FILLS)

    def needs(self, stream: str) -> int:
        """Two samples: what is shorter than the window is padded."""
        spec = self.clips[stream]
        return span(min(2, spec.length), spec.stride)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Builds the head and, if wanted, the learned mask.

        Raises:
            ConfigError: If the encoder has no patches, or patches that overlap, or fewer than two
                of them in a window.
        """
        encoder = encoders["series"]
        if not isinstance(encoder, PatchTransformer):
            raise ConfigError(
                f"masked_patches hides patches, and {type(encoder).__name__} has none; use the "
                "encoder patch_transformer."
            )
        if encoder.stride != encoder.patch:
            raise ConfigError(
                f"Patches of {encoder.patch} steps every {encoder.stride} overlap, so a hidden one "
                f"would be seen in its neighbours; set architecture.series.stride to "
                f"{encoder.patch}."
            )
        length = self.clips["series"].length
        if length < 2 * encoder.patch:
            raise ConfigError(
                f"A window of {length} steps holds {encoder.count(length)} patch of "
                f"{encoder.patch}, and one must stay when another is hidden; set "
                f"architecture.series.patch to {max(1, length // 2)} or less."
            )
        self.dropout = nn.Dropout(self.config.dropout)
        self.head = nn.Linear(encoder.width, encoder.patch)
        if self.config.fill == "learned":
            self.mask = nn.Parameter(torch.empty(encoder.width).normal_(std=0.02))

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window anywhere in the recording; all of it and padding where it is shorter."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        return {"series": Draw(clip[None], {})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Sums, for each recording, over the hidden values."""
        encoder = encoders["series"]
        assert isinstance(encoder, PatchTransformer), "attach looks at that"
        prepared = encoder.prepare(*batch["series"].flat())
        seen = encoder.seen(prepared)
        hidden = choose(seen, self.config.ratio, batch.generator)
        tokens = encoder.trunk(self.hide(encoder, prepared, hidden), seen)
        restored = self.head(self.dropout(tokens)).float()
        values, observed = prepared.split(encoder.patch, dim=-1)
        sums = compare(restored, values, observed.bool(), hidden)
        return {**sums, "embedding": encoder.embed(tokens)}

    def hide(self, encoder: PatchTransformer, prepared: Patches, hidden: Seen) -> Tokens:
        """Embedded patches, the hidden ones all alike: not even their gaps are seen."""
        values, observed = prepared.split(encoder.patch, dim=-1)
        values = values.masked_fill(hidden[..., None], 0)
        observed = observed.masked_fill(hidden[..., None], 1)
        embedded = encoder.stem(torch.cat([values, observed], dim=-1))
        if self.config.fill == "learned":
            embedded = torch.where(hidden[..., None], self.mask.to(embedded.dtype), embedded)
        return embedded

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The mean over all hidden values, whatever recording they are of."""
        total = {k: v.sum() for k, v in features.items() if k != "embedding"}
        cells = total["cells"].clamp(min=1)
        loss = total["squared"] / cells
        metrics = {"mse": loss.detach()}
        for naive in ("mean", "line"):
            level = total[naive] / cells
            metrics[f"mse_{naive}"] = level
            metrics[f"skill_{naive}"] = 1 - loss.detach() / level.clamp(min=1e-12)
        answers = {}
        if total["apart"] > 0:
            answers["side"] = Answer((total["right"] / total["apart"]).detach(), 0.5)
        return Outcome(
            loss=loss,
            answers=answers,
            metrics={name: value.detach() for name, value in metrics.items()},
            embedding=features["embedding"].detach(),
        )


def choose(seen: Seen, ratio: float, generator: torch.Generator) -> Seen:
    """Which patches to hide: in each channel of each window by itself, of m patches that hold
    anything, m - floor(m (1 - ratio)), but never the only one.

    Args:
        seen: Which patches hold anything.
        ratio: Share to hide.
        generator: Source of the choice.
    """
    noise = torch.rand(seen.shape, generator=generator, device=generator.device).to(seen.device)
    noise = noise.masked_fill(~seen, torch.inf)
    rank = noise.argsort(1).argsort(1)
    count = seen.sum(1, keepdim=True)
    stay = (count * (1 - ratio) + 1e-6).floor().clamp(min=1)
    return seen & (rank >= stay)


def compare(
    restored: Float[Tensor, "n patches channel patch"],
    values: Float[Tensor, "n patches channel patch"],
    observed: Bool[Tensor, "n patches channel patch"],
    hidden: Seen,
) -> dict[str, Float[Tensor, "n"]]:
    """Sums over the observed values of each window's hidden patches.

    Args:
        restored: What the head says.
        values: What there was, in units of the window; 0 where nothing was observed.
        observed: Where something was.
        hidden: Which patches were hidden.

    Returns:
        squared: Squared errors; and those of the fillings `mean` and `line`.
        cells: Number of values asked for.
        right, apart: How many of the `apart` values that are not on the line lie on the side of
            it where they were restored to.
    """
    asked = observed & hidden[..., None]
    line = lines(values, observed & ~hidden[..., None])
    right = (values - line) * (restored - line) > 0
    sums = {
        "squared": (restored - values).square(),
        "mean": values.square(),
        "line": (line - values).square(),
        "cells": torch.ones_like(values),
        "right": right.float(),
        "apart": (values != line).float(),
    }
    return {name: torch.where(asked, cells, 0.0).sum((1, 2, 3)) for name, cells in sums.items()}


def lines(
    values: Float[Tensor, "n patches channel patch"],
    known: Bool[Tensor, "n patches channel patch"],
) -> Float[Tensor, "n patches channel patch"]:
    """Each value on the line between the nearest known ones before and after it in its channel;
    the nearest known one beyond the first and last, 0 where nothing is known."""
    patches, patch = values.shape[1], values.shape[3]
    values, known = values.transpose(1, 2).flatten(2), known.transpose(1, 2).flatten(2)
    time = values.shape[-1]
    step = torch.arange(time, device=values.device).expand_as(values)
    before = torch.where(known, step, -1).cummax(-1).values
    after = torch.where(known, step, time).flip(-1).cummin(-1).values.flip(-1)
    left = torch.where(before >= 0, before, after).clamp(max=time - 1)
    right = torch.where(after < time, after, before).clamp(min=0)
    share = (step - left) / (right - left).clamp(min=1)
    start, stop = values.gather(-1, left), values.gather(-1, right)
    filled = torch.where(known.any(-1, keepdim=True), start + share * (stop - start), 0.0)
    return filled.unflatten(-1, (patches, patch)).transpose(1, 2)
