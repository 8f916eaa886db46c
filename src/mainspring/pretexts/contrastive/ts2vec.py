"""TS2Vec: which moment is this, and of which series?

Yue et al., "TS2Vec: towards universal representation of time series", AAAI 2022. Two crops of each
series overlap; steps are hidden in each at random; the representations of the shared steps are
contrasted with each other over time and over the series of the batch, at every scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mainspring.clips import NOTHING, ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.losses.hierarchical import hierarchical
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

LENGTHS = 8
"""Lengths at which crops are computed. Each costs a fraction of a second once, and saves a part of
the padding."""


@dataclass(frozen=True)
class TS2VecConfig:
    """Settings of TS2Vec.

    Attributes:
        hide: Share of the steps hidden in each crop (Section 3.2: Bernoulli with p = 0.5).
        instance: Weight of instance contrast; temporal contrast has the rest (Section 3.3 adds the
            two with equal weights, the released code takes their mean).
        temporal_unit: Levels of the hierarchy, from the finest, without temporal contrast, as in
            the released code; crops share at least two steps of the first level that has it.
    """

    hide: float = 0.5
    instance: float = 0.5
    temporal_unit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.hide < 1:
            raise ConfigError(f"hide is {self.hide}; it must be at least 0 and below 1.")
        if not 0 <= self.instance <= 1:
            raise ConfigError(f"instance is {self.instance}; it must lie between 0 and 1.")
        if self.temporal_unit < 0:
            raise ConfigError(f"temporal_unit is {self.temporal_unit}; it must not be negative.")


class TS2Vec(Pretext):
    """Contrast of time steps between two crops of a series with hidden steps.

    The length and place of the crops are drawn once a step for the whole batch, and each series is
    shifted by an offset of its own (the released code; the paper draws them per series). Hidden
    steps enter the first block as 0. A series longer than `whole` samples is learnt from in windows
    of so many.

    The recipe is the released code's: AdamW at a constant 1e-3, batches of 8, the mean of the
    weights over all steps, the first ones included, max pooling, dropout of 0.1 on the tokens, and
    values as they are (the classification benchmarks normalise nothing more than the archive did).
    Steps: 200, or 600 where the data hold more than 100,000 values, as `Embedder` chooses; a run
    takes its budget as any other does.

    Ours: missing values are filled in by straight lines within each crop (`missing="step"` in the
    encoder's architecture is the released code's way: steps with one of them enter as 0); biases
    are exempt from weight decay; series shorter than the longest end in padding that is no step at
    all, neither asked nor a negative, where the released code moves them to the middle and
    contrasts their padding like the rest.
    """

    question: ClassVar[str] = "Which moment is this, and of which series?"
    citation: ClassVar[str] = (
        "Yue et al., TS2Vec: Towards Universal Representation of Time Series, AAAI 2022"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    Config: ClassVar[type] = TS2VecConfig
    whole: ClassVar[int] = 3000
    at_once: ClassVar[int] = 2**15
    apart: ClassVar[bool] = True
    recipe: ClassVar[dict[str, Any]] = {
        "batch": 8,
        "encoder": ["dilated"],
        "architecture": {
            "series": {"normalise": "none", "pool": "max", "missing": "fill", "dropout": 0.1}
        },
        "optimiser": {"lr": 1e-3, "schedule": "constant", "warmup": 0.0, "mean": True},
    }

    config: TS2VecConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: TS2VecConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        length = clips["series"].length
        self.coarse = False
        """Whether similarities are taken in bfloat16: as the encoder last computed."""
        # As many as the first level with temporal contrast needs, or all of a shorter series.
        self.shortest = min(2 ** (config.temporal_unit + 1), length)

    def needs(self, stream: str) -> int:
        """Two steps: with one there is no other moment."""
        return span(2, self.clips[stream].stride)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Makes sure of an encoder whose tokens are time steps."""
        if not isinstance(encoders["series"], Dilated):
            raise ConfigError(
                f"ts2vec contrasts single time steps, and {type(encoders['series']).__name__} "
                "gives no token for each; use encoder dilated."
            )

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window of a long series, or the whole of a shorter one and padding after it."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        return {"series": Draw(clip[None], {})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """The tokens of the shared steps in both crops, and which of them are no padding."""
        samples, present = batch["series"].flat()
        encoder = encoders["series"]
        self.coarse = torch.is_autocast_enabled(samples.device.type)
        assert isinstance(encoder, Dilated)
        (a1, a2, b1, b2), low, high = self.crop(samples.shape[1], batch.common)
        offsets = torch.randint(
            low, high + 1, (len(batch), 1), generator=batch.generator, device=samples.device
        )
        # Both crops of a series follow each other, so that every layer is computed once.
        shared, whole = b1 - a2, samples.shape[1]
        begin, stop = np.array([a1, a2]), np.array([b1, b2])
        step = np.arange(self.rounded(max(b1 - a1, b2 - a2)))
        place = ((offsets.cpu().numpy() + begin)[:, :, None] + step).clip(max=whole - 1)
        place += whole * np.arange(len(batch))[:, None, None]
        rows = torch.from_numpy(place.reshape(-1)).to(samples.device)
        within = np.tile(step < (stop - begin)[:, None], (len(batch), 1))
        there = present.flatten()[rows].view(within.shape)
        there &= torch.from_numpy(within).to(samples.device)
        views = samples.flatten(0, 1)[rows].unflatten(0, within.shape)
        hidden = self.hide(encoder, views, there, batch.generator)
        step = np.arange(self.rounded(shared))
        only = np.where(step < shared, step + (a2 - begin)[:, None], NOTHING)
        kept = torch.from_numpy(np.tile(only, (len(batch), 1))).to(samples.device)
        tokens = encoder.trunk(hidden, there, kept)
        pairs = tokens.unflatten(0, (len(batch), 2))[:, :, :shared]
        return {"pairs": pairs, "present": there[1::2, :shared]}

    def rounded(self, steps: int) -> int:
        """The length at which a crop of so many steps is computed: padded to one of a few, since
        the processor's kernels are made anew for each length they meet."""
        whole = self.clips["series"].length
        grain = max(1, -(-whole // LENGTHS))
        return min(whole, -(-steps // grain) * grain)

    def hide(
        self, encoder: Dilated, view: Tensor, there: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The stem's output with hidden steps at 0 (Section 3.2, timestamp masking)."""
        hidden = encoder.stem(encoder.prepare(view, there))
        kept = torch.rand(view.shape[:2], generator=generator, device=view.device)
        return hidden * (kept >= self.config.hide)[:, None, :]

    def crop(
        self, length: int, common: torch.Generator
    ) -> tuple[tuple[int, int, int, int], int, int]:
        """a1 <= a2 < b1 <= b2 of Section 3.2, and the least and greatest offset that fit.

        Uniform, in the order of the released code: the length of the overlap, its start, then how
        far each crop goes beyond it.
        """

        def below(bound: int) -> int:
            return int(torch.randint(bound, (1,), generator=common))

        shared = self.shortest + below(length - self.shortest + 1)
        a2 = below(length - shared + 1)
        b1 = a2 + shared
        a1 = below(a2 + 1)
        b2 = b1 + below(length - b1 + 1)
        return (a1, a2, b1, b2), -a1, length - b2

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Algorithm 1 over the shared steps."""
        pairs = features["pairs"]
        there = None if bool(features["present"].all()) else features["present"]
        loss = hierarchical(
            pairs,
            there,
            self.config.instance,
            self.config.temporal_unit,
            coarse=self.coarse,
        )
        with torch.no_grad():
            most = _most(pairs, there)
            answers = {"series": _which(*most.unbind(1))} if len(most) > 1 else {}
        return Outcome(loss, answers, {}, most.amax(1))


def _most(pairs: Tensor, there: Bool[Tensor, "n time"] | None) -> Float[Tensor, "some 2 dim"]:
    """Maximum over the steps that are there, of the series that have any."""
    if there is None:
        return pairs.amax(2)
    pooled = pairs.masked_fill(~there[:, None, :, None], -torch.inf).amax(2)
    return pooled[there.any(1)]


def _which(first: Float[Tensor, "n dim"], second: Float[Tensor, "n dim"]) -> Answer:
    """How often a series' crop is most like, by cosine, the other crop of the same series."""
    alike = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    own: Int64[Tensor, "n"] = torch.arange(len(first), device=first.device)
    return Answer((alike.argmax(1) == own).float().mean(), 1 / len(first))
