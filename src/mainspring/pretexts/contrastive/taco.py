"""TaCo: ignore how a clip was changed in time, and name the change.

Bai et al., "Can temporal information help with contrastive self-supervised learning?", 2020. Every
recording gives one plain clip V and, for each transformation T_n, a transformed clip V^{T_n}. A
projection head for each T_n brings V^{T_n} to V and away from other recordings (Eq. 1, 2); a task
head for each T_n names what was done (Eq. 3):

    L = L_contrast + lambda * L_task                                                        (Eq. 4)

The arms of the paper's Table 1 are settings:

    contrast only        transformations=()         two plain clips of a recording
    augmentation only    tasks=0                    transformed clips, contrasted but not named
    task only            contrast=0                 named but not contrasted (Table 5)
    TaCo                 as they stand

From the paper: temperature 0.07, lambda 10, equal task weights, 16384 sampled negatives, linear
projection, the transformations and the form of their heads, speed with shuffle as the best pair
(Table 8). Left open by it, and chosen here: widths of the heads, number of clips in shuffle, the
speeds beyond "1x, 2x, 4x, ...", what a speed is compared with, queue size and momenta, colour
jitter, that each clip has a window of its own, and that of the clips of shuffle the shuffled one is
contrasted. In the queue and the bank keys carry no gradient, so V is also a query for its own key,
as in PIRL (Misra and van der Maaten, CVPR 2020, Eq. 5); its projection would otherwise not learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mainspring.augment.video import rotate
from mainspring.clips import ClipSpec, Draw, Timeline, window
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, RunError, unknown
from mainspring.losses.contrast import info_nce
from mainspring.losses.negatives import InBatch, MemoryBank, MomentumCopy, Queue
from mainspring.pretexts.content import content_change
from mainspring.pretexts.heads import ComparingHead, NamingHead, projection_head
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext, Views
from mainspring.pretexts.transformations import (
    Again,
    Reverse,
    Rotation,
    Shuffle,
    Speed,
    Transformation,
)

PIECES = 8
"""Pieces into which sounds and series are cut for shuffling: as many as the paper's clips have
frames. Single samples of a sound in another order would be noise."""


@dataclass(frozen=True)
class TacoConfig:
    """Settings of `Taco`.

    Attributes:
        transformations: Any of "rotation", "reverse", "shuffle", "speed"; none gives the baseline
            of plain contrast. Speed with shuffle is the best of the paper's pairs (Table 8).
        contrast: Weight of L_contrast; 0 leaves contrast out.
        tasks: Weight of L_task, the paper's lambda (Table 6); 0 leaves the tasks out.
        temperature: tau of Eq. 1.
        negatives: "batch" (as in SimCLR), "queue" (MoCo) or "bank" (InstDisc). The paper has
            tables for the latter two; the first needs no warm-up and suits small data.
        queue: Keys in the queue. Open; He et al. keep 65536 for ImageNet, CoCLR 16384 for Kinetics.
        momentum: Of the key encoder. Open; 0.999 in He et al. Runs of a few hundred steps want
            0.99, or the key encoder hardly leaves its first weights.
        sampled: Negatives drawn from the bank.
        bank_momentum: Share of the old vector in the bank. Open; 0.5 in Wu et al.
        projection: "linear" (Section 3.2), "mlp" (its alternative) or "normed" (Section 4.2.2).
        width: Of the projection. Open; 128 in all three frameworks it builds on.
        hidden: Width of the first layer of heads that have two. Open.
        speeds: Factors of normal speed, the classes of that task.
        beside_plain: Name the speed from the difference to the plain clip; otherwise from the clip
            by itself. Open: the paper wants the head of shuffle, which compares clips, but does
            not say which.
        odd_clips: Clips compared by shuffle, an even number. Open; 6 in O3N.
        pieces: Pieces into which a clip is cut by shuffle; 0 takes the single frames of a video
            and 8 pieces of a sound or series.
        noise: Degrees by which each frame may be turned beyond the quarter turns.
        flip: Video only: chance of a horizontal flip of a clip.
        jitter: Video only: strength of colour jitter, alike in all frames of a clip. Open.
    """

    transformations: tuple[str, ...] = ("speed", "shuffle")
    contrast: float = 1.0
    tasks: float = 10.0
    temperature: float = 0.07
    negatives: str = "batch"
    queue: int = 16384
    momentum: float = 0.999
    sampled: int = 16384
    bank_momentum: float = 0.5
    projection: str = "linear"
    width: int = 128
    hidden: int = 256
    speeds: tuple[float, ...] = (1, 2, 4)
    beside_plain: bool = True
    odd_clips: int = 4
    pieces: int = 0
    noise: float = 3.0
    flip: float = 0.5
    jitter: float = 0.4


class Taco(Pretext):
    """Contrast across temporal transformations, and their names."""

    question = "Which clips are of one recording, and what was done to each in time?"
    citation = (
        "Bai et al., Can temporal information help with contrastive self-supervised learning?, "
        "arXiv:2011.13046, 2020"
    )
    accepts = ("video", "audio", "series")
    apart = True
    Config: ClassVar[type] = TacoConfig

    config: TacoConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: TacoConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        self.stream = self.only()
        self.spec = clips[self.stream]
        self.parts = _parts(config, self.stream)
        dim, hidden = dims[self.stream], config.hidden
        self.change = content_change(self.stream, self.spec, config.flip, config.jitter)
        self.tasks = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        self.key_encoder: MomentumCopy | None = None
        self.key_projection: MomentumCopy | None = None
        if config.tasks:
            for part, _ in self.parts:
                if part.classes:
                    head = NamingHead if part.branches == 1 else ComparingHead
                    self.tasks[part.name] = head(dim, hidden, part.classes)
        if config.contrast:
            self.negatives = _negatives(config, recordings)
            for name in ["plain", *config.transformations]:
                self.projections[name] = projection_head(
                    config.projection, dim, config.width, hidden
                )

    def needs(self, stream: str) -> int:
        """The farthest that any clip reaches: the fastest speed, or the window of shuffle."""
        return max(part.reach(self.spec) for part, _ in self.parts)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Copies encoder and projection of V, if keys come from a momentum encoder."""
        if self.config.contrast and self.config.negatives == "queue":
            self.key_encoder = MomentumCopy(encoders[self.stream], self.config.momentum)
            self.key_projection = MomentumCopy(self.projections["plain"], self.config.momentum)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """The plain clip, then the clips of each transformation.

        Factors, 0 where they do not apply: "transformation" (the code of what was done, 0 for
        plain), "rotation" (quarter turns), "direction" (1 backwards), "odd" (1 shuffled) and
        "speed" (index into the speeds).
        """
        extent = timeline[self.stream].length
        clips = [window(extent, self.spec.length, self.spec.stride, rng)[None]]
        views = self.parts[-1][1].stop
        factors = {"transformation": np.zeros(views, np.int64)}
        for part, rows in self.parts:
            drawn, values = part.draw(extent, self.spec, rng)
            clips.append(drawn)
            factors["transformation"][rows] = part.code
            factors.setdefault(part.factor, np.zeros(views, np.int64))[rows] = values
        return {self.stream: Draw(np.concatenate(clips), factors)}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Embedding and key of V, and for each transformation its query and its logits."""
        views = batch[self.stream]
        samples, present = views.flat()
        changed = self._turn(self.change(samples, batch.generator), views, batch.generator)
        embeddings = encoders[self.stream](changed, present).unflatten(0, (len(batch), -1))
        plain = embeddings[:, 0]
        features = {"plain": plain}
        for part, rows in self.parts:
            mine, values = embeddings[:, rows], views.factors[part.factor][:, rows]
            if part.name in self.tasks:
                features[f"logits.{part.name}"] = self.tasks[part.name](part.compared(mine, plain))
            if self.config.contrast:
                projection = self.projections[part.name if part.code else "plain"]
                features[f"query.{part.name}"] = projection(part.changed(mine, values))
        if self.config.contrast:
            features["key"] = self._key(plain, views, batch.generator)
            if self.negatives.frozen and self.config.transformations:
                features["query.plain"] = self.projections["plain"](plain)
        return features

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """L_contrast + lambda L_task (Eq. 4)."""
        outcome = Outcome(features["plain"].new_zeros((), dtype=torch.float32))
        outcome.embedding = features["plain"].detach()
        if self.config.contrast:
            self._contrast(features, batch, outcome)
        if self.config.tasks:
            self._name(features, batch[self.stream], outcome)
        return outcome

    def _contrast(self, features: Features, batch: Batch, outcome: Outcome) -> None:
        """Adds the sum of Eq. 2 over the queries. The accuracy is the mean over transformations;
        V, which a bank may compare with itself, is left out of it."""
        keys = self.negatives.against(features["key"], batch.recording, batch.generator)
        compared = {
            name: info_nce(
                query, keys.positives, keys.negatives, keys.allowed, self.config.temperature
            )
            for name, query in features.items()
            if name.startswith("query.")
        }
        loss = torch.stack([each.loss for each in compared.values()]).sum()
        asked = [compared[f"query.{part.name}"] for part, _ in self.parts]
        accuracy = torch.stack([each.accuracy for each in asked]).mean()
        outcome.loss = outcome.loss + self.config.contrast * loss
        outcome.metrics["contrast_loss"] = loss.detach()
        outcome.answers["contrast"] = Answer(accuracy, asked[0].chance)

    def _name(self, features: Features, views: Views, outcome: Outcome) -> None:
        """Adds the sum of Eq. 3 over the tasks."""
        for part, rows in self.parts:
            if part.name not in self.tasks:
                continue
            logits = features[f"logits.{part.name}"].float()
            truth = part.answer(views.factors[part.factor][:, rows])
            loss = F.cross_entropy(logits, truth)
            accuracy = (logits.argmax(1) == truth).float().mean()
            outcome.loss = outcome.loss + self.config.tasks * loss
            outcome.metrics[f"{part.name}_loss"] = loss.detach()
            outcome.answers[part.name] = Answer(accuracy, 1 / part.classes)

    def _turn(self, samples: Tensor, views: Views, generator: torch.Generator) -> Tensor:
        """Carries out the rotations. They come after flips: a mirrored clip turned by 90 degrees
        would otherwise be a clip turned by 270 degrees, and the two could not be told apart."""
        for part, rows in self.parts:
            if isinstance(part, Rotation):
                clips = samples.unflatten(0, views.present.shape[:2])
                mine = clips[:, rows].flatten(0, 1)
                noise = torch.rand(mine.shape[:2], generator=generator, device=generator.device)
                turned = rotate(
                    mine,
                    views.factors[part.factor][:, rows].flatten(),
                    (2 * noise - 1) * self.config.noise,
                )
                before, after = clips[:, : rows.start], clips[:, rows.stop :]
                samples = torch.cat([before, turned[:, None], after], 1).flatten(0, 1)
        return samples

    def _key(self, plain: Tensor, views: Views, generator: torch.Generator) -> Tensor:
        """z_V: of this encoder, or of the momentum encoder, which sees V with other content
        changes."""
        if self.config.negatives != "queue":
            return self.projections["plain"](plain)
        if self.key_encoder is None or self.key_projection is None:
            raise RunError("A queue needs a momentum encoder: call attach(encoders) first.")
        assert views.samples is not None
        changed = self.change(views.samples[:, 0], generator)
        return self.key_projection(self.key_encoder(changed, views.present[:, 0]))

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Moves the momentum encoder and stores the keys."""
        if self.key_encoder is not None and self.key_projection is not None:
            self.key_encoder.update(encoders[self.stream])
            self.key_projection.update(self.projections["plain"])
        if self.config.contrast:
            self.negatives.remember(features["key"], batch.recording)


