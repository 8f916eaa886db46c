"""Transformation recognition: name what was done to a time series."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.augment import warps
from mainspring.augment.audio import uniform
from mainspring.augment.series import SeriesAugment
from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, unknown
from mainspring.masks import extents
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

LEAST = 8
"""Positions a recording must have; in fewer, little can be changed."""
NONE = "none"


@dataclass(frozen=True)
class TransformRecognitionConfig:
    """Settings of transformation recognition.

    Attributes:
        changes: Which changes to tell apart, and from none: any of "scale", "jitter", "permute",
            "warp", "negate", "reverse" and "slice".
        scale: A stretch grows or shrinks by up to this factor, above 1.
        jitter: Standard deviation of the noise, as a share of the channel's.
        pieces: Into which the series is cut to be permuted.
        warp: Standard deviation of the logarithm of the pace.
        keep: Least share of the series that a slice keeps, below 1.
        between: Read every series, changed or not, a little between its samples, so that the
            smoothing by interpolation does not give away which ones were warped or sliced.
    """

    changes: tuple[str, ...] = ("scale", "jitter", "permute", "warp", "negate", "reverse", "slice")
    scale: float = 4.0
    jitter: float = 0.2
    pieces: int = 4
    warp: float = 0.6
    keep: float = 0.4
    between: bool = True


Settings = TransformRecognitionConfig
Series = Float[Tensor, "n time channel"]

PLACES: dict[str, Callable[[Tensor, int, Settings, torch.Generator], Tensor]] = {
    "permute": lambda extent, time, of, dice: warps.permute(extent, time, of.pieces, dice),
    "warp": lambda extent, time, of, dice: warps.warp(extent, time, of.warp, dice),
    "reverse": lambda extent, time, of, dice: warps.reverse(extent, time),
    "slice": lambda extent, time, of, dice: warps.zoom(extent, time, of.keep, dice),
}
"""Changes of time, as the places at which a series is read."""

VALUES: dict[str, Callable[[Tensor, Tensor, Settings, torch.Generator], Tensor]] = {
    "scale": lambda series, extent, of, dice: warps.swell(series, extent, of.scale, dice),
    "jitter": lambda series, extent, of, dice: SeriesAugment(jitter=of.jitter)(series, dice),
    "negate": lambda series, extent, of, dice: warps.negate(series),
}
"""Changes of values."""


class TransformRecognition(Pretext):
    """What was done to this series? One of eight: a stretch of it scaled, noise added, pieces
    permuted, time warped, turned upside down, played backwards, a part cut out and stretched to
    the whole, or nothing. A linear head on the embedding names it.

    The changes are those of Um et al. and of Saeed et al., who ask of each change by itself
    whether it was made; here one question has all the answers, and rotation and exchange of
    channels are left out, which a series of one channel does not have. Their sizes are ours.

    Mind what gives a change away:
    - An encoder that takes out mean and size of a recording (the dilated one's default) cannot
      see the whole of it scaled. So a stretch is scaled, about the mean, and eased in and out.
    - Warping and slicing read between samples, which smooths noise, and a network may look for
      the smoothness rather than for the pace. With `between` all series are read between samples.
      That hides a part of it only, as slower is smoother and the smoothing of a warp comes and
      goes: on white noise, warp, slice and none were told apart at 0.85 with it and 0.97 without
      (chance 0.33, 150 steps of 32). Mind the accuracy on noisy data.
    - Permuted pieces meet in jumps. They are part of the change in the papers as well.
    - A series without a direction (noise, a pure tone) cannot be told from its reverse, nor a
      symmetric one from its negative. `accuracy_reverse` and the others say what is there.

    A series that is constant, unobserved, or that its change left as it was, is not asked about.
    Clips are whole recordings of up to 512 steps, of which the bound is ours.
    """

    question: ClassVar[str] = "What was done to this series?"
    citation: ClassVar[str] = (
        "Saeed et al., Multi-task Self-Supervised Learning for Human Activity Detection, IMWUT "
        "2019; changes: Um et al., Data Augmentation of Wearable Sensor Data, ICMI 2017"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 512

    Config: ClassVar[type] = TransformRecognitionConfig

    config: TransformRecognitionConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: TransformRecognitionConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        for name in config.changes:
            if name not in PLACES and name not in VALUES:
                raise unknown("change", name, [*PLACES, *VALUES])
        if not config.changes or len(set(config.changes)) < len(config.changes):
            raise ConfigError(
                f"changes are {', '.join(config.changes) or 'empty'}; give one or more, each once."
            )
        if config.scale <= 1 or config.pieces < 2 or not 0 < config.keep < 1:
            raise ConfigError(
                f"scale is {config.scale:g}, pieces {config.pieces}, keep {config.keep:g}; they "
                "must be above 1, at least 2, and between 0 and 1."
            )
        if config.jitter <= 0 or config.warp <= 0:
            raise ConfigError(
                f"jitter is {config.jitter:g} and warp {config.warp:g}; both must be positive."
            )
        self.names = (NONE, *config.changes)
        self.head = nn.Linear(dims["series"], len(self.names))

    def needs(self, stream: str) -> int:
        """Shorter recordings than a clip are padded, down to eight samples."""
        spec = self.clips[stream]
        return span(min(LEAST, spec.length), spec.stride)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window anywhere in the recording, or all of it and padding; "change" is the index
        of what will be done to it, 0 for nothing."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        change = rng.integers(len(self.names), size=1)
        return {"series": Draw(clip[None], {"change": change})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Embeddings (batch, dim), logits (batch, class), and whether to ask (batch)."""
        samples, present = batch["series"].flat()
        samples = samples.float().masked_fill(~present[:, :, None], torch.nan)
        change = batch["series"].factors["change"].flatten()
        changed, asked = self.change(samples, extents(present), change, batch.generator)
        embedding = encoders["series"](changed, present)
        return {"embedding": embedding, "logits": self.head(embedding), "asked": asked.float()}

    def change(
        self,
        samples: Series,
        extent: Int64[Tensor, "n"],
        change: Int64[Tensor, "n"],
        generator: torch.Generator,
    ) -> tuple[Series, Bool[Tensor, "n"]]:
        """Does to each series what is to be done to it.

        Args:
            samples: The series, NaN where missing and in padding.
            extent: Steps of each before its padding.
            change: Index of what is to be done to each.
            generator: Source of places and sizes.

        Returns:
            The changed series, and of which one can ask what was done.
        """
        time, config = samples.shape[1], self.config
        still = warps.unmoved(extent, time)
        places = still.clone()
        for index, name in enumerate(self.names):
            if name in PLACES:
                rows = change == index
                places[rows] = PLACES[name](extent[rows], time, config, generator)
        if config.between:
            by = uniform(len(samples), samples, generator)[:, None] - 0.5
            still, places = warps.held(still + by, extent), warps.held(places + by, extent)
        plain, changed = warps.resample(samples, still), warps.resample(samples, places)
        for index, name in enumerate(self.names):
            if name in VALUES:
                rows = change == index
                changed[rows] = VALUES[name](changed[rows], extent[rows], config, generator)
        varies = (plain.nan_to_num(-torch.inf).amax(1) > plain.nan_to_num(torch.inf).amin(1)).any(1)
        done = warps.altered(plain, changed).any(2).any(1) | (change == 0)
        return changed, varies & done

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Cross-entropy on what was done, and how often each change was named."""
        logits, asked = features["logits"].float(), features["asked"]
        change = batch["series"].factors["change"].flatten()
        losses = F.cross_entropy(logits, change, reduction="none")
        right = (logits.argmax(1) == change).float() * asked
        metrics = {}
        for index, name in enumerate(self.names):
            mine = asked * (change == index)
            if mine.any():
                metrics[f"accuracy_{name}"] = right[mine > 0].mean()
        count = asked.sum().clamp(min=1)
        answers = {}
        if asked.any():
            answers["change"] = Answer((right.sum() / count).detach(), 1 / len(self.names))
        return Outcome(
            loss=(losses * asked).sum() / count,
            answers=answers,
            metrics=metrics,
            embedding=features["embedding"].detach(),
        )
