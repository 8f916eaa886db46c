"""Contrast of two streams: which sound, series or sentence belongs to which clip?

The symmetric contrast of CLIP (Radford et al., "Learning transferable visual models from natural
language supervision", ICML 2021, Figure 3), for any two streams of a recording: an encoder and a
linear head each, cosines, a learnt temperature, both directions. Three presets of it:

    audioclip    Guzhov et al., ICASSP 2022: picture and sound of the same time (the paper contrasts
                 text with both as well; here that takes a run for each pair, or `imagebind`)
    videoclip    Xu et al., EMNLP 2021: picture and text that overlap in time, mined negatives
    milnce       Miech et al., CVPR 2020: some of the 5 sentences nearest in time is right

**Overlap** (VideoCLIP, Section 3.2): what is seen and what is said of it seldom begin and end
together. So the second clip need only overlap the first: its middle is drawn within the first and
its length at random. Where one stream is text the sentence comes first and the clip is drawn around
a moment within it, as in the paper. At the ends of a recording the clip is moved in.

**Mined negatives** (VideoCLIP, Section 3.3): the paper fills a batch with recordings that are near
each other, so that they are told apart. Which recordings make a batch is not for a pretext to
say, so here the mined ones come from a bank: of each recording the vectors of its last visit.
A recording looks up its 2k nearest there (by the mean of its two streams' vectors, as in the
paper), and k of them, drawn at random, join what it is told from. Vectors in the bank are some
steps old and carry no gradient, and they are few beside the batch. In evaluation there are none.

Silent sounds and sentences without words belong to everything; they are neither right nor wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.clips import ClipSpec, Draw, Timeline, window
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.errors import ConfigError, unknown
from mainspring.losses.multiple import (
    LARGEST_SCALE,
    Mined,
    NeighbourBank,
    Scores,
    compare,
    cpd,
    found,
    mil_nce,
    noise_level,
    pair_nce,
)
from mainspring.pretexts.content import content_change
from mainspring.pretexts.presence import embedded
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext
from mainspring.pretexts.times import around, nearest_sentences, sentences

LOSSES = ("info_nce", "mil_nce", "cpd")


@dataclass(frozen=True)
class ClipConfig:
    """Settings of `Clip`.

    Attributes:
        loss: "info_nce" (CLIP's; every sentence is right), "mil_nce" (some sentence of the bag is)
            or "cpd" (pairs are told from noise; its temperature is not learnt, since its
            normaliser is a constant).
        sentences: Text only: how many of the sentences nearest in time make the bag of a clip.
            Miech et al. try 1 to 33.
        overlap: The second clip need only overlap the first; otherwise their middles meet.
        shortest: With `overlap`: least length of the second clip, as a share of its whole length,
            which is the longest. Videos keep their number of frames, which lie closer together;
            other streams end in padding. Open; Xu et al. have up to 32 s.
        mined: Mined negatives a recording, the paper's k; 0 for none. Not of the batch.
        temperature: To begin with: 0.07 in CLIP. Miech et al. have none, but no vectors of length 1
            either, for which one is needed.
        width: Of the shared space.
        hidden: Between two layers of a head; 0 is CLIP's one linear layer.
        flip: Video only: chance of a horizontal flip of a clip.
        jitter: Video only: strength of colour jitter, alike in all frames of a clip. CLIP has none,
            since texts name colours.
    """

    loss: str = "info_nce"
    sentences: int = 1
    overlap: bool = False
    shortest: float = 0.25
    mined: int = 0
    temperature: float = 0.07
    width: int = 256
    hidden: int = 0
    flip: float = 0.5
    jitter: float = 0.0


class Clip(Pretext):
    """Contrast of two streams of a recording."""

    question = "Which sound, series or sentence belongs to this clip, and which clip to it?"
    citation = (
        "Radford et al., CLIP, ICML 2021; Guzhov et al., AudioCLIP, ICASSP 2022; Xu et al., "
        "VideoCLIP, EMNLP 2021; Miech et al., MIL-NCE, CVPR 2020"
    )
    accepts = ("video", "audio", "series", "text")
    apart = True
    Config: ClassVar[type] = ClipConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "audioclip": {"stream": ["video", "audio"]},
        "videoclip": {"stream": ["video", "text"], "question": {"overlap": True, "mined": 8}},
        "milnce": {
            "stream": ["video", "text"],
            "question": {"loss": "mil_nce", "sentences": 5},
        },
    }

    config: ClipConfig
    level: Tensor

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: ClipConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        _check(config, clips)
        # Text comes second, since it may come as a bag.
        self.first, self.second = sorted(clips, key=lambda stream: stream == "text")
        self.change = {
            stream: content_change(stream, spec, config.flip, config.jitter)
            for stream, spec in clips.items()
        }
        self.heads = nn.ModuleDict(
            {s: JointHead(dims[s], config.width, config.hidden) for s in (self.first, self.second)}
        )
        self.scale = nn.Parameter(
            torch.tensor(-math.log(config.temperature)), requires_grad=config.loss != "cpd"
        )
        self.register_buffer("level", torch.full((2,), torch.nan))
        self.bank = NeighbourBank(recordings, config.width) if config.mined else None

    @classmethod
    def wants(cls, config: ClipConfig, there: Mapping[str, int]) -> list[str]:
        """The first two of video, audio, series and text that there are."""
        some = [stream for stream in cls.accepts if stream in there][:2]
        return some if len(some) == 2 else []

    def joint(self) -> dict[str, nn.Module]:
        """Both heads."""
        return dict(self.heads.items())

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """A clip of the first stream, and what belongs to it of the second: a clip, or the
        sentences nearest in time."""
        first, second = self.first, self.second
        specs, settings = self.clips, self.config
        if settings.overlap and second == "text":
            count, seconds = sentences(timeline[second], specs[second])
            moment = (rng.integers(count) + rng.random()) * seconds
            share = rng.uniform(settings.shortest, 1)
            clip = around(np.array([moment]), timeline[first], specs[first], first, share)
        else:
            extent, spec = timeline[first], specs[first]
            clip = window(extent.length, spec.length, spec.stride, rng)[None]
            place = rng.random() if settings.overlap else 0.5
            moment = (clip[0, 0] + place * spec.span) / extent.rate
        if second == "text":
            bag = nearest_sentences(moment, timeline[second], specs[second], settings.sentences)
        else:
            share = rng.uniform(settings.shortest, 1) if settings.overlap else 1.0
            bag = around(np.array([moment]), timeline[second], specs[second], second, share)
        return {first: Draw(clip, {}), second: Draw(bag, {})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Vectors in the shared space, (batch, dim) and (batch, sentence, dim), which pairs there
        are and which recordings are silent, and the first stream's embedding."""
        shown = {
            stream: embedded(stream, encoders[stream], change, batch[stream], batch.generator)
            for stream, change in self.change.items()
        }
        first, second = shown[self.first], shown[self.second]
        return {
            "first": self.heads[self.first](first.embedding[:, 0]),
            "second": self.heads[self.second](second.embedding),
            "there": first.there & second.there,
            "silent": first.silent.any(1) | second.silent.any(1),
            "embedding": first.embedding[:, 0].detach(),
        }

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The contrast, and both retrievals within the batch."""
        mined = self._mined(features, batch)
        scores = self._scores(features, batch, mined)
        if self.config.loss == "cpd":
            level = torch.where(self.level.isnan(), noise_level(scores), self.level)
            loss = cpd(scores, level.nan_to_num())
        else:
            loss = (mil_nce if self.config.loss == "mil_nce" else pair_nce)(scores)
        there = features["there"]
        outcome = Outcome(loss, embedding=features["embedding"].detach())
        outcome.metrics = {
            "temperature": (-self.scale.detach()).exp(),
            "paired": there.any(1).float().mean(),
            "silent": features["silent"].float().mean(),
        }
        both = found(scores)
        if both is not None:
            for one, other, way in ((self.first, self.second, 0), (self.second, self.first, 1)):
                outcome.answers[f"{one} to {other}"] = Answer(*both[way])
        return outcome

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Keeps the temperature in bounds, the constant of "cpd" and the vectors of the bank."""
        with torch.no_grad():
            self.scale.clamp_(max=math.log(LARGEST_SCALE))
            if self.config.loss == "cpd" and self.level.isnan().any():
                self.level.copy_(noise_level(self._scores(features, batch, None)))
            if self.bank is not None:
                self.bank.remember(*_pair(features), features["there"].any(1), batch.recording)

    def _mined(self, features: Features, batch: Batch) -> Mined | None:
        """Near recordings of the bank, in training."""
        if self.bank is None or not self.training:
            return None
        first, second = _pair(features)
        return self.bank.nearest(first, second, batch.recording, self.config.mined, batch.generator)

    def _scores(self, features: Features, batch: Batch, mined: Mined | None) -> Scores:
        return compare(
            features["first"],
            features["second"],
            features["there"],
            batch.recording,
            self.scale.exp(),
            mined,
        )


def _pair(features: Features) -> tuple[Tensor, Tensor]:
    """One vector a recording and stream: of the bag, the mean of what is there."""
    bag = (features["second"] * features["there"][:, :, None]).sum(1)
    return features["first"], F.normalize(bag, dim=1)


def _check(config: ClipConfig, clips: Mapping[str, ClipSpec]) -> None:
    """Whether settings and streams go together.

    Raises:
        ConfigError: If they do not.
    """
    if len(clips) != 2:
        raise ConfigError(
            f"clip compares two streams, not {len(clips)} ({', '.join(clips)}): name two, as in "
            "--stream video audio. imagebind takes more."
        )
    if config.loss not in LOSSES:
        raise unknown("loss", config.loss, LOSSES)
    if config.sentences < 1 or config.mined < 0:
        raise ConfigError(
            f"sentences must be at least 1 and mined at least 0, not {config.sentences} and "
            f"{config.mined}."
        )
    if config.sentences > 1 and "text" not in clips:
        raise ConfigError(
            f"sentences is {config.sentences}, but none of {' and '.join(clips)} is text; leave it "
            "at 1."
        )
    if not 0 < config.shortest <= 1:
        raise ConfigError(f"shortest is a share of a clip, in (0, 1], not {config.shortest}.")
    if config.temperature < 1 / LARGEST_SCALE:
        raise ConfigError(
            f"The temperature must be at least {1 / LARGEST_SCALE}, not {config.temperature}."
        )
