"""Arrow of time: does this clip play forwards or backwards?

Wei, Lim, Zisserman and Freeman, "Learning and using the arrow of time", CVPR 2018. A clip is shown
in one of its two directions and a linear head on the pooled features names the direction, as the
paper's does after global average pooling. Time is an index here, so the same file asks the question
of videos, sounds and series.

Of the paper: two classes, the whole clip at once, linear head. Left open by it or changed here: the
clip's length (the encoder's), colour frames for the paper's optical flow, and both directions of
every window side by side, so that a batch is balanced and content alone says nothing. The paper
warns of giveaways that are no motion (codecs, black borders, stabilisation): mind the accuracy on
recordings whose direction a person could not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import nn

from mainspring.clips import ClipSpec, Draw, Timeline, reverse, window
from mainspring.encoders.encoder import Encoder
from mainspring.pretexts.content import content_change
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext


@dataclass(frozen=True)
class ArrowOfTimeConfig:
    """Settings of `ArrowOfTime`.

    Attributes:
        both: Show both directions of every window; otherwise one of them, by a coin.
        flip: Video only: chance of a horizontal flip of a clip.
        jitter: Video only: strength of colour jitter, alike in all frames of a clip.
    """

    both: bool = True
    flip: float = 0.5
    jitter: float = 0.0


class ArrowOfTime(Pretext):
    """Names the direction of a clip."""

    question = "Does this clip play forwards or backwards?"
    citation = "Wei et al., Learning and using the arrow of time, CVPR 2018"
    accepts = ("video", "audio", "series")
    Config: ClassVar[type] = ArrowOfTimeConfig

    config: ArrowOfTimeConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: ArrowOfTimeConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        self.stream = self.only()
        self.change = content_change(
            self.stream, clips[self.stream], flip=config.flip, jitter=config.jitter
        )
        self.head = nn.Linear(dims[self.stream], 2)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window in both directions, or in one of them; "direction" is 1 where reversed."""
        spec = self.clips[self.stream]
        clip = window(timeline[self.stream].length, spec.length, spec.stride, rng)
        direction = np.arange(2) if self.config.both else rng.integers(2, size=1)
        clips = np.stack([reverse(clip) if backwards else clip for backwards in direction])
        return {self.stream: Draw(clips, {"direction": direction})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Embeddings (batch, view, dim) and logits (batch, view, 2)."""
        samples, present = batch[self.stream].flat()
        embedding = encoders[self.stream](self.change(samples, batch.generator), present)
        embedding = embedding.unflatten(0, (len(batch), -1))
        return {"embedding": embedding, "logits": self.head(embedding)}

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Cross-entropy on the direction."""
        logits = features["logits"].flatten(0, 1).float()
        direction = batch[self.stream].factors["direction"].flatten()
        accuracy = (logits.argmax(1) == direction).float().mean()
        return Outcome(
            loss=F.cross_entropy(logits, direction),
            answers={"direction": Answer(accuracy, chance=0.5)},
            embedding=features["embedding"].detach().flatten(0, 1),
        )
