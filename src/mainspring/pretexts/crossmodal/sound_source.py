"""Sound source: where in the picture does this sound come from?

Arandjelovic and Zisserman, "Objects that sound", ECCV 2018, Section 4 (AVOL-Net). A sound becomes
one vector, a picture one vector a place. Their cosines are a map over the picture, and the largest
of them says how well the two belong together. To tell which sound belongs to which picture, the
map has to be high where the sound comes from; nobody ever says where that is.

Of the paper: a vector a place and one a sound in a space of 128, their similarities as the map, its
(here smooth) maximum as the score. Changed here: the paper asks of one pair at a time whether it
belongs together (logistic loss); here every picture is compared with every sound of the batch and
the other way round, as in EZ-VSL (Mo and Morgado, "Localizing visual sounds the easy way", ECCV
2022), which has cosines and both directions too. The paper sees one frame; here a clip of frames
has a map each where its encoder keeps them apart (`temporal_stride` 1 of the residual networks), so
that what moves when the sound begins can be seen.

Other published ways to make one score of a map are settings: attention (Senocak et al., "Learning
to localize sound source in visual scenes", CVPR 2018) and the tri-map (Chen et al., "Localizing
visual sounds the hard way", CVPR 2021), which also has the background of a picture as a negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mainspring.augment.video import centre
from mainspring.clips import ClipSpec, Draw, Timeline, fit, regular
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.errors import ConfigError, unknown
from mainspring.losses.maps import POOLS, background, choose_own, compare
from mainspring.pretexts.audiovisual import STREAMS, AudioVisual
from mainspring.pretexts.content import content_change
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome
from mainspring.pretexts.silence import FLOOR_DECIBELS, heard


@dataclass(frozen=True)
class SoundSourceConfig:
    """Settings of `SoundSource`.

    Attributes:
        clips: Clips of a recording.
        apart: From the start of one clip to that of the next at least, in clips' lengths.
        within: Other clips of the same recording are negatives too. They look and sound alike, so
            that only what happens tells them apart; the papers draw one clip a recording.
        pool: How a map becomes a score. "max" is the papers': it gives a gradient to one place
            alone, which suits encoders that were trained on pictures before (EZ-VSL) or for very
            long. From random weights the log-sum-exp "soft", whose gradient reaches all places and
            the largest most, learns sooner: of the sources in a small world (two coloured squares,
            the tone of one; 150 and 200 steps of two networks, three seeds) it found 100 and 94 %,
            "attend", Senocak's weighted mean, 86 and 94 %, "trimap", Chen's mean over what is above
            a threshold, 46 and 92 %, and "max" 27 and 81 %.
        background: The places of the own picture that are below a threshold are one more negative
            (Chen et al., Section 3.3).
        temperature: Of the softmax over the batch; EZ-VSL has 0.03, Chen et al. 0.07.
        width: Of the space in which cosines are taken (AVOL-Net: 128).
        floor: Decibels of full scale below which a clip is silent and not asked of.
        flip: Chance of a horizontal flip of a clip; its map flips with it.
        jitter: Strength of colour jitter, alike in all frames of a clip.
    """

    clips: int = 2
    apart: float = 1.0
    within: bool = True
    pool: str = "soft"
    background: bool = False
    temperature: float = 0.07
    width: int = 128
    floor: float = FLOOR_DECIBELS
    flip: float = 0.5
    jitter: float = 0.0


class SoundSource(AudioVisual):
    """Tells which sound belongs to which picture by the best place for it.

    The encoder that the recipe names sees what moves (`architecture.video.moving`, see
    `VideoEncoder`). The papers' sources (a guitar, a dog) are known by their looks and come in
    millions of scenes; where few scenes are seen and what moves is what sounds, backgrounds are in
    the way: on the generated world learning sets in before step 100 with it and at about step 400
    without. Set it to false where looks are what tells.
    """

    question = "Where in the picture does this sound come from?"
    citation = "Arandjelovic and Zisserman, Objects that sound, ECCV 2018"
    apart = True
    recipe: ClassVar[dict[str, Any]] = {
        "clip": {"video": {"size": 112, "crop": 0}},
        "architecture": {"video": {"temporal_stride": 1, "moving": True}},
    }
    """A grid of 7 by 7 places for every frame; the paper's is 14 by 14 of one frame of 224 px."""
    Config: ClassVar[type] = SoundSourceConfig

    config: SoundSourceConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: SoundSourceConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        apart_is_meant = 0 <= config.apart < math.inf
        if config.clips < 1 or not apart_is_meant or config.temperature <= 0 or config.width < 1:
            raise ConfigError(
                f"sound_source takes clips and width of at least 1, apart of at least 0 and a "
                f"positive temperature, not clips {config.clips}, width {config.width}, apart "
                f"{config.apart}, temperature {config.temperature}."
            )
        if config.within and config.clips > 1 and not config.apart:
            raise ConfigError(
                "apart is 0, so that two clips of a recording can be the same one and each a "
                "negative of itself. Set apart above 0, within to false, or clips to 1."
            )
        if config.pool not in POOLS:
            raise unknown("pool", config.pool, POOLS)
        self.change = content_change("video", clips["video"], config.flip, config.jitter)
        self.places = JointHead(dims["video"], config.width)
        self.sound = JointHead(dims["audio"], config.width)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Makes sure that there is something to see."""
        if getattr(encoders["video"], "moving", False) and self.clips["video"].length < 2:
            raise ConfigError(
                "In a clip of one frame nothing moves. Use longer clips of video, or set "
                "architecture.video.moving to false."
            )

    def joint(self) -> dict[str, nn.Module]:
        """The heads; that of pictures suits a place's token as well as a whole clip's embedding."""
        return {"video": self.places, "audio": self.sound}

    def needs(self, stream: str) -> int:
        """Room for all clips of a recording, `apart` from each other."""
        reach = 1 + (self.config.clips - 1) * self.config.apart
        return math.ceil(self.clips[stream].span * reach)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """Some instants, and around each a clip of pictures and one of sound."""
        count, extents = self.config.clips, timeline.extents
        half = max(self.clips[s].span / extents[s].rate for s in STREAMS) / 2
        room = max(0.0, min(extents[s].seconds for s in STREAMS) - 2 * half)
        gap = min(2 * half * self.config.apart, room / max(1, count - 1))
        offsets = np.sort(rng.uniform(0, room - (count - 1) * gap + 1e-9, count))
        clips = around(timeline, self.clips, half + offsets + gap * np.arange(count))
        return {stream: Draw(rows, {"clip": np.arange(count)}) for stream, rows in clips.items()}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """A vector a place (batch, clip, t, h, w, width), one a sound (batch, clip, width), and
        which clips are heard. Other sounds stay zeros and are not encoded: they would still take
        part in the encoder's batch statistics."""
        pictures, seen = batch["video"].flat()
        sounds, there = batch["audio"].flat()
        audible = heard(sounds, there, self.config.floor) & seen.any(1)
        tokens = encoders["video"].tokens(self.change(pictures, batch.generator), seen)
        sound = torch.zeros(len(sounds), self.config.width, device=sounds.device)
        rows = audible.nonzero()[:, 0]
        if len(rows):
            vectors = self.sound(encoders["audio"](sounds[rows], there[rows]))
            sound = sound.index_copy(0, rows, vectors.float())
        features = {
            "places": self.places(tokens),
            "sound": sound,
            "heard": audible,
            "embedding": encoders["video"].embed(tokens.detach(), seen),
        }
        return {name: value.unflatten(0, (len(batch), -1)) for name, value in features.items()}

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Which sound belongs to these pictures, and which pictures to this sound; silent clips
        take no part."""
        asked = features["heard"].flatten()
        places = features["places"].flatten(0, 1).flatten(1, 3)[asked]
        sounds = features["sound"].flatten(0, 1)[asked]
        recording = batch.recording.repeat_interleave(self.config.clips)[asked]
        scores = compare(places, sounds, POOLS[self.config.pool], self.config.temperature)
        own = torch.einsum("npd,nd->np", places, sounds)
        other = None
        if self.config.background:
            other = background(own) / self.config.temperature
        allowed = recording[:, None] != recording[None, :]
        if self.config.within:
            allowed = torch.ones_like(allowed)
        allowed = allowed.fill_diagonal_(True)
        chance = float((1 / allowed.sum(1)).mean())
        loss, answers = places.sum() * 0.0, {}
        for name, rows in {"sound": scores, "picture": scores.T}.items():
            part, accuracy = choose_own(rows, allowed, other)
            loss = loss + part / 2
            if len(own):
                answers[name] = Answer(accuracy, chance)
        largest = own.detach().amax(1) if len(own) else own.detach().new_zeros(1)
        return Outcome(
            loss=loss,
            answers=answers,
            metrics={
                "silent": 1 - asked.float().mean(),
                "map_max": largest.mean(),
                "map_mean": own.detach().sum() / max(1, own.numel()),
            },
            embedding=features["embedding"].detach().flatten(0, 1),
        )


def around(
    timeline: Timeline, clips: Mapping[str, ClipSpec], seconds: np.ndarray
) -> dict[str, Int64[np.ndarray, "view time"]]:
    """Clips of pictures and of sound whose middles are at the same instants.

    Pictures lie on the coarser grid, so the instants are moved to where their clips have their
    middles; what would reach beyond the recording is held at its ends.

    Args:
        timeline: Of a recording with both streams.
        clips: How each is cut.
        seconds: The instants, (view,).
    """
    spec, extent = clips["video"], timeline["video"]
    first = np.floor(seconds * extent.rate - spec.span / 2 + 0.5)
    last = max(0, extent.length - spec.span)
    middles = (np.clip(first, 0, last) + spec.span / 2) / extent.rate
    rows = {}
    for stream in STREAMS:
        spec, extent = clips[stream], timeline[stream]
        starts = np.maximum(0, middles * extent.rate - spec.span / 2)
        rows[stream] = np.stack(
            [
                fit(regular(float(start), spec.length, spec.stride), extent.length)
                for start in starts
            ]
        )
    return rows


@torch.no_grad()
def maps(
    encoders: Mapping[str, Encoder],
    pretext: SoundSource,
    pictures: Tensor,
    sounds: Float[Tensor, "n time"],
) -> Float[Tensor, "n t h w"]:
    """Where each sound comes from in its pictures: cosines over the grid of the video encoder.

    Args:
        encoders: "video" and "audio", in evaluation mode.
        pretext: What they were trained with.
        pictures: (n, frames, height, width, 3), as the reader delivers them; the encoder sees the
            middle of them, as large as its clips.
        sounds: Of the same clips.
    """
    seen = centre(pictures, pretext.clips["video"].crop)
    places = pretext.places(encoders["video"].tokens(seen))
    return torch.einsum("nthwd,nd->nthw", places, pretext.sound(encoders["audio"](sounds)))
