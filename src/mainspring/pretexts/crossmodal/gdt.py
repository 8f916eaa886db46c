"""GDT: for each way in which views differ, choose whether to ignore it or tell it apart.

Patrick et al., "On compositions of transformations in contrastive self-supervised learning", ICCV
2021. A view is T = (i, tau, m, r, g): of recording i, from time tau on, stream m, played in
direction r, with content changes g. Recordings are told apart and streams and changes are ignored;
of time shift and direction the question is chosen. Views of all recordings are compared across
streams by Eq. 1 (Section 3.3), or with all others where there is one stream. The rows of the
paper's tables are presets:

    a to d        Table 1, video alone: SimCLR, and with direction, shift or both to ignore
    e to m        Table 1, video and sound; l, which tells shifts apart and ignores direction, is
                  the paper's best and the default
    vt-a to vt-g  Table 2, video and text

From the paper: two shifts, two directions, one change of each clip and two where there is video
alone; temperature 0.07; heads from 512 by way of 512 to 256 with batch normalisation and dropout of
0.3; a clip's sound starts with its picture; SpecAugment. Its scale needs many GPUs, so that is a
recipe and no default, 512 recordings a batch and 100 epochs or more:

    batch = 512
    encoder = ["r2plus1d18", "logmel"]
    [clip.video]            # 1 s; the released code's clips are 30 frames of 112 pixels
    length = 30
    rate = 30.0
    stride = 1
    [clip.audio]            # 1 s, 40 bands x 99 frames, a ResNet of 9 layers
    length = 24000
    rate = 24000
    [architecture.audio]
    window = 0.02
    centred = false
    width = 64
    [optimiser]             # constant after 10 of 200 epochs, as the released code runs
    name = "sgd"
    lr = 0.64
    weight_decay = 1e-5
    warmup = 0.05
    schedule = "constant"

Departures from the released code, which are also those from each other of its nine branches: the
loss is Eq. 1 in all rows; keys learn too (`keys_learn`); views that differ in both shift and
direction are compared (`edges`); shifts keep a distance (`gap`), where two draws could coincide;
sound is turned round before it becomes a spectrogram and each view has masks of its own, where the
code turns the masked spectrogram. Silent sounds and missing streams take no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.augment.audio import spec_augment
from mainspring.clips import Clips, ClipSpec, Draw, Timeline, regular, reverse
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.joint import JointHead
from mainspring.errors import ConfigError, unknown
from mainspring.losses.contrast import contrast
from mainspring.losses.pairs import QUESTIONS
from mainspring.pretexts.content import content_change
from mainspring.pretexts.hierarchy import EVERY, Hierarchy, Level
from mainspring.pretexts.presence import holding
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext
from mainspring.pretexts.times import starts_at, times


@dataclass(frozen=True)
class GdtConfig:
    """Settings of `Gdt`.

    Attributes:
        shift: What to ask of the time at which a view starts: "ignore", "tell_apart", or "" for one
            time a recording.
        direction: The same of the direction of time; "" plays all views forwards.
        shifts: Times a recording, where there is a question about them (the paper's K_tau).
        augmentations: Views alike in all else (K_g). One, and two where there is one stream.
        gap: Seconds from one shift to the next at least. Ours: half a clip of the paper's, whose
            two shifts are drawn independently. A recording too short for it has less.
        temperature: rho of Eq. 1.
        width: Of the shared space.
        hidden: Between the two layers of a head; 0 is one linear layer.
        dropout: Share left out between them.
        norm: Batch normalisation between them.
        steps: Parts of a clip that the heads tell apart (text: 1). Ours; the paper averages over
            time, which is 1. With more, the moment of an impact counts, and sound and picture are
            matched by when things happen: what generalises to recordings never seen.
        mask_frames: Sound only: widest mask in time, in frames of the spectrogram. The paper names
            SpecAugment but no widths; ours are a quarter of the paper's spectrogram. 0 for none.
        mask_bands: The same in frequency, in bands.
        edges: Do not compare views of a recording that differ in both shift and direction. So the
            released code; Eq. 1 compares all.
        keys_learn: Whether a view also learns from being a key. Not in the released code, where
            gradient flows through queries alone; so in Eq. 1.
        flip: Video only: chance of a horizontal flip of a clip.
        jitter: Video only: strength of colour jitter, alike in all frames of a clip (the released
            code's 0.4).
    """

    shift: str = "tell_apart"
    direction: str = "ignore"
    shifts: int = 2
    augmentations: int = 1
    gap: float = 0.5
    temperature: float = 0.07
    width: int = 256
    hidden: int = 512
    dropout: float = 0.3
    norm: bool = True
    steps: int = 1
    mask_frames: int = 25
    mask_bands: int = 10
    edges: bool = False
    keys_learn: bool = True
    flip: float = 0.5
    jitter: float = 0.4


def _row(direction: str, shift: str, *streams: str) -> dict[str, Any]:
    """A row of Table 1 or 2, in the order of its columns."""
    names = {"": "", "i": "ignore", "d": "tell_apart"}
    question: dict[str, Any] = {"direction": names[direction], "shift": names[shift]}
    question["augmentations"] = 2 if len(streams) == 1 else 1
    return {"question": question, "stream": list(streams)}


class Gdt(Pretext):
    """Contrast in which each factor is ignored or told apart."""

    question = "Which views are of one recording, at one time, in one direction?"
    citation = (
        "Patrick et al., On compositions of transformations in contrastive self-supervised "
        "learning, ICCV 2021"
    )
    accepts = ("video", "audio", "text", "series")
    apart = True
    partial = True
    Config: ClassVar[type] = GdtConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "a": _row("", "", "video"),
        "b": _row("i", "", "video"),
        "c": _row("", "i", "video"),
        "d": _row("i", "i", "video"),
        "e": _row("", "", "video", "audio"),
        "f": _row("i", "", "video", "audio"),
        "g": _row("", "i", "video", "audio"),
        "h": _row("i", "i", "video", "audio"),
        "i": _row("d", "", "video", "audio"),
        "j": _row("", "d", "video", "audio"),
        "k": _row("d", "i", "video", "audio"),
        "l": _row("i", "d", "video", "audio"),
        "m": _row("d", "d", "video", "audio"),
        "vt-a": _row("", "", "video"),
        "vt-b": _row("", "", "video", "text"),
        "vt-c": _row("d", "", "video", "text"),
        "vt-d": _row("", "d", "video", "text"),
        "vt-e": _row("d", "i", "video", "text"),
        "vt-f": _row("i", "d", "video", "text"),
        "vt-g": _row("d", "d", "video", "text"),
    }

    config: GdtConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: GdtConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        self.hierarchy = _hierarchy(config, len(clips))
        self.table = self.hierarchy.views(without="stream")
        self.views = len(self.table["shift"])
        self.changes = {
            stream: content_change(stream, spec, config.flip, config.jitter)
            for stream, spec in clips.items()
        }
        self.heads = nn.ModuleDict(
            {
                stream: JointHead(
                    dims[stream],
                    config.width,
                    config.hidden,
                    config.dropout,
                    config.norm,
                    1 if stream == "text" else config.steps,
                )
                for stream in clips
            }
        )

    @classmethod
    def wants(cls, config: GdtConfig, there: Mapping[str, int]) -> list[str]:
        """Video and sound, or the first two streams that there are, or the only one."""
        return [stream for stream in cls.accepts if stream in there][:2]

    def joint(self) -> dict[str, nn.Module]:
        """The heads of all streams."""
        return dict(self.heads.items())

    def needs(self, stream: str) -> int:
        """A clip, and room for all shifts; a sentence where they have to share it."""
        spec = self.clips[stream]
        gaps = self.table["shift"].max().item()
        if stream == "text" or not gaps:
            return spec.span
        gap = 1 if spec.rate is None else max(1, math.ceil(self.config.gap * spec.rate - 1e-6))
        return spec.span + gaps * gap

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Refuses masks that do not fit on the spectrogram, and to tell directions apart where an
        encoder cannot see them.

        Raises:
            ConfigError: If either is asked for.
        """
        mels = encoders["audio"].settings.get("mels") if "audio" in encoders else None
        if mels is not None and self.config.mask_bands > mels:
            raise ConfigError(
                f"mask_bands is {self.config.mask_bands}, more than the {mels} bands of the "
                "spectrogram (architecture.audio.mels). Set fewer under [question], or more mels."
            )
        if self.config.direction != "tell_apart":
            return
        for stream in self.clips:
            if not encoders[stream].ordered:
                kind = type(encoders[stream]).__name__
                raise ConfigError(
                    f"Direction is told apart, but {kind}, the encoder of {stream}, does not know "
                    "order: forwards and backwards are one vector to it, so that every right key "
                    'would be among the wrong ones. Set direction to "ignore" or to "", or '
                    "take an encoder that knows order (architecture.text.context = 3 for Words)."
                )

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """The same times of every stream, each in every direction.

        Factors: "shift", "direction" and "augmentation", numbered from 0, and "counts".

        Where shifts are told apart and one sentence stands for several of them, all but the first
        count 0 and take no part, in any stream. Eq. 1 would otherwise pull the sentence towards the
        picture of one time and push it from that of another which it describes as well: leaving out
        the second text alone would keep that picture as a wrong key. With three streams this also
        costs the pairs that are without text; no mask of views can keep them.
        """
        clips = {s: spec for s, spec in self.clips.items() if self.has(timeline, s)}
        gap, count = self.config.gap, int(self.table["shift"].max()) + 1
        told = self.config.shift == "tell_apart"
        if told and "text" in clips:  # a sentence each, if they fit
            gap = max(gap, clips["text"].span / timeline["text"].rate)
        seconds = times(timeline, clips, count, gap, rng)
        counts = np.ones(count, np.int64)
        shown: dict[str, Clips] = {}
        for stream, spec in clips.items():
            starts = starts_at(timeline, clips, stream, seconds).tolist()
            if told and stream == "text":
                counts = np.array([int(starts.index(s) == k) for k, s in enumerate(starts)])
            forwards = np.stack([regular(start, spec.length, spec.stride) for start in starts])
            both = np.stack([forwards, reverse(forwards)], 1)
            shown[stream] = both[self.table["shift"], self.table["direction"]]
        factors = {**self.table, "counts": counts[self.table["shift"]]}
        return {
            stream: Draw(shown[stream], factors)
            if stream in shown
            else self.absent(stream, self.views, factors)
            for stream in self.clips
        }

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """For each stream its vectors in the shared space (batch, view, width), which of them are
        there and which are silent; and an embedding of each recording."""
        features: Features = {}
        for stream in self.clips:
            views = batch[stream]
            shape = views.present.shape[:2]
            samples, present = views.flat()
            there, silent = holding(stream, samples, present)
            rows = there.nonzero()[:, 0]
            if self.config.norm and self.config.hidden and self.training and len(rows) == 1:
                rows, there = rows[:0], torch.zeros_like(there)  # one row has no batch statistics
            changed = self.changes[stream](samples, batch.generator)
            embedding = torch.zeros(len(there), self.dims[stream], device=samples.device)
            vectors = torch.zeros(len(there), self.config.width, device=samples.device)
            if len(rows):
                encoder, head, real = encoders[stream], self.heads[stream], present[rows]
                assert isinstance(head, JointHead)
                tokens = self._tokens(encoder, stream, changed[rows], real, batch.generator)
                some = encoder.embed(tokens, real)
                embedding = embedding.index_copy(0, rows, some.detach().float())
                told = some if head.steps == 1 else head.taken(encoder, tokens, real)
                vectors = vectors.index_copy(0, rows, head(told))
            features[stream] = vectors.unflatten(0, shape)
            features[f"{stream}.there"] = there.unflatten(0, shape)
            features[f"{stream}.silent"] = silent.unflatten(0, shape)
            if "embedding" not in features:
                features["embedding"] = embedding.unflatten(0, shape)[:, 0]
        return features

    def _tokens(
        self,
        encoder: Encoder,
        stream: str,
        samples: Tensor,
        present: Bool[Tensor, "n time"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n *grid dim"]:
        """Tokens; those of sound with masks on the spectrogram, where the encoder has one."""
        frames, bands = self.config.mask_frames, self.config.mask_bands
        if not (stream == "audio" and hasattr(encoder, "spectrogram") and (frames or bands)):
            return encoder.tokens(samples, present)
        network: Any = encoder  # its stem and trunk are what every encoder has, each its own way
        prepared = network.prepare(samples, present)
        masked = spec_augment(prepared, generator, frames=frames, bands=bands)
        return network.trunk(network.stem(masked))

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Eq. 1 over all views of all streams."""
        recording = batch.recording[:, None].expand(-1, self.views)

        def joined(values: list[Tensor]) -> Tensor:
            """One row a view, stream by stream."""
            return torch.cat([value.flatten(0, 1) for value in values])

        streams = list(self.clips)
        factors = {
            name: joined([batch[stream].factors[name] for stream in streams])
            for name in (*self.table, "counts")
        }
        factors["stream"] = joined(
            [torch.full_like(recording, index) for index in range(len(streams))]
        )
        owner = joined([recording] * len(streams))
        there = joined([features[f"{stream}.there"] for stream in streams])
        rule = self.hierarchy.rule(owner, factors).among(there & (factors["counts"] > 0))
        if self.config.edges:
            rule = rule.edges(factors["shift"], factors["direction"])
        found = contrast(
            joined([features[stream] for stream in streams]),
            self.hierarchy.label(owner, factors),
            rule,
            self.config.temperature,
            keys_learn=self.config.keys_learn,
        )
        shown = features[f"{streams[0]}.there"][:, 0]
        outcome = Outcome(found.loss, embedding=features["embedding"][shown].detach())
        outcome.answers["contrast"] = Answer(found.accuracy, found.chance)
        silent = joined([features[f"{stream}.silent"] for stream in streams])
        outcome.metrics["absent"] = (~there & ~silent).float().mean()
        if "audio" in streams:
            outcome.metrics["silent"] = features["audio.silent"].float().mean()
        if "text" in streams and self.config.shift == "tell_apart":
            outcome.metrics["same_sentence"] = 1 - factors["counts"].float().mean()
        return outcome


def _hierarchy(config: GdtConfig, streams: int) -> Hierarchy:
    """The levels T = (i, tau, m, r, g).

    Raises:
        ConfigError: If a question is unknown, or the loss would be empty.
    """
    for name in (config.shift, config.direction):
        if name not in ("", *QUESTIONS):
            raise unknown("question", name, ["", *QUESTIONS])
    if config.shift and config.shifts < 2:
        raise ConfigError(
            f"There is a question about shifts, but shifts is {config.shifts}. Take 2 at least, or "
            'set shift to "".'
        )
    if not 0 <= config.gap < math.inf:
        raise ConfigError(f"gap is a number of seconds, not {config.gap}.")
    if not config.temperature > 0:
        raise ConfigError(f"temperature must be positive, not {config.temperature}.")
    if min(config.mask_frames, config.mask_bands) < 0:
        raise ConfigError(
            f"mask_frames is {config.mask_frames} and mask_bands {config.mask_bands}; neither may "
            "be negative, and 0 is for none."
        )
    levels = [
        Level("recording", EVERY, "tell_apart"),
        Level("shift", config.shifts if config.shift else 1, config.shift or "ignore"),
        Level("stream", streams, "ignore"),
        Level("direction", 2 if config.direction else 1, config.direction or "ignore"),
        Level("augmentation", config.augmentations, "ignore"),
    ]
    return Hierarchy(levels, crossing="stream" if streams > 1 else "")
