"""ImageBind: bind several streams to one, and they are bound to each other.

Girdhar et al., "ImageBind: one embedding space to bind them all", CVPR 2023. One stream, the
anchor, is what every recording shows; each other stream M is contrasted with it, in both directions
(Section 3.2):

    L_{I,M} = -log e^(q_i · k_i / tau) / (e^(q_i · k_i / tau) + sum_j≠i e^(q_i · k_j / tau)) (Eq. 1)

and the loss is the sum over the streams M of the mean of L_{I,M} and L_{M,I} (the paper has their
sum). Two streams that are not the anchor are never compared, and need never be recorded together:
that they end up side by side is the paper's emergent alignment.

A recording without the anchor or without M, or with a silent sound, is left out of the term of M;
the metrics say how many took part. From the paper: linear heads, vectors of length 1, the sum of
both directions. Changed: the anchor is learnt from scratch (the paper keeps that of OpenCLIP), so
it is no image but a clip by default; and each stream has a temperature of its own that is learnt,
where the paper finds one for each by trial (0.05 for sound, 0.2 for depth).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from mainspring.clips import ClipSpec, Draw, Timeline, window
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.errors import ConfigError, unknown
from mainspring.losses.multiple import LARGEST_SCALE, compare, found, pair_nce
from mainspring.pretexts.content import content_change
from mainspring.pretexts.presence import embedded
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext
from mainspring.pretexts.times import around


@dataclass(frozen=True)
class ImagebindConfig:
    """Settings of `Imagebind`.

    Attributes:
        anchor: The stream that the others are bound to.
        temperature: To begin with, of each stream: 0.07 as in CLIP, from which the paper's comes.
        learned: Learn the temperatures; otherwise they stay, as most of the paper's do.
        width: Of the shared space.
        hidden: Between two layers of a head; 0 is the paper's one linear layer.
        flip: Video only: chance of a horizontal flip of a clip.
        jitter: Video only: strength of colour jitter, alike in all frames of a clip.
    """

    anchor: str = "video"
    temperature: float = 0.07
    learned: bool = True
    width: int = 256
    hidden: int = 0
    flip: float = 0.5
    jitter: float = 0.0


class Imagebind(Pretext):
    """Contrast of one stream with each of the others."""

    question = "Which sound, which series and which sentence belong to this clip?"
    citation = "Girdhar et al., ImageBind: One Embedding Space To Bind Them All, CVPR 2023"
    accepts = ("video", "audio", "series", "text")
    apart = True
    partial = True
    Config: ClassVar[type] = ImagebindConfig

    config: ImagebindConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: ImagebindConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        _check(config, clips)
        self.bound = [stream for stream in clips if stream != config.anchor]
        self.change = {
            stream: content_change(stream, spec, config.flip, config.jitter)
            for stream, spec in clips.items()
        }
        self.heads = nn.ModuleDict(
            {stream: JointHead(dims[stream], config.width, config.hidden) for stream in clips}
        )
        start = -math.log(config.temperature)
        self.scales = nn.ParameterDict(
            {s: nn.Parameter(torch.tensor(start), config.learned) for s in self.bound}
        )

    @classmethod
    def wants(cls, config: ImagebindConfig, there: Mapping[str, int]) -> list[str]:
        """The anchor and every other stream that there is.

        Raises:
            ConfigError: If the anchor is no stream that it accepts.
        """
        if config.anchor not in cls.accepts:
            raise unknown("anchor", config.anchor, cls.accepts)
        others = [stream for stream in cls.accepts if stream in there and stream != config.anchor]
        return [config.anchor, *others] if config.anchor in there and others else []

    def joint(self) -> dict[str, nn.Module]:
        """The head of every stream."""
        return dict(self.heads.items())

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """A clip of the anchor, and of the other streams what lies at the same time; nothing of any
        where there is no anchor, since then nothing is asked."""
        anchor = self.config.anchor
        if not self.has(timeline, anchor):
            return {stream: self.absent(stream, 1, {}) for stream in self.clips}
        spec, extent = self.clips[anchor], timeline[anchor]
        clip = window(extent.length, spec.length, spec.stride, rng)
        middle = np.array([(clip[0] + spec.span / 2) / extent.rate])
        draws = {anchor: Draw(clip[None], {})}
        for stream in self.bound:
            if not self.has(timeline, stream):
                draws[stream] = self.absent(stream, 1, {})
            else:
                near = around(middle, timeline[stream], self.clips[stream], stream)
                draws[stream] = Draw(near, {})
        return draws

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """For each stream the vector in the shared space, (batch, dim), and whether there is one;
        and the anchor's embedding."""
        features: Features = {}
        for stream, change in self.change.items():
            shown = embedded(stream, encoders[stream], change, batch[stream], batch.generator)
            features[stream] = self.heads[stream](shown.embedding[:, 0])
            features[f"there.{stream}"] = shown.there[:, 0]
            if stream == "audio":
                features["silent"] = shown.silent[:, 0]
            if stream == self.config.anchor:
                features["embedding"] = shown.embedding[:, 0].detach()
        return features

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The sum of Eq. 1 over the streams bound to the anchor."""
        anchor = self.config.anchor
        outcome = Outcome(features[anchor].new_zeros(()))
        seen = features[f"there.{anchor}"]
        outcome.embedding = features["embedding"][seen].detach()
        for stream in self.bound:
            both = seen & features[f"there.{stream}"]
            scores = compare(
                features[anchor],
                features[stream][:, None],
                both[:, None],
                batch.recording,
                self.scales[stream].exp(),
            )
            outcome.loss = outcome.loss + pair_nce(scores)
            outcome.metrics[f"paired {stream}"] = both.float().mean()
            outcome.metrics[f"temperature {stream}"] = (-self.scales[stream].detach()).exp()
            retrieved = found(scores)
            if retrieved is not None:
                outcome.answers[f"{anchor} to {stream}"] = Answer(*retrieved[0])
                outcome.answers[f"{stream} to {anchor}"] = Answer(*retrieved[1])
        if "silent" in features:
            outcome.metrics["silent"] = features["silent"].float().mean()
        return outcome

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Keeps the temperatures in bounds, as CLIP does."""
        with torch.no_grad():
            for scale in self.scales.values():
                scale.clamp_(max=math.log(LARGEST_SCALE))


def _check(config: ImagebindConfig, clips: Mapping[str, ClipSpec]) -> None:
    """Whether settings and streams go together.

    Raises:
        ConfigError: If they do not.
    """
    if config.anchor not in clips or len(clips) < 2:
        raise ConfigError(
            f"imagebind binds streams to {config.anchor} and needs it and another one, but reads "
            f"{', '.join(clips)}. Choose the streams with --stream, or another anchor."
        )
    if config.temperature < 1 / LARGEST_SCALE:
        raise ConfigError(
            f"The temperature must be at least {1 / LARGEST_SCALE}, not {config.temperature}."
        )
