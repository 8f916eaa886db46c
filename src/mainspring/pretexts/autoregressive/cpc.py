"""Contrastive predictive coding of time series: tell the latents to come from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.cpc_series import by_hop
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

TIE = 1e-5
"""Scores nearer than this, relatively, are equal but for rounding: right and wrong ones come of
sums in different orders, and a collapsed encoder must not win by their last digits."""


@dataclass(frozen=True)
class CpcConfig:
    """Settings of contrastive predictive coding.

    Attributes:
        steps: K, how many latents ahead are asked for (paper: 12 for sound).
        negatives: N, latents that each true one must be told from. Fewer where there are fewer.
        mix: Share of the negatives that come from the same series; the others come from the other
            recordings of the batch. From the same series they ask when, from others also who.
    """

    steps: int = 12
    negatives: int = 128
    mix: float = 0.5


class Negatives(NamedTuple):
    """What each recording's true latents must be told from.

    Attributes:
        latents: For each recording the negatives that all its questions share.
        place: Token each one is, if it is of the same recording's clip; -1 if of another's.
        there: False where there were not enough to draw.
    """

    latents: Float[Tensor, "batch negative width"]
    place: Int64[Tensor, "batch negative"]
    there: Bool[Tensor, "batch negative"]


class Cpc(Pretext):
    """Which of these comes k steps from now? From the context c_t of a series up to step t, one
    linear map for each k foretells the latent z_{t+k}; it is told from N others by the score
    z^T W_k c (van den Oord et al. 2018, Eq. 3 and 4), for k = 1 .. K.

    Encoders must look back only, and offer latents (`stem`) and contexts (`trunk`): `cpc_series`,
    the paper's two networks made for series, or `dilated` with causal=True. The latents of
    `dilated` are its input projection, linear in the values of one step, so that it is asked
    for values rather than for what its convolutions make of them.

    From the paper are K = 12, the linear maps without bias, the score, and negatives through which
    the gradient flows. Its learning rate of 2e-4 belongs to far longer training; the library's
    default is kept (80 steps on ECG200 at 1e-3 told the next latent in 23 % of cases, at 2e-4 in
    12 %). It leaves open how many negatives there are; 128 is that of CPC_audio (Rivière et al.
    2020). Ours are: half the negatives from the same series (the paper compares such choices for
    sound in Table 2); scores divided by the square root of the width, which W_k could do as well
    and which starts the softmax soft; the loss as a mean over k of means over t, so that it does
    not grow with K; clips of up to 512 steps, which make the paper's 128 latents.

    A negative is never the true latent itself: where a drawn one is at the place asked for, it
    takes no part in that question. All questions of a recording share its negatives, which are
    drawn anew each step, uniformly and without repetition; one matrix product then gives all
    logits. Only latents with an observed value among their own steps are asked for or serve as
    negatives, and nothing is asked before the first of them. Mean and scale of the whole clip
    are taken out of it by the encoder's normalisation, and they know the future a little.

    `step_k` is the share of questions k steps ahead in which the true latent scores higher than
    every negative; a tie is wrong. Latents overlap, as the paper's do: with `cpc_series` the next
    one shares 8 of its 12 steps with what the context has seen and the one after it 4, so `step_1`
    and `step_2` exceed chance even on white noise (0.58 and 0.12 after 800 steps of 16, chance
    0.01). Foresight is what `step_3` and later ones have above chance.
    """

    question: ClassVar[str] = "Which of these latents comes k steps from now?"
    citation: ClassVar[str] = (
        "van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 512
    recipe: ClassVar[dict[str, Any]] = {"encoder": ["cpc_series"]}

    Config: ClassVar[type] = CpcConfig

    config: CpcConfig

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: CpcConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if min(config.steps, config.negatives) < 1:
            raise ConfigError(
                f"steps is {config.steps} and negatives {config.negatives}; both must be at "
                "least 1."
            )
        if not 0 <= config.mix <= 1:
            raise ConfigError(f"mix is {config.mix}; it must lie between 0 and 1.")

    def needs(self, stream: str) -> int:
        """Two samples; what is shorter than a clip is padded."""
        return span(2, self.clips[stream].stride)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Builds the K maps from a context to a latent.

        Raises:
            ConfigError: If the encoder sees the future or has no latents.
        """
        encoder = encoders["series"]
        looks_back = getattr(encoder, "causal", encoder.settings.get("causal", False))
        parts = ("prepare", "stem", "trunk")
        if not looks_back or not all(callable(getattr(encoder, part, None)) for part in parts):
            raise ConfigError(
                f"cpc needs an encoder that looks back only and has latents, and this "
                f"{type(encoder).__name__} is none. Use encoder cpc_series, or dilated with "
                "causal = true in architecture.series."
            )
        width = int(encoder.settings["width"])
        self.foretell = nn.Linear(self.dims["series"], self.config.steps * width, bias=False)

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """The whole recording, or a window of it; a short one ends in padding."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        return {"series": Draw(clip[None], {})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Latents, contexts, and which latents saw anything."""
        encoder: Any = encoders["series"]  # with `stem` and `trunk`, as `attach` made sure
        samples, present = batch["series"].flat()
        hidden = encoder.stem(encoder.prepare(samples, present))
        context = encoder.trunk(hidden, present)
        observed = ~samples.isnan().all(-1) & present
        return {
            "latents": hidden.transpose(1, 2),
            "context": context,
            "known": by_hop(observed, getattr(encoder, "hop", 1)),
            "embedding": encoder.embed(context, present),
        }

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """InfoNCE over K steps."""
        latents, known = features["latents"], features["known"]
        negatives = self.negatives(latents, known, batch.recording, batch.generator)
        right, wrong, asked = self.scores(latents, features["context"], known, negatives)
        others = (wrong > -torch.inf).sum(-1)
        asked = asked & (others > 0)
        surprise = torch.cat([right[..., None], wrong], -1).logsumexp(-1) - right
        rounding = TIE * (1 + right.abs())
        beaten = ((right - rounding)[..., None] > wrong).all(-1)
        count = asked.sum((0, 1))

        def by_step(values: Tensor) -> Float[Tensor, "step"]:
            return torch.where(asked, values, 0.0).sum((0, 1)) / count.clamp(min=1)

        loss = by_step(surprise).sum() / (count > 0).sum().clamp(min=1)
        accuracy, luck = by_step(beaten.detach().float()), by_step(1 / (1 + others)).tolist()
        answers = {
            f"step_{k + 1}": Answer(accuracy[k], luck[k])
            for k, questions in enumerate(count.tolist())
            if questions
        }
        return Outcome(loss=loss, answers=answers, embedding=features["embedding"].detach())

    def negatives(
        self,
        latents: Float[Tensor, "batch token width"],
        known: Bool[Tensor, "batch token"],
        recording: Int64[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Negatives:
        """Draws for each recording what all its questions share."""
        batch, tokens, _ = latents.shape
        own = round(self.config.mix * self.config.negatives)
        within = distinct(known, own, generator)
        foreign = (recording[:, None] != recording)[:, :, None] & known
        across = distinct(foreign.flatten(1), self.config.negatives - own, generator)
        row = torch.arange(batch, device=latents.device)[:, None] * tokens
        flat = torch.cat([row + within.place, across.place], 1)
        place = torch.cat([within.place, torch.full_like(across.place, -1)], 1)
        there = torch.cat([within.there, across.there], 1)
        vectors = latents.flatten(0, 1).index_select(0, flat.flatten())
        return Negatives(vectors.unflatten(0, (batch, -1)), place, there)

    def scores(
        self,
        latents: Float[Tensor, "batch token width"],
        context: Float[Tensor, "batch token dim"],
        known: Bool[Tensor, "batch token"],
        negatives: Negatives,
    ) -> tuple[
        Float[Tensor, "batch token step"],
        Float[Tensor, "batch token step negative"],
        Bool[Tensor, "batch token step"],
    ]:
        """Scores of true latents and of negatives, -inf where one takes no part, and which
        questions can be asked."""
        tokens, width = latents.shape[1:]
        steps = self.config.steps
        foretold = self.foretell(context / width**0.5).unflatten(-1, (steps, width))
        true = F.pad(latents, (0, 0, 0, steps))[:, 1:].unfold(1, steps, 1).transpose(2, 3)
        right = (foretold * true).sum(-1)
        wrong = torch.bmm(foretold.flatten(1, 2), negatives.latents.transpose(1, 2))
        wrong = wrong.unflatten(1, (tokens, steps))
        now = torch.arange(tokens, device=latents.device)[:, None]
        then = now + torch.arange(1, steps + 1, device=latents.device)
        other = negatives.place[:, None, None, :] != then[None, :, :, None]
        wrong = wrong.masked_fill(~(other & negatives.there[:, None, None, :]), -torch.inf)
        begun = known.cumsum(1) > 0
        asked = F.pad(known, (0, steps))[:, 1:].unfold(1, steps, 1) & begun[:, :, None]
        return right, wrong, asked


class Chosen(NamedTuple):
    """Places drawn in each row; False in `there` where a row had too few."""

    place: Int64[Tensor, "batch some"]
    there: Bool[Tensor, "batch some"]


def distinct(
    allowed: Bool[Tensor, "batch place"], count: int, generator: torch.Generator
) -> Chosen:
    """`count` allowed places of each row (no more than it has), uniform, without repetition."""
    luck = torch.rand(allowed.shape, generator=generator, device=generator.device)
    luck = luck.to(allowed.device).masked_fill(~allowed, -1.0)
    best = luck.topk(min(count, allowed.shape[1]), dim=1)
    return Chosen(best.indices, best.values >= 0)
