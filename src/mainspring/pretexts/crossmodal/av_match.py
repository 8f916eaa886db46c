"""Audio-visual matching: does this sound belong to this clip?

Arandjelovic and Zisserman, "Look, listen and learn" (L3-Net), ICCV 2017: a picture and a second of
sound are of one recording and one time, or of two recordings, half and half, and a network says
which. `compare` chooses its form. "fused": both embeddings side by side, two linear layers with a
ReLU between them. "distance" is AVE-Net of "Objects that sound" (ECCV 2018): each embedding by two
layers to a unit vector, and a logit from their Euclidean distance alone, by one scale and one
offset. The unit vectors then lie in a space that both streams share, in which sounds find pictures.

From the papers: the two forms, 128 numbers wide, and that a true pair overlaps in time. Ours: a
clip where the papers show one frame; and each clip is asked about twice, with its own sound and
with that of another recording, so that exactly half of the pairs are false and neither stream by
itself says anything. The false sounds are one random cycle through the (global) batch.

Recordings without picture, without sound, with too little of one or with a silent sound are neither
asked about nor lent to others: a sound that only ever stands in false pairs could be known by ear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec, Draw, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.errors import ConfigError, unknown
from mainspring.pretexts.audiovisual import STREAMS, AudioVisual, of_others
from mainspring.pretexts.content import content_change
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome
from mainspring.pretexts.silence import heard


@dataclass(frozen=True)
class AvMatchConfig:
    """Settings of `AvMatch`.

    Attributes:
        compare: "fused" (L3-Net) or "distance" (AVE-Net).
        overlap: Share of the shorter of the two clips that both have in common at least. Open in
            the paper ("overlaps in time"); 0.5 lets a sound begin up to half a clip off.
        width: Between the layers and, of "distance", of the shared space; 128 in both papers.
        flip: Chance of a horizontal flip of a clip.
        jitter: Strength of colour jitter, alike in all frames of a clip.
    """

    compare: str = "distance"
    overlap: float = 0.5
    width: int = 128
    flip: float = 0.5
    jitter: float = 0.4


class AvMatch(AudioVisual):
    """Tells pairs of picture and sound from pairs of strangers."""

    question = "Does this sound belong to this clip?"
    citation = (
        "Arandjelovic and Zisserman, Look, Listen and Learn, ICCV 2017, and Objects that Sound "
        "(AVE-Net), ECCV 2018"
    )
    apart = True
    partial = True
    Config: ClassVar[type] = AvMatchConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "l3": {"question": {"compare": "fused"}},
        "ave": {"question": {"compare": "distance"}},
    }

    config: AvMatchConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: AvMatchConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if config.compare not in ("fused", "distance"):
            raise unknown("comparison of av_match", config.compare, ["fused", "distance"])
        if not 0 < config.overlap <= 1:
            raise ConfigError(f"overlap is {config.overlap}; it is a share above 0, at most 1.")
        if config.width < 1:
            raise ConfigError(f"width is {config.width}; it must be at least 1.")
        self.change = content_change("video", clips["video"], config.flip, config.jitter)
        width = config.width
        if config.compare == "fused":
            both = dims["video"] + dims["audio"]
            self.fused = nn.Sequential(nn.Linear(both, width), nn.ReLU(), nn.Linear(width, 1))
        else:
            self.heads = nn.ModuleDict({s: JointHead(dims[s], width, width) for s in STREAMS})
            # Unrelated unit vectors are about sqrt(2) apart, where the logit begins near 0.
            self.scale = nn.Parameter(torch.tensor(3.0))
            self.offset = nn.Parameter(torch.tensor(4.0))

    def joint(self) -> dict[str, nn.Module]:
        """The heads of the distance form."""
        return dict(self.heads.items()) if self.config.compare == "distance" else {}

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One clip and one sound that overlaps it; neither, where one of the two does not fit into
        the time that both streams cover."""
        spans = {s: (self.clips[s].span, timeline[s].rate) for s in STREAMS if s in timeline}
        seconds = {s: span / rate for s, (span, rate) in spans.items()}
        shared = min((timeline[stream].seconds for stream in spans), default=0.0)
        if len(spans) < len(STREAMS) or shared < max(seconds.values()):
            return {stream: self.absent(stream, 1, {}) for stream in STREAMS}
        begin = rng.uniform(0, shared - seconds["video"])
        common = self.config.overlap * min(seconds.values())
        low = max(0.0, begin + common - seconds["audio"])
        high = min(shared - seconds["audio"], begin + seconds["video"] - common)
        starts = {"video": begin, "audio": rng.uniform(low, max(low, high))}
        draws = {}
        for stream, (span, rate) in spans.items():
            spec = self.clips[stream]
            first = min(round(starts[stream] * rate), timeline[stream].length - span)
            draws[stream] = Draw((first + spec.stride * np.arange(spec.length))[None], {})
        return draws

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Embeddings of both streams, and which recordings are asked about.

        The others are not encoded: they would still take part in the encoders' batch statistics.
        """
        there = batch["video"].present[:, 0].any(1) & batch["audio"].present[:, 0].any(1)
        asked = there & heard(*batch["audio"].flat())
        rows = asked.nonzero()[:, 0]
        features: Features = {"asked": asked, "there": there}
        for stream in STREAMS:
            embedding = torch.zeros(len(batch), self.dims[stream], device=asked.device)
            if len(rows):
                samples, present = batch[stream].map(lambda value: value[rows]).flat()
                if stream == "video":
                    samples = self.change(samples, batch.generator)
                seen = encoders[stream](samples, present)
                embedding = embedding.index_copy(0, rows, seen.float())
            features[stream] = embedding
        return features

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Binary cross-entropy on true pairs and as many false ones."""
        rows = features["asked"].nonzero()[:, 0]
        partner = of_others(batch.recording[rows], batch.generator)
        rows, partner = rows[partner >= 0], rows[partner[partner >= 0]]
        video, audio = features["video"], features["audio"]
        outcome = Outcome((video.sum() + audio.sum()) * 0.0)
        outcome.embedding = video[rows].detach()
        absent, unasked = ((~features[name]).float().mean() for name in ("there", "asked"))
        outcome.metrics |= {"absent": absent, "silent": unasked - absent}
        if len(rows):
            true = self.scores(video[rows], audio[rows])
            false = self.scores(video[rows], audio[partner])
            outcome.loss = outcome.loss + (F.softplus(-true) + F.softplus(false)).mean() / 2
            correct = ((true > 0).float().mean() + (false <= 0).float().mean()) / 2
            outcome.answers["match"] = Answer(correct, chance=0.5)
        return outcome

    def scores(
        self, video: Float[Tensor, "n v_dim"], audio: Float[Tensor, "n a_dim"]
    ) -> Float[Tensor, "n"]:
        """Log odds that picture and sound belong together, from their embeddings."""
        if self.config.compare == "fused":
            return self.fused(torch.cat([video, audio], 1))[:, 0]
        apart = self.heads["video"](video) - self.heads["audio"](audio)
        distance = (apart.square().sum(1) + 1e-12).sqrt()
        return self.offset - self.scale * distance
