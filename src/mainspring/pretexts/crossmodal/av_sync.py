"""Audio-visual synchronisation: is this sound in step with this clip?

The question of AVTS (Korbar, Tran and Torresani, NeurIPS 2018), of Owens and Efros (ECCV 2018) and
of SyncNet (Chung and Zisserman, ACCV workshops 2016). A clip is shown with the sound of its own
time, with a sound of the same recording at another time (a hard negative: what is heard fits, but
not when) and with the sound of another recording (an easy one). `ask` chooses between

    in_step     in step or not, a class of two
    offset      by how much the sound is shifted, a class of K on a grid: the sound is slid along
                the clip, as SyncNet finds an offset, and compared at each class's place

and `compare` between two ways to answer. "fused" brings both streams' tokens to common steps in
time, side by side, and lets a temporal network look at them, as Owens and Efros fuse early.
"distance" is AVTS's contrastive loss: sequences in step near to each other, others `margin` apart.

From the papers: hard negatives of the same recording at least half a second away, easy negatives
first and then hard ones among them (AVTS, whose second stage has a quarter of hard ones), the
margin of 0.99, and hard negatives alone (Owens and Efros). Ours: sequences where AVTS and SyncNet
compare one vector a clip. The mean of a second of tokens has forgotten when in it a ball hit the
ground; here space and bands are pooled, time is not, and both time axes are brought to the same
steps by linear interpolation. Owens and Efros fuse within the encoders; here fusion is the head's,
so that each encoder can be used by itself. Where an encoder leaves one step of time, what remains
is the papers' comparison of whole clips: `temporal_stride=1` keeps the steps of a video ResNet,
and is part of the recipe, with clips of 1.6 s at 10 frames a second: sound that is half a second
off is then five frames off, and a small network learns it in minutes on one core.

Place in the recording must not give the answer away. The two places of a hard pair are drawn
evenly from all pairs that fit, so a sound out of step comes from the beginning or the end of its
recording as often as one in step. For offsets the same cannot be had (the last sound can only be
late), but each pair is placed evenly wherever it fits.

A recording whose sound in step is silent is not asked about; nor is a silent negative, nor, beside
hard negatives, a sound in step that has none which is heard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.augment.video import centre
from mainspring.clips import ClipSpec, Draw, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, unknown
from mainspring.pretexts.audiovisual import STREAMS, AudioVisual, of_others
from mainspring.pretexts.content import Change, content_change
from mainspring.pretexts.crossmodal._offsets import Offsets, neighbours
from mainspring.pretexts.crossmodal._steps import Distance, Fused, in_time, slide
from mainspring.pretexts.heads import Projection
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome
from mainspring.pretexts.silence import heard


@dataclass(frozen=True)
class AvSyncConfig:
    """Settings of `AvSync`.

    Attributes:
        ask: "in_step" or "offset". The second begins slowly: on the demo world nothing was learnt
            in some 150 steps from random weights, but from the encoders of an "in_step" run
            (`--from RUN`) two of three offsets of nine on unseen recordings in 190.
        compare: "fused" or "distance" (of "in_step" only).
        gap: Seconds by which a hard negative is shifted at least. Half a second in AVTS.
        far: Seconds by which it is shifted at most. 2.0 to 5.8 in Owens and Efros, whose clips
            last 4.2 s; ours last less.
        shifted: Hard negatives (or, of "offset", sounds) a clip.
        hard: Share of hard negatives among the negatives, the rest being easy ones. AVTS ends at
            0.25, Owens and Efros have 1.
        easy_steps: Steps at the beginning in which all negatives are easy (AVTS: 50 of 90 epochs).
        reach: Seconds of the largest offset, early or late.
        step: Seconds from one offset to the next.
        margin: Distance beyond which a pair out of step is left alone (AVTS).
        steps: Steps in time to which both sequences are brought; 16 are 0.1 s apart in the recipe.
        width: Of each stream's projection and of the temporal network.
        flip: Chance of a horizontal flip of a clip.
        jitter: Strength of colour jitter, alike in all frames of a clip.
    """

    ask: str = "in_step"
    compare: str = "fused"
    gap: float = 0.5
    far: float = 2.0
    shifted: int = 2
    hard: float = 1.0
    easy_steps: int = 0
    reach: float = 1.0
    step: float = 0.25
    margin: float = 0.99
    steps: int = 16
    width: int = 64
    flip: float = 0.5
    jitter: float = 0.0


class AvSync(AudioVisual):
    """Names whether, or by how much, sound and picture are out of step."""

    question = "Is this sound in step with this clip, or by how much is it shifted?"
    citation = (
        "Korbar et al., Cooperative Learning of Audio and Video Models from Self-Supervised "
        "Synchronization (AVTS), NeurIPS 2018; Owens and Efros, Audio-Visual Scene Analysis with "
        "Self-Supervised Multisensory Features, ECCV 2018; Chung and Zisserman, Out of Time "
        "(SyncNet), ACCV workshops 2016"
    )
    Config: ClassVar[type] = AvSyncConfig
    recipe: ClassVar[dict[str, Any]] = {
        "batch": 16,
        "architecture": {"video": {"temporal_stride": 1}},
        "clip": {
            "video": {"length": 16, "rate": 20.0, "stride": 2, "size": 44, "crop": 40},
            "audio": {"length": 25600},
        },
        "optimiser": {"lr": 2e-3},
    }
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "avts": {"question": {"compare": "distance", "hard": 0.25}},
        "offset": {"question": {"ask": "offset"}},
    }

    config: AvSyncConfig
    head: Fused | Distance
    seen: Tensor

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: AvSyncConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        _check(clips, config)
        self.change = content_change("video", clips["video"], config.flip, config.jitter)
        self.project = nn.ModuleDict(
            {stream: Projection(nn.Linear(dims[stream], config.width)) for stream in STREAMS}
        )
        self.offsets = Offsets(self.clips)
        self.reach = _classes_aside(config)
        fused = config.compare == "fused"
        self.head = Fused(config.width) if fused else Distance(config.margin)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def needs(self, stream: str) -> int:
        """A clip, and room for the smallest shift of a hard negative or for the widest spread of
        offsets."""
        if self.config.ask == "in_step":
            room = self.offsets.frames(self.config.gap, self.config.far)[0]
        else:
            widest = self.reach if self.config.shifted == 1 else 2 * self.reach
            room = math.ceil(widest * self.config.step * self.offsets.rate) + 1
        return self.offsets.needs(stream, room)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One clip, and sounds of the same length at whole frames from it.

        Factors of the sounds: "offset", seconds by which a sound is of a later time than the clip;
        of "offset" also "class", its place on the grid. Of "in_step" the first sound is in step.
        """
        shifted = self.config.shifted
        if self.config.ask == "in_step":
            room = self.offsets.room(timeline)
            gap, far = self.offsets.frames(self.config.gap, self.config.far)
            place, others = neighbours(room, gap, min(far, room), shifted, rng)
            return self.offsets.views(timeline, place, np.append(0, others - place))
        classes = rng.choice(2 * self.reach + 1, shifted, replace=False)
        seconds = (classes - self.reach) * self.config.step
        draws = self.offsets.anywhere(timeline, seconds, rng)
        draws["audio"].factors["class"] = classes
        return draws

    def at_offsets(
        self, timeline: Timeline, offsets: Sequence[float] | np.ndarray, rng: np.random.Generator
    ) -> dict[str, Draw]:
        """What `scores` is given: one clip, and its sound at each of the offsets, wherever all of
        them fit.

        Args:
            timeline: Of a recording with both streams.
            offsets: Seconds, positive for a later sound.
            rng: Source of the place.

        Raises:
            ValueError: If the recording is too short for them.
        """
        return self.offsets.anywhere(timeline, np.asarray(offsets, np.float64), rng)

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Sequences "video" (batch, steps, width) and "sound" (batch, view, steps, width), which
        sounds are heard, and the clip's embedding."""
        audible = self._audible(batch)
        if self.config.ask == "in_step":
            audible = audible & audible[:, :1]
        return self._look(encoders, batch, audible, self.change)

    def _audible(self, batch: Batch) -> Bool[Tensor, "batch view"]:
        """Which sounds are heard beside a clip that is there."""
        there = batch["audio"].present
        loud = heard(*batch["audio"].flat()).unflatten(0, there.shape[:2])
        return loud & batch["video"].present[:, 0].any(1, keepdim=True)

    def _look(
        self,
        encoders: Mapping[str, Encoder],
        batch: Batch,
        audible: Bool[Tensor, "batch view"],
        change: Change,
    ) -> Features:
        """What `encode` returns. Recordings without a sound that is heard stay zeros and are not
        encoded: they would still take part in the encoders' batch statistics."""
        rows = audible.any(1).nonzero()[:, 0]
        views, size = audible.shape[1], (self.config.steps, self.config.width)
        video = torch.zeros(len(batch), *size, device=audible.device)
        sound = torch.zeros(len(batch), views, *size, device=audible.device)
        embedding = torch.zeros(len(batch), self.dims["video"], device=audible.device)
        if len(rows):
            frames, present = batch["video"].map(lambda value: value[rows]).flat()
            tokens = encoders["video"].tokens(change(frames, batch.generator), present)
            video = video.index_copy(0, rows, self._sequence(tokens, "video"))
            pooled = encoders["video"].embed(tokens, present).detach()
            embedding = embedding.index_copy(0, rows, pooled.float())
            tokens = encoders["audio"].tokens(*batch["audio"].map(lambda v: v[rows]).flat())
            sequence = self._sequence(tokens, "audio").unflatten(0, (len(rows), views))
            sound = sound.index_copy(0, rows, sequence)
        return {"video": video, "sound": sound, "heard": audible, "embedding": embedding}

    def _sequence(self, tokens: Tensor, stream: str) -> Float[Tensor, "n steps width"]:
        """Tokens of a stream as a sequence in time, over the span that both streams' clips have."""
        share = _span(self.clips) / _span({stream: self.clips[stream]})
        return self.project[stream](in_time(tokens, self.config.steps, share))

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Cross-entropy or AVTS's contrastive loss, over the clips whose sound is heard."""
        video, sound, audible = features["video"], features["sound"], features["heard"]
        asked = audible.any(1)
        outcome = Outcome((video.sum() + sound.sum()) * 0.0)
        outcome.embedding = features["embedding"][asked].detach()
        outcome.metrics["silent"] = 1 - asked.float().mean()
        if not asked.any():
            return outcome
        if self.config.ask == "in_step":
            self._in_step(video, sound, audible, batch, outcome)
        else:
            self._offset(video, sound, audible, batch, outcome)
        return outcome

    def _in_step(
        self, video: Tensor, sound: Tensor, audible: Tensor, batch: Batch, outcome: Outcome
    ) -> None:
        """Half of the loss for sounds in step, half for negatives, of these a share for hard ones.

        Every recording has both kinds of negatives, weighted, where the papers draw one of them:
        the same loss on average, with less noise. Beside hard negatives a sound in step counts as
        often as its recording has heard ones: otherwise sounds that come alone, a bark and then
        silence, would be in step more often than not, and could be known by ear.
        """
        rows = audible[:, 0].nonzero()[:, 0]
        partner = of_others(batch.recording[rows], batch.generator)
        paired = partner >= 0
        first = sound[rows, 0]
        right = self.pair_scores(video[rows], first)
        easy = self.pair_scores(video[rows][paired], first[partner[paired]])
        views, slots = audible[:, 1:].nonzero(as_tuple=True)
        shifted = self.pair_scores(video[views], sound[views, 1 + slots])
        beside = right.repeat_interleave(audible[rows, 1:].sum(1))
        share = self.config.hard if int(self.seen) >= self.config.easy_steps else 0.0
        true = share * self._cost(beside, True) + (1 - share) * self._cost(right, True)
        wrong = share * self._cost(shifted, False) + (1 - share) * self._cost(easy, False)
        outcome.loss = outcome.loss + 0.5 * (true + wrong)
        pairs = {"in_step": (beside, shifted), "own_sound": (right, easy)}
        for name, (own, others) in pairs.items():
            if len(others):
                correct = ((own > 0).float().mean() + (others <= 0).float().mean()) / 2
                outcome.answers[name] = Answer(correct, chance=0.5)

    def _cost(self, scores: Float[Tensor, "n"], in_step: bool) -> Float[Tensor, ""]:
        """Mean loss of pairs that are, or are not, in step; 0 if there are none."""
        return self.head.cost(scores, in_step).mean() if len(scores) else scores.sum()

    def _offset(
        self, video: Tensor, sound: Tensor, audible: Tensor, batch: Batch, outcome: Outcome
    ) -> None:
        """Cross-entropy on the offset's class."""
        rows, views = audible.nonzero(as_tuple=True)
        logits = self._slid_scores(video[rows], sound[rows, views])
        truth = batch["audio"].factors["class"][rows, views]
        outcome.loss = outcome.loss + F.cross_entropy(logits, truth)
        named = logits.argmax(1)
        accuracy = (named == truth).float().mean()
        outcome.answers["offset"] = Answer(accuracy, chance=1 / (2 * self.reach + 1))
        away = (named - truth).abs().float().mean() * self.config.step
        outcome.metrics["offset_error_seconds"] = away

    def _slid_scores(
        self, video: Float[Tensor, "n steps width"], sound: Float[Tensor, "n steps width"]
    ) -> Float[Tensor, "n offset"]:
        """The head's log odds of being in step if the sound is shifted by each offset of the grid,
        from the time that clip and sound then have in common."""
        steps_a_second = (self.config.steps - 1) / _span(self.clips)
        moved = [
            slide(sound, offset * self.config.step * steps_a_second)
            for offset in range(-self.reach, self.reach + 1)
        ]
        return torch.stack([self.head(video, *each) for each in moved], 1)

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Counts the steps, for the curriculum."""
        self.seen += 1

    def pair_scores(
        self, video: Float[Tensor, "n steps width"], sound: Float[Tensor, "n steps width"]
    ) -> Float[Tensor, "n"]:
        """How far each pair counts as in step; above 0 it does. Of "in_step" what the head says, of
        "offset" the log odds of no offset."""
        if self.config.ask == "in_step":
            return self.head(video, sound)
        chances = self._slid_scores(video, sound).softmax(1)
        return torch.logit(chances[:, self.reach], eps=1e-7)

    @torch.no_grad()
    def scores(self, encoders: Mapping[str, Encoder], batch: Batch) -> Float[Tensor, "batch view"]:
        """How far each sound counts as in step with the clip of its row; above 0 it does.

        Args:
            encoders: In evaluation mode.
            batch: One clip and any number of sounds a recording, as `at_offsets` draws them. NaN
                where a sound is silent.
        """
        crop = self.clips["video"].crop
        audible = self._audible(batch)
        looked = self._look(encoders, batch, audible, lambda samples, _: centre(samples, crop))
        video, sound = looked["video"], looked["sound"]
        paired = video[:, None].expand_as(sound).flatten(0, 1)
        scores = self.pair_scores(paired, sound.flatten(0, 1)).view(audible.shape)
        return scores.masked_fill(~audible, torch.nan)


def _span(clips: Mapping[str, ClipSpec]) -> float:
    """Seconds from the first to the last sample of the shortest clip."""
    return min((clip.span - 1) / (clip.rate or 1) for clip in clips.values())


def _classes_aside(config: AvSyncConfig) -> int:
    """Classes of offsets on either side of none."""
    return math.floor(config.reach / config.step + 1e-6)


def _check(clips: Mapping[str, ClipSpec], config: AvSyncConfig) -> None:
    """Whether settings and clips go together.

    Raises:
        ConfigError: If they do not.
    """
    for stream, spec in clips.items():
        if spec.rate is None:
            raise ConfigError(f"av_sync counts in seconds: set clip.{stream}.rate.")
    if config.ask not in ("in_step", "offset"):
        raise unknown("question of av_sync", config.ask, ["in_step", "offset"])
    if config.compare not in ("fused", "distance"):
        raise unknown("comparison of av_sync", config.compare, ["fused", "distance"])
    if config.ask == "offset" and config.compare == "distance":
        raise ConfigError(
            "A distance does not say by how much a sound is shifted: ask in_step, or compare fused."
        )
    if math.inf in (config.gap, config.far, config.reach, config.step):
        raise ConfigError("gap, far, reach and step are numbers of seconds, and one is infinite.")
    rate = clips["video"].rate or 1
    gap, far = Offsets(clips).frames(config.gap, config.far)
    if config.ask == "in_step" and not 1 <= gap <= far:
        raise ConfigError(
            f"gap ({config.gap} s) must be above 0, and far ({config.far} s) so much above it that "
            f"a whole number of frames, {1 / rate:.3g} s each, lies between them."
        )
    if min(clip.length for clip in clips.values()) < 2:
        raise ConfigError("av_sync compares times: clips need at least 2 frames and samples.")
    if config.ask == "offset" and config.reach > 0.75 * _span(clips):
        raise ConfigError(
            f"Clips of {_span(clips):.3g} s moved by reach ({config.reach} s) have too little time "
            f"in common. Lower reach to at most {0.75 * _span(clips):.3g} or set longer clips "
            f"(clip.video.length, clip.audio.length)."
        )
    least = 1 / rate if config.ask == "offset" else 0
    if config.step <= 0 or not least <= config.step <= config.reach:
        raise ConfigError(
            f"step ({config.step} s) must be at least one frame ({1 / rate:.3g} s) and at most "
            f"reach ({config.reach} s)."
        )
    classes = 2 * _classes_aside(config) + 1
    if config.shifted < 1 or (config.ask == "offset" and config.shifted > classes):
        raise ConfigError(
            f"shifted is {config.shifted}; it is at least 1, and of offset at most {classes}."
        )
    if not 0 <= config.hard <= 1:
        raise ConfigError(f"hard is {config.hard}; it is a share, from 0 to 1.")
    if config.margin <= 0 or config.steps < 2 or config.width < 1 or config.easy_steps < 0:
        raise ConfigError(
            f"margin {config.margin} must be above 0, steps {config.steps} at least 2, width "
            f"{config.width} at least 1 and easy_steps {config.easy_steps} at least 0."
        )