def _parts(config: TacoConfig, stream: str) -> list[tuple[Transformation, slice]]:
    """The transformations and the rows of a draw that belong to each; row 0 is plain.

    Raises:
        ConfigError: If settings contradict each other or name what there is not.
    """
    lowest = min(config.tasks, config.contrast, config.noise)
    if lowest < 0 or min(config.width, config.hidden) < 1:
        raise ConfigError(
            f"tasks is {config.tasks}, contrast {config.contrast}, noise {config.noise}, width "
            f"{config.width} and hidden {config.hidden}; weights and noise must not be negative, "
            "and widths must be at least 1."
        )
    if not config.temperature > 0:
        raise ConfigError(f"temperature must be positive, not {config.temperature}.")
    if not config.tasks and not config.contrast:
        raise ConfigError("tasks and contrast are both 0, so nothing is asked. Raise one of them.")
    if not config.transformations and not config.contrast:
        raise ConfigError("Without transformations there is nothing to name. Set contrast above 0.")
    if len(set(config.transformations)) < len(config.transformations):
        raise ConfigError(f"A transformation is named twice: {', '.join(config.transformations)}.")
    if "rotation" in config.transformations and stream != "video":
        raise ConfigError(f"rotation turns pictures; {stream} has none. Leave it out.")
    chosen = [_transformation(name, config, stream) for name in config.transformations] or [Again()]
    stops = np.cumsum([1, *(part.views for part in chosen)]).tolist()
    return [
        (part, slice(start, stop))
        for part, start, stop in zip(chosen, stops, stops[1:], strict=False)
    ]


def _transformation(name: str, config: TacoConfig, stream: str) -> Transformation:
    """One transformation as configured. Without tasks, shuffle needs its shuffled clip alone."""
    pieces = config.pieces or (0 if stream == "video" else PIECES)
    known: dict[str, Transformation] = {
        "rotation": Rotation(),
        "reverse": Reverse(),
        "shuffle": Shuffle(clips=config.odd_clips if config.tasks else 1, pieces=pieces),
        "speed": Speed(speeds=config.speeds, beside_plain=config.beside_plain),
    }
    if name not in known:
        raise unknown("transformation", name, known)
    return known[name]


def _negatives(config: TacoConfig, recordings: int) -> InBatch | Queue | MemoryBank:
    """Where keys come from, as configured."""
    makers: dict[str, Callable[[], InBatch | Queue | MemoryBank]] = {
        "batch": InBatch,
        "queue": lambda: Queue(config.width, config.queue),
        "bank": lambda: MemoryBank(recordings, config.width, config.sampled, config.bank_momentum),
    }
    if config.negatives not in makers:
        raise unknown("kind of negatives", config.negatives, makers)
    return makers[config.negatives]()
