"""TS-TCC: what comes next in another view of a series, and which context is of the same series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.augment.audio import normal
from mainspring.augment.segments import permute_segments
from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.units import statistics
from mainspring.errors import ConfigError, unknown
from mainspring.losses.contrast import info_nce
from mainspring.pretexts.heads import projection_head
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

Series = Float[Tensor, "n time channel"]
Present = Bool[Tensor, "n time"]

SCALES = ("step", "channel")


@dataclass(frozen=True)
class TsTccConfig:
    """Settings of TS-TCC.

    Attributes:
        scaling_mean: The weak view is the series times N(scaling_mean, scaling).
        scaling: Its standard deviation.
        scaled: "step": one factor for every time step, all channels alike, as in the authors' code;
            "channel": one for every channel, as scaling is elsewhere. An encoder that normalises
            each recording sees of the latter no more than a change of sign.
        segments: The strong view is cut into up to so many segments, put in another order.
        jitter: And gets noise, its standard deviation this many times that of the channel.
        grid: Tokens that an encoder makes of a recording are averaged into so many, of equal
            length; those of an encoder with fewer stay.
        steps: K, how many of these tokens ahead are foretold.
        hidden: Width of the context (a multiple of `heads`).
        depth: Layers of the transformer that makes the context.
        heads: Its heads.
        feedforward: Width of its inner layers.
        projection: Width of the space in which contexts are compared.
        temperature: Of that comparison.
        temporal: Weight of foretelling, lambda_1.
        contextual: Weight of comparing contexts, lambda_2.
    """

    scaling_mean: float = 2.0
    scaling: float = 1.1
    scaled: str = "step"
    segments: int = 8
    jitter: float = 0.8
    grid: int = 18
    steps: int = 6
    hidden: int = 100
    depth: int = 4
    heads: int = 4
    feedforward: int = 64
    projection: int = 32
    temperature: float = 0.2
    temporal: float = 1.0
    contextual: float = 0.7


class Foretold(NamedTuple):
    """How well the future was told from that of other recordings."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    chance: float
    asked: int


