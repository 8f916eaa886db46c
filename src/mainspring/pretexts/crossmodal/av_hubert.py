"""Masked audio-visual cluster prediction: what is heard or seen where nothing was shown?"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.clips import ClipSpec, Draw, Timeline, regular
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.logmel import LogMel
from mainspring.errors import ConfigError
from mainspring.pretexts.audiovisual import STREAMS, AudioVisual
from mainspring.pretexts.cepstra import cosines
from mainspring.pretexts.clusters import Clusters, perplexity
from mainspring.pretexts.content import content_change
from mainspring.pretexts.crossmodal._grid import Grid, heard_width
from mainspring.pretexts.frames import NOT_HIDDEN, elsewhere, spans
from mainspring.pretexts.fusion import Codebook, Fusion
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome
from mainspring.pretexts.silence import heard

ROUNDING = 1e-6
"""Positions that are lost where seconds are not exact."""
GIVEN = {"both": 3, "video_alone": 1, "sound_alone": 2}
"""What a recording is heard and seen by: 1 for video and 2 for sound, added up."""


@dataclass(frozen=True)
class AvHubertConfig:
    """Settings of `AvHubert`.

    Attributes:
        clusters: Clusters of each round, and so how many rounds there are. The paper has five, of
            100, 100, 500, 1000 and 2000, for 433 hours of speech and more.
        every: Steps of a round; the last one goes on to the end. A shorter run has one round. The
            paper takes 400,000 steps a round.
        pool: Frames that are clustered, drawn over the first `gather` steps of a round. The paper
            clusters a tenth of its data.
        gather: Steps over which they are drawn.
        both: p_m, chance that a recording is both heard and seen (Section 3.3).
        sound: p_a, chance that it is heard, if it is not both heard and seen.
        audio_mask: Share of the sound hidden, if spans did not overlap. As they do, 0.8 hides 57 %
            of it. This and the next three are the authors' configuration.
        audio_span: Seconds of a hidden span: 10 frames at 25 Hz.
        video_mask: The same share of the video.
        video_span: The same seconds of the video: 5 frames at 25 Hz.
        substitute: Hidden frames of video show another stretch of the same clip ("masking by
            substitution"); otherwise the mean colour.
        unmasked: alpha, the weight of frames that were not hidden (Section 3.1). 0 in the authors'
            configurations.
        fusion: "concat" as in the paper, or "sum".
        width: Of the fused features; even, and a multiple of `heads`.
        layers: Of the transformer. 12 in the paper, whose own encoders have no context; 2 is ours.
        heads: Of its attention.
        dropout: In it.
        final: Width of the space in which frames are compared with codewords.
        temperature: tau.
        flip: Chance of a horizontal flip of a clip.
        jitter: Strength of colour jitter, alike in all frames of a clip.
    """

    clusters: tuple[int, ...] = (64, 64)
    every: int = 400
    pool: int = 8192
    gather: int = 32
    both: float = 0.5
    sound: float = 0.5
    audio_mask: float = 0.8
    audio_span: float = 0.4
    video_mask: float = 0.3
    video_span: float = 0.2
    substitute: bool = True
    unmasked: float = 0.0
    fusion: str = "concat"
    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    final: int = 64
    temperature: float = 0.1
    flip: float = 0.5
    jitter: float = 0.0


class AvHubert(AudioVisual):
    """To which cluster does this hidden frame belong? (Shi et al., ICLR 2022.)

    A window of video and its sound become features a frame, of which one stream may be left out
    altogether (modality dropout). Spans of both are hidden. The features are laid side by side,
    and a transformer over time names the cluster of every hidden frame: with p_t a softmax over
    cosines of its output and a codeword a cluster, at temperature tau,

        L = -sum over hidden t of log p_t(z_t) - alpha sum over other t of log p_t(z_t),

    here divided by the frames that count, each by its weight. A frame is hidden where either stream
    is. In the first round clusters are k-means of 39 cepstra of the sound; in each later round they
    are k-means of what the network of the round before makes of the clip when nothing is hidden.

    The paper's are: dropout and masking with their shares, masking by substitution of video and a
    learned vector in place of sound, concatenation, layer norm, codewords, cepstra and rounds.
    Changed here, as this is one run on encoders of any kind:

    - a frame is one of the video clip's (12.5 a second); lengths of spans are kept in seconds. The
      encoders' tokens are brought onto the frames' times, averaged over the picture, and the bands
      of sound side by side, as an average would hardly tell one pitch from another;
    - cepstra are those of the encoder's own log-mel bands as it normalises them, so that nothing
      is asked that it cannot hear, such as the loudness of the whole clip;
    - the sound lasts as long as the video's clip, whatever the length of its own;
    - a round goes on with the weights of the one before, where the paper begins anew; codewords
      are new in each round. Targets of a later round come of a frozen copy of the network;
    - modality dropout is drawn a recording (the authors' code: a batch), and a stream left out
      is not encoded, so it has no part in batch statistics;
    - the transformer is small, its positions are sines, and the authors' penalty on large
      features and their smaller gradient for the encoders are left out.

    A recording without sound, or a silent one, is one whose sound was left out; so is one without
    video. Clusters of cepstra can only be asked of recordings with sound; later ones of all.

    The learning rate and its warm-up are the authors'; the encoders keep all frames of video and
    give a token of sound every 80 ms.

    Answers are the share of hidden frames whose cluster is named, for recordings that are both
    heard and seen, seen only (`video_alone`, the question across modalities) and heard only.
    Chance is the share of the batch's most frequent cluster. Hidden are the frames of the loss;
    where a recording is seen only, most of them are hidden in sound and seen.
    """

    question = "To which cluster does this hidden frame of sound and video belong?"
    citation = (
        "Shi et al., Learning Audio-Visual Speech Representation by Masked Multimodal Cluster "
        "Prediction (AV-HuBERT), ICLR 2022"
    )
    partial: ClassVar[bool] = True
    recipe: ClassVar[dict[str, Any]] = {
        "architecture": {"video": {"temporal_stride": 1}, "audio": {"hop": 0.005}},
        "clip": {"video": {"length": 16, "rate": 12.5, "stride": 1}},
        "optimiser": {"lr": 5e-4, "warmup": 0.08},
    }
    Config: ClassVar[type] = AvHubertConfig

    config: AvHubertConfig
    step: Tensor
    basis: Tensor
    clusters: nn.ModuleList
    codebooks: nn.ModuleList
    teacher: nn.ModuleDict

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: AvHubertConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        _check(config, clips)
        video, audio = clips["video"], clips["audio"]
        assert video.rate is not None, "looked at above"
        assert audio.rate is not None, "looked at above"
        self.grid = Grid(video.length, video.stride / video.rate)
        samples = round(video.length * self.grid.seconds * audio.rate)
        self.clips["audio"] = replace(audio, length=samples, stride=1)
        self.span = {
            "video": max(1, int(config.video_span / self.grid.seconds + 0.5)),
            "audio": max(1, int(config.audio_span / self.grid.seconds + 0.5)),
        }
        self.share = {"video": config.video_mask, "audio": config.audio_mask}
        self.change = content_change("video", video, config.flip, config.jitter)
        self.codebooks = nn.ModuleList(
            Codebook(count, config.width, config.final, config.temperature)
            for count in config.clusters
        )
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Builds what depends on the encoders: the cepstra, the vector in place of hidden sound,
        the clusters, and the copy that makes the targets of later rounds.

        Raises:
            ConfigError: If the encoder of sound has no log-mel bands.
        """
        ear = encoders["audio"]
        if not isinstance(ear, LogMel):
            raise ConfigError(
                f"av_hubert clusters and hides log-mel bands, and {type(ear).__name__} has none; "
                "use the encoder logmel."
            )
        bands = len(ear.filters)
        basis = cosines(bands)
        self.register_buffer("basis", basis, persistent=False)
        self.blank = nn.Parameter(torch.zeros(bands))
        config = self.config
        widths = [3 * basis.shape[1], *[config.width] * (len(config.clusters) - 1)]
        self.clusters = nn.ModuleList(
            Clusters(count, width, config.pool, config.gather)
            for count, width in zip(config.clusters, widths, strict=True)
        )
        self.fusion = Fusion(
            {"video": self.dims["video"], "audio": heard_width(ear)},
            config.fusion,
            config.width,
            config.layers,
            config.heads,
            config.dropout,
        )
        if len(widths) > 1:
            network = nn.ModuleDict({**encoders, "fusion": self.fusion})
            self.teacher = copy.deepcopy(network).requires_grad_(False)

    @property
    def round(self) -> int:
        """Which round this is, from 0 on."""
        return min(int(self.step) // self.config.every, len(self.config.clusters) - 1)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """A window anywhere where both streams are, or where the only one is."""
        there = [stream for stream in STREAMS if self.has(timeline, stream)]
        latest = min(
            (timeline[stream].length - self.clips[stream].span) / timeline[stream].rate
            for stream in there
        )
        lead = timeline[there[0]].rate
        begin = int(rng.integers(int(latest * lead + ROUNDING) + 1)) / lead
        draws = {stream: self.absent(stream, 1, {}) for stream in STREAMS}
        for stream in there:
            first = int(begin * timeline[stream].rate + ROUNDING)
            spec = self.clips[stream]
            draws[stream] = Draw(regular(first, spec.length, spec.stride)[None], {})
        return draws

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """States of all frames, which of them were hidden, and what their clusters are made of."""
        film, shown = batch["video"].flat()
        sound, played = batch["audio"].flat()
        there = {"video": shown.any(1), "audio": heard(sound, played)}
        given = self.leave_out(there, batch.generator)
        film = self.change(film, batch.generator)
        starts = {stream: self._spans(stream, film, batch.generator) for stream in STREAMS}
        hidden = {stream: start != NOT_HIDDEN for stream, start in starts.items()}
        pictures, visible = film, None
        if self.config.substitute:
            source = elsewhere(starts["video"], self.span["video"], batch.generator)
            pictures = film[torch.arange(len(film), device=film.device)[:, None], source]
        else:
            visible = ~hidden["video"]
        frames = {
            "video": self.grid.see(encoders["video"], pictures, given["video"], visible),
            "audio": self.grid.hear(
                encoders["audio"], sound, given["audio"], hidden["audio"], self.blank
            ),
        }
        described, usable = self.describe(encoders, film, sound, there)
        return {
            "state": self.fusion(frames, given).float(),
            "hidden": hidden["video"] | hidden["audio"],
            "given": given["video"] + 2 * given["audio"].long(),
            "described": described.float(),
            "usable": usable,
            "silent": played.any(1) & ~there["audio"],
        }

    def leave_out(
        self, there: Mapping[str, Bool[Tensor, "n"]], generator: torch.Generator
    ) -> dict[str, Bool[Tensor, "n"]]:
        """Modality dropout: which streams each recording is given by. What is not there is not
        given, and what alone is there is never left out."""
        luck = torch.rand(2, len(there["video"]), generator=generator, device=generator.device)
        luck = luck.to(there["video"].device)
        one = (luck[0] >= self.config.both) & there["video"] & there["audio"]
        sound = luck[1] < self.config.sound
        return {"video": there["video"] & ~(one & sound), "audio": there["audio"] & ~(one & ~sound)}

    @torch.no_grad()
    def describe(
        self,
        encoders: Mapping[str, Encoder],
        film: Tensor,
        sound: Float[Tensor, "n time"],
        there: Mapping[str, Bool[Tensor, "n"]],
    ) -> tuple[Float[Tensor, "n frame width"], Bool[Tensor, "n"]]:
        """What this round clusters, with nothing hidden or left out, and of which recordings it
        can be known.

        Args:
            encoders: Of the first round; later ones take the teacher's.
            film: Clips as they are shown, changes of content included.
            sound: Of the same times.
            there: Which recordings have each stream.
        """
        if not self.round:
            return self.grid.cepstra(encoders["audio"], sound, self.basis), there["audio"]
        self.teacher.eval()
        teacher: Any = self.teacher
        frames = {
            "video": self.grid.see(teacher["video"], film, there["video"]),
            "audio": self.grid.hear(teacher["audio"], sound, there["audio"]),
        }
        return teacher["fusion"](frames, there), there["video"] | there["audio"]

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Cross-entropy over the clusters, of hidden frames and with less weight of the others."""
        number = self.round
        hidden, usable = features["hidden"], features["usable"][:, None]
        labels = torch.zeros_like(hidden, dtype=torch.int64)
        rows = features["usable"]
        described = features["described"].detach()[rows].flatten(0, 1)
        labels[rows] = self.clusters[number](described).view(-1, hidden.shape[1])
        logits = self.codebooks[number](features["state"])
        surprise = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        weight = torch.where(hidden, 1.0, self.config.unmasked) * usable
        loss = (surprise * weight).sum() / weight.sum().clamp(min=1e-6)
        guess, asked = logits.detach().argmax(2), hidden & usable
        chance = float(labels[asked].bincount().max() / asked.sum()) if asked.any() else 0.0
        right, answers = guess == labels, {}
        for name, code in GIVEN.items():
            mine = asked & (features["given"] == code)[:, None]
            if mine.any():
                answers[name] = Answer(right[mine].float().mean(), chance)
        count = self.config.clusters[number]
        return Outcome(
            loss=loss,
            answers=answers,
            metrics={
                "round": torch.tensor(float(number)),
                "clusters_used": perplexity(labels[asked], count),
                "clusters_named": perplexity(guess[asked], count),
                "hidden": hidden.float().mean(),
                "silent": features["silent"].float().mean(),
            },
            embedding=features["state"].detach().mean(1),
        )

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Collects frames for the clusters; at the end of a round, copies the network."""
        number = self.round
        frames = features["described"][features["usable"]].flatten(0, 1)
        clusters = self.clusters[number]
        assert isinstance(clusters, Clusters)
        clusters.remember(frames)
        self.step += 1
        if self.round > number:
            for name, network in {**encoders, "fusion": self.fusion}.items():
                self.teacher[name].load_state_dict(network.state_dict())

    def _spans(
        self, stream: str, film: Tensor, generator: torch.Generator
    ) -> Int64[Tensor, "n frame"]:
        """Where spans of a stream are hidden."""
        share, span = self.share[stream], self.span[stream]
        return spans(len(film), film.shape[1], share, span, generator).to(film.device)


def _check(config: AvHubertConfig, clips: Mapping[str, ClipSpec]) -> None:
    """Raises ConfigError for what cannot be meant."""
    for stream, spec in clips.items():
        if not spec.rate:
            raise ConfigError(
                f"av_hubert lays streams on one grid of frames, and clips of {stream} have no rate "
                f"of their own; set clip.{stream}.rate."
            )
    for name in ("both", "sound", "unmasked"):
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must lie between 0 and 1.")
    if min(config.audio_mask, config.video_mask) < 0 or not (
        config.audio_mask or config.video_mask
    ):
        raise ConfigError(
            f"audio_mask is {config.audio_mask} and video_mask {config.video_mask}; neither may be "
            "negative, and one must be positive, or nothing is hidden."
        )
    for name in ("audio_span", "video_span"):
        if not 0 < getattr(config, name) < math.inf:
            raise ConfigError(f"{name} is {getattr(config, name)}; it is a number of seconds.")
    if min(config.clusters, default=0) < 2 or config.every < config.gather:
        raise ConfigError(
            f"clusters is {config.clusters}, every {config.every} and gather {config.gather}; "
            "there must be a round, of at least 2 clusters, no shorter than the steps in which its "
            "frames are gathered."
        )
