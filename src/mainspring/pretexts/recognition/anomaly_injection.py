"""Anomaly injection: find what was broken in a time series, and where."""

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
from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, unknown
from mainspring.masks import extents
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

LEAST = 8
"""Positions a recording must have; fewer have no normal beside what is broken."""
NONE = "none"


@dataclass(frozen=True)
class AnomalyInjectionConfig:
    """Settings of anomaly injection.

    Attributes:
        kinds: What to inject, beside nothing: any of "spike", "shift", "trend", "swap" and
            "burst".
        size: Standard deviations of the channel: a spike jumps by one to two times so many, a
            shift or trend reaches half to once so many, a noise burst has a quarter to a half.
        wide: Longest broken stretch, as a share of the recording; the shortest is a quarter of it.
        channel: Chance of each channel to be broken; one at least is.
        place: Weight of the question where, beside that of what.
    """

    kinds: tuple[str, ...] = ("spike", "shift", "trend", "swap", "burst")
    size: float = 3.0
    wide: float = 0.2
    channel: float = 0.5
    place: float = 1.0


Series = Float[Tensor, "n time channel"]

KINDS: dict[str, Callable[[Tensor, Tensor, float, float, torch.Generator], Tensor]] = {
    "spike": warps.spike,
    "shift": warps.shift,
    "trend": warps.trend,
    "swap": warps.swap,
    "burst": warps.burst,
}


