"""T-Loss: a stretch of a time series belongs to the stretch around it, not to another series."""

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
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

CROPS = ("anchor", "positive", "negative")
Vectors = Float[Tensor, "batch dim"]


@dataclass(frozen=True)
class TLossConfig:
    """Settings of T-Loss.

    Attributes:
        negatives: K, stretches of other recordings that each anchor is compared with; fewer where
            the batch holds fewer others.
        penalty: Weight of the negatives' mean. The paper's Eq. 1 has their sum, which is
            penalty = negatives; its authors' code has their mean.
        shortest: Least number of samples in a stretch (paper: 1).
    """

    negatives: int = 10
    penalty: float = 1.0
    shortest: int = 1


class TLoss(Pretext):
    """Does this stretch lie within that one? Of each series an anchor is drawn, a stretch of any
    length, and within it a positive, another stretch; negatives are stretches of other series.
    The loss is that of word2vec on their dot products (Franceschi et al., NeurIPS 2019, Eq. 1
    and Algorithm 1), -log s(a . p) - penalty / K * sum over negatives of log s(-a . n).

    From the paper and its code are the lengths (positive ~ U{1..T}, anchor ~ U{positive..T},
    negative ~ U{1..T}, all places alike), K = 10, batches of 10, AdamW's forerunner Adam at 1e-3
    without decay or schedule, and the encoder: causal dilated convolutions, 10 blocks of 40
    channels, maximum over time, 320 numbers. Its last linear map is not there: the last block
    has 320 channels itself; and the blocks are those of `dilated`, without weight normalisation
    and with GELUs for leaky ReLUs.

    Three things are ours. The paper draws negatives from the whole data set; here each recording
    of the batch lends one stretch, drawn with it, and each anchor meets K of the others', drawn
    without repetition. With 10 recordings that is all 9 of them, whose mean has the expectation
    of the paper's, with less noise. Lengths differ within a batch, as in Algorithm 1 (the code
    shares them so that it needs no padding); the stretches are padded and encoded all in one
    call. Stretches are cut out of the normalised recording, not normalised one by one: the
    encoder normalises whole recordings later too, and one of few samples would have no scale.

    A stretch in which nothing was observed is asked nothing. `nearest` is the share of anchors
    whose positive scores higher than every negative; a tie is wrong. A positive is a part of its
    anchor, so samples themselves tell of it: on white noise it came to 0.31 (chance 0.09, 120
    steps of 32).
    """

    question: ClassVar[str] = "Does this stretch lie within that one, or in another recording?"
    citation: ClassVar[str] = (
        "Franceschi et al., Unsupervised Scalable Representation Learning for Multivariate Time "
        "Series, NeurIPS 2019"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 3000
    apart: ClassVar[bool] = True
    recipe: ClassVar[dict[str, Any]] = {
        "encoder": ["dilated"],
        "batch": 10,
        "optimiser": {"lr": 1e-3, "weight_decay": 0.0, "warmup": 0.0, "schedule": "constant"},
        "architecture": {
            "series": {"causal": True, "width": 40, "depth": 10, "dim": 320, "pool": "max"}
        },
    }

    Config: ClassVar[type] = TLossConfig

    config: TLossConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: TLossConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if config.negatives < 1:
            raise ConfigError(f"negatives is {config.negatives}; it must be at least 1.")
        if config.penalty < 0:
            raise ConfigError(f"penalty is {config.penalty}; it must not be negative.")
        length = self.clips["series"].length
        if not 1 <= config.shortest <= length:
            raise ConfigError(
                f"shortest is {config.shortest}; it must lie between 1 and the {length} samples "
                "of a clip."
            )

    def needs(self, stream: str) -> int:
        """Two samples and the shortest stretch; what is shorter than a clip is padded."""
        return span(max(2, self.config.shortest), self.clips[stream].stride)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Makes sure that stretches can be cut between normalising and encoding.

        Raises:
            ConfigError: If the encoder has no parts.
        """
        encoder = encoders["series"]
        for step in ("prepare", "stem", "trunk"):
            if not callable(getattr(encoder, step, None)):
                raise ConfigError(
                    f"t_loss cuts stretches out of the normalised series, and "
                    f"{type(encoder).__name__} has no `{step}`; use an encoder that has, such as "
                    "dilated."
                )

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """The whole recording, or a window of it, and where in it the stretches lie.

        The factors are the first sample of each stretch and its length, such as `anchor_start`
        and `anchor_length`.
        """
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        there = int((clip != NOTHING).sum())
        shortest = self.config.shortest

        positive = int(rng.integers(shortest, there + 1))
        anchor = int(rng.integers(positive, there + 1))
        negative = int(rng.integers(shortest, there + 1))
        begin = int(rng.integers(there - anchor + 1))
        starts = {
            "anchor": begin,
            "positive": begin + int(rng.integers(anchor - positive + 1)),
            "negative": int(rng.integers(there - negative + 1)),
        }
        lengths = {"anchor": anchor, "positive": positive, "negative": negative}
        factors = {f"{crop}_start": np.array([starts[crop]]) for crop in CROPS}
        factors |= {f"{crop}_length": np.array([lengths[crop]]) for crop in CROPS}
        return {"series": Draw(clip[None], factors)}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """The three stretches of each recording as vectors, in one call of the encoder."""
        encoder: Any = encoders["series"]  # with `stem` and `trunk`, as `attach` made sure
        samples, present = batch["series"].flat()
        factors = batch["series"].factors
        starts = torch.cat([factors[f"{crop}_start"] for crop in CROPS], 1)
        lengths = torch.cat([factors[f"{crop}_length"] for crop in CROPS], 1)
        observed = ~samples.isnan().all(-1) & present
        prepared = encoder.prepare(samples, present)
        if prepared.dim() != 3 or prepared.shape[:2] != samples.shape[:2]:
            raise ConfigError(
                f"t_loss cuts stretches of single steps, and {type(encoder).__name__} makes of "
                f"{samples.shape[1]} steps parts of shape {tuple(prepared.shape[1:])}; use an "
                "encoder that keeps the steps, such as dilated."
            )
        prepared, there = crops(prepared, starts, lengths)
        seen, _ = crops(observed[:, :, None], starts, lengths)
        tokens = encoder.trunk(encoder.stem(prepared.flatten(0, 1)), there.flatten(0, 1))
        vectors = encoder.embed(tokens, there.flatten(0, 1)).unflatten(0, (-1, len(CROPS)))
        stretches = dict(zip(CROPS, vectors.unbind(1), strict=True))
        return {**stretches, "known": seen.squeeze(-1).any(-1)}

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The logistic loss of each anchor with its positive and with other recordings."""
        anchor, positive, negative = (features[crop] for crop in CROPS)
        known = dict(zip(CROPS, features["known"].unbind(1), strict=True))
        others = (batch.recording[:, None] != batch.recording) & known["negative"]
        chosen = some_of(others, self.config.negatives, batch.generator)
        asked = known["anchor"] & known["positive"]
        right, wrong = scores(anchor, positive, negative)
        loss = logistic(right, wrong, chosen, self.config.penalty)

        compared = asked & chosen.any(1)
        beaten = (right[:, None] > wrong.masked_fill(~chosen, -torch.inf)).all(1)
        chance = 1 / (1 + chosen.sum(1))
        answers = {}
        if count := int(compared.sum()):
            accuracy = (beaten & compared).sum() / count
            answers["nearest"] = Answer(accuracy, float((chance * compared).sum() / count))
        return Outcome(
            loss=(loss * asked).sum() / asked.sum().clamp(min=1),
            answers=answers,
            embedding=anchor.detach(),
        )


def crops(
    series: Tensor,
    starts: Int64[Tensor, "batch crop"],
    lengths: Int64[Tensor, "batch crop"],
) -> tuple[Tensor, Bool[Tensor, "batch crop longest"]]:
    """Stretches of each series side by side, as long as the longest, 0 beyond their ends.

    Args:
        series: (batch, time, channel).
        starts: First step of each stretch.
        lengths: Steps in it.

    Returns:
        (batch, crop, longest, channel), and what of it is no padding.
    """
    step = torch.arange(int(lengths.max()), device=lengths.device)
    there = step < lengths[:, :, None]
    place = (starts[:, :, None] + step).clamp(max=series.shape[1] - 1)
    row = torch.arange(len(series), device=lengths.device)[:, None, None]
    return series[row, place] * there[..., None], there


def some_of(
    allowed: Bool[Tensor, "batch key"], count: int, generator: torch.Generator
) -> Bool[Tensor, "batch key"]:
    """`count` of the allowed keys of each row, drawn uniformly without repetition; all of them
    where there are no more."""
    luck = torch.rand(allowed.shape, generator=generator, device=generator.device)
    luck = luck.to(allowed.device).masked_fill(~allowed, 2.0)
    rank = luck.argsort(1).argsort(1)
    return allowed & (rank < count)


def scores(
    anchor: Vectors, positive: Vectors, negative: Vectors
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch key"]]:
    """Dot products of each anchor with its positive and with the negatives of all recordings.

    Both come of one matrix product, so that they round alike and equal vectors tie.
    """
    every = anchor @ torch.cat([positive, negative]).T
    return every[:, : len(anchor)].diagonal(), every[:, len(anchor) :]


def logistic(
    right: Float[Tensor, "batch"],
    wrong: Float[Tensor, "batch key"],
    chosen: Bool[Tensor, "batch key"],
    penalty: float,
) -> Float[Tensor, "batch"]:
    """Eq. 1 of Franceschi et al. with the mean over the chosen negatives, for each anchor.

    Args:
        right: Scores of the positives.
        wrong: Scores of the negatives.
        chosen: Which negatives each anchor meets; where there are none their term is 0.
        penalty: Weight of the negatives' mean.
    """
    apart = (F.softplus(wrong) * chosen).sum(1) / chosen.sum(1).clamp(min=1)
    return F.softplus(-right) + penalty * apart