class TsTcc(Pretext):
    """What comes next in the other view? Two views are made of a series, a weak one (its size
    changes) and a strong one (its segments change places, noise is added). From the past of each,
    a transformer makes a context; from that, one linear map for each k foretells the token k
    ahead in the *other* view, told from those of other recordings (temporal contrasting); and
    the two contexts of a series must find each other among those of others (contextual
    contrasting; Eldele et al., IJCAI 2021, Section 3.2 and 3.3).

    From the paper and its code for human activity (HAR) are the views, N(2, 1.1), up to 8
    segments and jitter of 0.8; K = 6 of 18 tokens; the transformer of 4 layers, 4 heads and inner
    width 64 over a context of 100, without positions, read at a token of its own; tokens of unit
    length, without which training moves all of them the same way, far beyond what tells them apart;
    weights 1 and 0.7; temperature 0.2; batches of 128 and a learning rate of 3e-4.

    What differs. Views are made anew for every batch (the code makes them once, when data are
    loaded), and permutation moves whole time steps (in the code every channel becomes a copy of the
    first). Both work in units of each channel's own mean and standard deviation, so raw units do.
    Tokens of encoders that keep every step, as `dilated` does, are averaged into 18 a recording,
    which a stack of convolutions with pooling makes of a HAR window; so a third of any recording
    is foretold. Where the past ends is the same for both directions (the code draws it twice).
    Negatives are the futures of other recordings, as in the paper's Eq. 1 and 2 (the code's softmax
    runs over the predictions instead). The projection has no batch normalisation, so that no
    recording sees another before the loss, and the transformer no dropout (the code: 0.1). Adam's
    other settings are the library's.

    Where the past ends is drawn once a batch, as in the code. Ends of their own would answer both
    questions: a network that counts its tokens tells recordings apart by where they were cut, even
    constant ones (`future` 0.15, chance 0.025).

    `future` is the share of predictions that are nearer to the true token than to that of any
    other recording, over all k and both directions; `context` the share of contexts nearest to
    their own series' other one. A tie is wrong. White noise leaves both at chance (150
    steps of 32); how long a recording is tells it apart too (constant ones of 20 to 64 steps:
    `context` 0.42, chance 0.013).
    """

    question: ClassVar[str] = "What comes next in the other view, and which context belongs to it?"
    citation: ClassVar[str] = (
        "Eldele et al., Time-Series Representation Learning via Temporal and Contextual "
        "Contrasting, IJCAI 2021"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 3000
    apart: ClassVar[bool] = True
    recipe: ClassVar[dict[str, Any]] = {"batch": 128, "optimiser": {"lr": 3e-4}}

    Config: ClassVar[type] = TsTccConfig

    config: TsTccConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: TsTccConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        _check(config)
        dim = self.dims["series"]
        self.enter = nn.Linear(dim, config.hidden)
        self.reader = nn.Parameter(torch.randn(config.hidden))
        layer = nn.TransformerEncoderLayer(
            config.hidden,
            config.heads,
            config.feedforward,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.foretell = nn.Linear(config.hidden, config.steps * dim)
        self.project = projection_head(
            "mlp", config.hidden, config.projection, 2 * config.projection
        )

    def needs(self, stream: str) -> int:
        """Two samples; what is shorter than a clip is padded."""
        return span(2, self.clips[stream].stride)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """The whole recording, or a window of it; a short one ends in padding."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        return {"series": Draw(clip[None], {})}

    def views(
        self, samples: Series, present: Present, generator: torch.Generator
    ) -> tuple[Series, Series]:
        """A weak and a strong view of each series, in its own units; what is missing stays so."""
        config, (n, time, channels) = self.config, samples.shape
        observed = ~samples.isnan() & present[:, :, None]
        mean, scale = statistics(torch.where(observed, samples, 0.0).float(), observed)
        values = torch.where(observed, (samples - mean) / scale, torch.nan)
        size = (n, time, 1) if config.scaled == "step" else (n, 1, channels)
        weak = values * (config.scaling_mean + config.scaling * normal(size, values, generator))
        moved = permute_segments(values, present, config.segments, generator)
        strong = moved + config.jitter * normal((n, time, channels), values, generator)
        return mean + scale * weak, mean + scale * strong

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Of both views the context up to the cut, and the tokens that follow it."""
        encoder = encoders["series"]
        samples, present = batch["series"].flat()
        twice = torch.cat(self.views(samples, present, batch.generator))
        tokens = encoder.tokens(twice, present.repeat(2, 1))
        if tokens.shape[-1] != self.dims["series"]:
            raise ConfigError(
                f"ts_tcc reads tokens as wide as the embedding, and {type(encoder).__name__} makes "
                f"tokens of {tokens.shape[-1]} numbers and embeddings of {self.dims['series']}; "
                'set architecture.series.pool to "mean".'
            )
        flat = tokens.flatten(1, -2).float()
        place = (torch.arange(flat.shape[1], device=flat.device) + 0.5) / flat.shape[1]
        there = present[:, (place * present.shape[1]).long()].repeat(2, 1)
        grid, count = averaged(flat, there, self.config.grid)
        grid = F.normalize(grid, dim=-1)

        room = (count - self.config.steps).clamp(min=1)
        cut = (float(torch.rand(1, generator=batch.common)) * room).long()
        ahead = cut[:, None] + torch.arange(1, self.config.steps + 1, device=cut.device)
        row = torch.arange(len(grid), device=cut.device)[:, None]
        context = self.context(grid, cut)
        return {
            "context": _side_by_side(context),
            "future": _side_by_side(grid[row, ahead.clamp(max=grid.shape[1] - 1)]),
            "there": _side_by_side(ahead < count[:, None])[:, 0],
            "projection": _side_by_side(self.project(context)),
            "embedding": encoder.embed(tokens[: len(samples)], present),
        }

    def context(
        self, grid: Float[Tensor, "n token dim"], cut: Int64[Tensor, "n"]
    ) -> Float[Tensor, "n hidden"]:
        """What the transformer makes of the tokens up to the cut, that one included."""
        reader = self.reader.to(grid.dtype).expand(len(grid), 1, -1)
        sequence = torch.cat([reader, self.enter(grid)], 1)
        step = torch.arange(-1, grid.shape[1], device=grid.device)
        return self.transformer(sequence, src_key_padding_mask=step > cut[:, None])[:, 0].float()

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """Temporal contrasting in both directions, and contextual contrasting."""
        context, there = features["context"], features["there"]
        dim = features["future"].shape[-1]
        foretold = self.foretell(context).unflatten(-1, (self.config.steps, dim))
        future = tell_the_future(foretold, features["future"].flip(1), there, batch.recording)

        ours, theirs = features["projection"].unbind(1)
        every = torch.cat([ours, theirs])
        recording = batch.recording.repeat(2)
        who = info_nce(
            every,
            torch.cat([theirs, ours]),
            every,
            recording[:, None] != recording,
            self.config.temperature,
        )
        answers = {"context": Answer(who.accuracy.detach(), who.chance)}
        if future.asked:
            answers["future"] = Answer(future.accuracy, future.chance)
        return Outcome(
            loss=self.config.temporal * future.loss + self.config.contextual * who.loss,
            answers=answers,
            metrics={"temporal": future.loss.detach(), "contextual": who.loss.detach()},
            embedding=features["embedding"].detach(),
        )


def averaged(
    tokens: Float[Tensor, "n token dim"], there: Bool[Tensor, "n token"], most: int
) -> tuple[Float[Tensor, "n stretch dim"], Int64[Tensor, "n"]]:
    """Means of the tokens that are there over stretches of (nearly) equal length.

    Args:
        tokens: Tokens in order.
        there: False at padding.
        most: Stretches a row; a row with fewer tokens has one for each.

    Returns:
        The means, 0 where there is no stretch, and each row's number of stretches.
    """
    length = there.sum(1)
    count = length.clamp(max=most)
    rank = there.cumsum(1) - 1
    stretch = (rank * count[:, None] // length[:, None].clamp(min=1)).clamp(min=0)
    every = torch.arange(min(most, tokens.shape[1]), device=tokens.device)
    belongs = ((stretch[:, :, None] == every) & there[:, :, None]).to(tokens.dtype)
    sums = torch.bmm(belongs.transpose(1, 2), tokens)
    return sums / belongs.sum(1).clamp(min=1)[:, :, None], count


def tell_the_future(
    foretold: Float[Tensor, "batch view step dim"],
    true: Float[Tensor, "batch view step dim"],
    there: Bool[Tensor, "batch step"],
    recording: Int64[Tensor, "batch"],
) -> Foretold:
    """Eq. 1 and 2 of TS-TCC, added: each prediction with its token against the tokens, as many
    steps ahead, of the other recordings. One product of matrices gives all logits.

    Args:
        foretold: Predictions.
        true: The tokens foretold.
        there: Which of them a recording has; others are not asked for and no negatives.
        recording: Which recording each row is of.
    """
    rows = (foretold.permute(1, 2, 0, 3), true.permute(1, 2, 3, 0))
    logits = torch.matmul(*rows)
    other = (recording[:, None] != recording) & there.T[:, None, :]
    right = logits.diagonal(dim1=-2, dim2=-1)
    wrong = logits.masked_fill(~other, -torch.inf)
    surprise = torch.cat([right[..., None], wrong], -1).logsumexp(-1) - right
    rivals = other.sum(-1).expand_as(right)
    asked = there.T & (rivals > 0)
    count = int(asked.sum())

    def mean(values: Tensor) -> Float[Tensor, ""]:
        return torch.where(asked, values, 0.0).sum() / max(1, count)

    beaten = (right[..., None] > wrong).all(-1).detach()
    return Foretold(
        loss=2 * mean(surprise),
        accuracy=mean(beaten.float()),
        chance=float(mean(1 / (1 + rivals))),
        asked=count,
    )


def _side_by_side(views: Tensor) -> Tensor:
    """From all weak views and then all strong ones to (batch, view, ...)."""
    return views.unflatten(0, (2, -1)).transpose(0, 1)


def _check(config: TsTccConfig) -> None:
    """Raises ConfigError for what is out of range."""
    if config.scaled not in SCALES:
        raise unknown("way to scale", config.scaled, SCALES)
    least = {
        "segments": 1,
        "grid": 2,
        "steps": 1,
        "hidden": 1,
        "depth": 1,
        "heads": 1,
        "feedforward": 1,
        "projection": 1,
        "scaling": 0,
        "jitter": 0,
        "temporal": 0,
        "contextual": 0,
    }
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must be at least {bound}.")
    if config.temperature <= 0:
        raise ConfigError(f"temperature is {config.temperature}; it must be positive.")
    if config.hidden % config.heads:
        raise ConfigError(
            f"hidden is {config.hidden}, which {config.heads} heads cannot share; use a multiple."
        )