class AnomalyInjection(Pretext):
    """What is broken in this series, and where? Into a series go one to three spikes, or a stretch
    that lies too high or low, drifts, or is noisy, or two stretches change places, or nothing is
    done. A linear head on the embedding names which of the six, another on each step's token says
    whether that step is one of the broken.

    That injected anomalies stand in for real ones is the idea of NCAD, whose spikes and exchanged
    stretches are among ours, and of AnomalyBERT, whose network tells step by step what was broken.
    Kinds, sizes and the question what beside where are ours, and so are clips of whole
    recordings of up to 512 steps.

    Broken is what can be seen to differ: the truth of a step is whether one of its values was
    changed, so that what falls on missing values is no anomaly, and steps without a value are not
    asked about. Broken steps are few; both sides weigh alike in the loss of the place, and its
    answer is the mean of the shares of broken and of sound steps found (0.5 for a guess). `f1` is
    that of the broken steps, over those of all recordings together, beside `f1_everything`, what
    calling every step broken would get; the even weight finds more steps than it should.

    A series that is constant, unobserved or could not be changed is not asked about. Sizes are
    relative to the channel, so an encoder that normalises recordings sees them. Mind that stretches
    begin and end in edges, that swaps in a periodic series may leave no trace, and that natural
    outliers count as sound.
    """

    question: ClassVar[str] = "What is broken in this series, and where?"
    citation: ClassVar[str] = (
        "Carmona et al., Neural Contextual Anomaly Detection for Time Series, IJCAI 2022; place: "
        "Jeong et al., AnomalyBERT, ICLR 2023 workshop on ML for IoT"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 512

    Config: ClassVar[type] = AnomalyInjectionConfig

    config: AnomalyInjectionConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: AnomalyInjectionConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        for name in config.kinds:
            if name not in KINDS:
                raise unknown("kind of anomaly", name, KINDS)
        if not config.kinds or len(set(config.kinds)) < len(config.kinds):
            raise ConfigError(
                f"kinds are {', '.join(config.kinds) or 'empty'}; give one or more, each once."
            )
        if config.size <= 0 or not 0 < config.wide <= 0.5 or not 0 <= config.channel <= 1:
            raise ConfigError(
                f"size is {config.size:g}, wide {config.wide:g}, channel {config.channel:g}; they "
                "must be positive, in (0, 0.5], and between 0 and 1."
            )
        if config.place < 0:
            raise ConfigError(f"place is {config.place:g}; it must not be negative.")
        self.names = (NONE, *config.kinds)
        self.what = nn.Linear(dims["series"], len(self.names))
        self.where = nn.Linear(dims["series"], 1)

    def needs(self, stream: str) -> int:
        """Shorter recordings than a clip are padded, down to eight samples."""
        spec = self.clips[stream]
        return span(min(LEAST, spec.length), spec.stride)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window anywhere in the recording, or all of it and padding; "anomaly" is the index
        of what will be injected, 0 for nothing."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        kind = rng.integers(len(self.names), size=1)
        return {"series": Draw(clip[None], {"anomaly": kind})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Embeddings (batch, dim), logits (batch, class), whether to ask (batch), and sums over
        the steps of each recording."""
        encoder = encoders["series"]
        samples, present = batch["series"].flat()
        samples = samples.float().masked_fill(~present[:, :, None], torch.nan)
        kind = batch["series"].factors["anomaly"].flatten()
        broken, wrong, asked = self.inject(samples, extents(present), kind, batch.generator)
        tokens = encoder.tokens(broken, present)
        if tokens.shape[1:-1] != samples.shape[1:2]:
            raise ConfigError(
                f"anomaly_injection reads one token a step, and {type(encoder).__name__} makes "
                f"tokens of shape {tuple(tokens.shape[1:-1])} of {samples.shape[1]} steps; use an "
                "encoder that keeps the steps, such as dilated."
            )
        embedding = encoder.embed(tokens, present)
        visible = ~broken.isnan().all(2) & asked[:, None]
        return {
            "embedding": embedding,
            "logits": self.what(embedding),
            "asked": asked.float(),
            **self.compare(self.where(tokens)[:, :, 0].float(), wrong, visible),
        }

    def inject(
        self,
        samples: Series,
        extent: Int64[Tensor, "n"],
        kind: Int64[Tensor, "n"],
        generator: torch.Generator,
    ) -> tuple[Series, Bool[Tensor, "n time"], Bool[Tensor, "n"]]:
        """Breaks each series in the way that is asked for, in some of its channels.

        Args:
            samples: The series, NaN where missing and in padding.
            extent: Steps of each before its padding.
            kind: Index of what is to be injected into each.
            generator: Source of channels, places and sizes.

        Returns:
            The broken series, which of its steps are, and of which series one can ask.
        """
        config = self.config
        varies = samples.nan_to_num(-torch.inf).amax(1) > samples.nan_to_num(torch.inf).amin(1)
        chance = torch.rand(varies.shape, generator=generator, device=generator.device)
        chance = chance.to(samples.device).masked_fill(~varies, 2.0)
        least = chance == chance.amin(1, keepdim=True)
        chosen = ((chance < config.channel) | least) & varies
        broken = samples.clone()
        for index, name in enumerate(self.names):
            if name in KINDS:
                rows = kind == index
                broken[rows] = KINDS[name](
                    samples[rows], extent[rows], config.size, config.wide, generator
                )
        broken = torch.where(chosen[:, None, :], broken, samples)
        wrong = warps.altered(samples, broken).any(2)
        return broken, wrong, varies.any(1) & (wrong.any(1) | (kind == 0))

    def compare(
        self,
        logits: Float[Tensor, "n time"],
        wrong: Bool[Tensor, "n time"],
        visible: Bool[Tensor, "n time"],
    ) -> dict[str, Float[Tensor, "n"]]:
        """Sums over the visible steps of each recording: of the losses, the number of steps, and
        of those rightly called, for broken and for sound steps."""
        losses = F.binary_cross_entropy_with_logits(logits, wrong.float(), reduction="none")
        right = (logits > 0) == wrong
        sums = {}
        for side, steps in (("broken", visible & wrong), ("sound", visible & ~wrong)):
            sums[f"{side}_loss"] = torch.where(steps, losses, 0.0).sum(1)
            sums[f"{side}_steps"] = steps.sum(1).float()
            sums[f"{side}_right"] = (steps & right).sum(1).float()
        return sums

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Cross-entropy on what, plus the mean over broken and over sound steps on where."""
        logits, asked = features["logits"].float(), features["asked"]
        kind = batch["series"].factors["anomaly"].flatten()
        losses = F.cross_entropy(logits, kind, reduction="none")
        right = (logits.argmax(1) == kind).float() * asked
        count = asked.sum().clamp(min=1)
        what = (losses * asked).sum() / count

        total = {k: v.sum() for k, v in features.items() if k.startswith(("broken", "sound"))}
        broken, sound = (total[f"{side}_steps"].clamp(min=1) for side in ("broken", "sound"))
        where = (total["broken_loss"] / broken + total["sound_loss"] / sound) / 2
        balanced = (total["broken_right"] / broken + total["sound_right"] / sound) / 2
        found = total["broken_right"]
        called = found + total["sound_steps"] - total["sound_right"]
        all_steps = total["broken_steps"] + total["sound_steps"]
        metrics = {
            "loss_kind": what,
            "loss_place": where,
            "f1": 2 * found / (called + broken),
            "f1_everything": 2 * total["broken_steps"] / (all_steps + broken),
        }
        for index, name in enumerate(self.names):
            mine = asked * (kind == index)
            if mine.any():
                metrics[f"accuracy_{name}"] = right[mine > 0].mean()
        answers = {}
        if asked.any():
            answers["kind"] = Answer((right.sum() / count).detach(), 1 / len(self.names))
        if total["broken_steps"] > 0 and total["sound_steps"] > 0:
            answers["place"] = Answer(balanced.detach(), 0.5)
        return Outcome(
            loss=what + self.config.place * where,
            answers=answers,
            metrics={name: value.detach() for name, value in metrics.items()},
            embedding=features["embedding"].detach(),
        )
