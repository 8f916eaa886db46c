"""The protocol of pretexts: what to draw, how to encode it, what to ask.

A pretext is one file with one subclass of `Pretext`; its name is the file's. It never knows how
many processes train or how a batch is split: `encode` looks at each recording on its own, `ask` is
where recordings meet. Between the two the loop gathers features over micro-batches and ranks, which
is what makes gradient accumulation and many devices equal to the one big batch, whatever the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from mainspring.clips import NOTHING, ClipSpec, Draw, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.pretexts.batch import Batch, Views

__all__ = ["Answer", "Batch", "Features", "Outcome", "Pretext", "Views"]

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Answer:
    """How well one question was answered: an accuracy beside its chance level."""

    accuracy: Tensor
    chance: float


@dataclass
class Outcome:
    """What a step yields.

    Attributes:
        loss: Scalar to minimise.
        answers: For each question its accuracy beside chance.
        metrics: Other named scalars, detached.
        embedding: (n, dim) detached embeddings for the collapse monitors.
    """

    loss: Tensor
    answers: dict[str, Answer] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None


class Pretext(nn.Module):
    """Base of all pretexts.

    Class attributes:
        question: The question in one sentence.
        citation: Paper, venue, year.
        accepts: Streams it can read.
        Config: Dataclass of its settings, each documented.
        recipe: The run settings that its paper gives, as sections and keys of a run's config.
            They are this pretext's defaults; what the user asks for wins.
        whole: Samples. If positive, a clip is a whole recording up to so many, unless the user
            sets a length; shorter recordings end in padding.
        at_once: Samples. If positive, a batch of more is encoded in parts, unless the user sets
            their number: for pretexts that keep a token of every sample and no batch statistics.
        apart: Recordings of a batch are told apart, so none may stand in it twice: a batch is at
            most as many as there are.
        presets: Settings by name, such as the rows of a paper's table, in the shape of `recipe`
            and over it.
        partial: A recording may lack some of the streams, or have too little of them; its clips
            are then `absent`.

    Args:
        clips: For each stream it reads, how clips are cut.
        dims: For each stream, the width of its encoder's embedding.
        recordings: Number of recordings in the catalogue (for memory banks).
        config: Its settings.
    """

    question: ClassVar[str]
    citation: ClassVar[str]
    accepts: ClassVar[tuple[str, ...]]
    Config: ClassVar[type]
    recipe: ClassVar[dict[str, Any]] = {}
    whole: ClassVar[int] = 0
    at_once: ClassVar[int] = 0
    apart: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    partial: ClassVar[bool] = False

    def __init__(
        self, clips: Mapping[str, ClipSpec], dims: Mapping[str, int], recordings: int, config: Any
    ) -> None:
        super().__init__()
        for stream in clips:
            if stream not in self.accepts:
                raise ConfigError(
                    f"{type(self).__name__} reads {', '.join(self.accepts)}, not {stream}."
                )
        self.clips = dict(clips)
        self.dims = dict(dims)
        self.recordings = recordings
        self.config = config

    @classmethod
    def wants(cls, config: Any, there: Mapping[str, int]) -> list[str]:
        """The streams to learn from where the user names none; empty if what it needs is missing.

        Args:
            config: Its settings.
            there: How many recordings have each stream; streams that none has are left out.
        """
        return [stream for stream in cls.accepts if stream in there][:1]

    def only(self) -> str:
        """The stream, for pretexts that learn from one.

        Raises:
            ConfigError: If there are several, of which the others would learn nothing.
        """
        first, *others = self.clips
        if others:
            raise ConfigError(
                f"{type(self).__name__} learns from one stream, not from "
                f"{' and '.join(self.clips)}: name one, as in --stream {first}."
            )
        return first

    def joint(self) -> dict[str, nn.Module]:
        """The heads into a space that streams share, by stream; kept beside the encoders."""
        return {}

    def needs(self, stream: str) -> int:
        """Positions of `stream` a recording must have to be used; shorter ones are set aside."""
        return self.clips[stream].span

    def light(self) -> Pretext:
        """A copy without weights: all that a loader's worker needs in order to draw."""
        copy = object.__new__(type(self))
        copy.__dict__ = {**self.__dict__, "_parameters": {}, "_buffers": {}, "_modules": {}}
        return copy

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Called once before training, with the encoders (to copy them for a momentum encoder)."""

    def has(self, timeline: Timeline, stream: str) -> bool:
        """Whether a recording has enough of a stream."""
        return stream in timeline and timeline[stream].length >= self.needs(stream)

    def absent(self, stream: str, views: int, factors: dict[str, np.ndarray]) -> Draw:
        """The draw of a stream that a recording lacks: clips in which there is nothing."""
        return Draw(np.full((views, self.clips[stream].length), NOTHING), factors)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """Which positions to look at and what is different between them, for one recording.

        Runs in the loader's worker, touches no sample. Every call gives every stream the same
        number of views and samples, so that recordings can be stacked.
        """
        raise NotImplementedError

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """What `ask` needs to know of each recording, looked at on its own.

        Content changes happen here, on the device, drawn from `batch.generator`. The first axis
        of every feature is the batch.
        """
        raise NotImplementedError

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The loss over all recordings of the (global) batch; `batch` holds no samples."""
        raise NotImplementedError

    def forward(self, encoders: Mapping[str, Encoder], batch: Batch) -> Outcome:
        """Both in one go, for a batch that is whole."""
        return self.ask(self.encode(encoders, batch), batch.without_samples())

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Called once after each optimiser step with the detached global features (for momentum
        encoders, queues and memory banks)."""
