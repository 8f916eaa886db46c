"""Contrast of clips with bags: one clip of a recording against several sentences about it.

A caption is spoken some seconds before or after what it tells of, so which of the sentences around
a clip belongs to it is not known. Three losses over the same comparison (`compare`):

    pair_nce   every sentence is right by itself: CLIP (Radford et al., ICML 2021) and, with one
               sentence, Eq. 1 of ImageBind (Girdhar et al., CVPR 2023) both ways
    mil_nce    some sentence of the bag is right: Eq. 1 of Miech et al., "End-to-end learning of
               visual representations from uncurated instructional videos", CVPR 2020
    cpd        each pair is told from noise: the noise contrastive estimation of Li and Wang,
               "Learning spatiotemporal features via video and text pair discrimination", 2020

What is compared with a bag may be any stream, and a bag of one is the usual pair of two streams.
Probabilities never leave log space; nothing is rounded by autocast.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

LARGEST_SCALE = 100.0
"""CLIP lets one over the temperature grow no further (Radford et al., Section 2.5)."""


class Mined(NamedTuple):
    """Vectors of other recordings to tell a recording from, beyond those of the batch.

    Attributes:
        first: What its sentences are told from.
        second: What its clip is told from.
        allowed: Which of them there are.
    """

    first: Float[Tensor, "n h dim"]
    second: Float[Tensor, "n h dim"]
    allowed: Bool[Tensor, "n h"]


class Scores(NamedTuple):
    """Similarities over the temperature.

    Attributes:
        right: Of each clip and its own sentences.
        there: Which of those pairs there are.
        from_first: Of each clip and the sentences of other recordings; -inf where none is.
        from_second: Of each sentence and the clips of other recordings; -inf where none is.
        mined: So many of the last columns of both are no part of the batch.
    """

    right: Float[Tensor, "n k"]
    there: Bool[Tensor, "n k"]
    from_first: Float[Tensor, "n wrong_second"]
    from_second: Float[Tensor, "n k wrong_first"]
    mined: int


class Found(NamedTuple):
    """How often the right one is nearest among those of the batch, and what that is for vectors
    without meaning. A tie counts as wrong, so that collapsed vectors score 0."""

    accuracy: Float[Tensor, ""]
    chance: float


def compare(
    first: Float[Tensor, "n dim"],
    second: Float[Tensor, "n k dim"],
    there: Bool[Tensor, "n k"],
    recording: Int64[Tensor, "n"],
    scale: Float[Tensor, ""],
    mined: Mined | None = None,
) -> Scores:
    """Products of all clips with all sentences, times `scale`.

    Args:
        first: One vector a clip.
        second: The vectors of its bag.
        there: Where there is both the clip and the sentence; a recording without any such pair
            takes no part, not even as something to be told from.
        recording: What each clip is of; those of the same recording are never told apart.
        scale: One over the temperature.
        mined: More vectors to be told from.
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = (v.to(torch.promote_types(v.dtype, torch.float32)) for v in (first, second))
        pairs = scale * torch.einsum("id,jld->ijl", first, second)
        right = pairs.diagonal().T
        asked = there.any(1)
        apart = (recording[:, None] != recording) & asked[:, None]
        wrong = pairs.masked_fill(~(apart[:, :, None] & there), -torch.inf)
        from_first, from_second = wrong.flatten(1), wrong.permute(1, 2, 0)
        if mined is None:
            return Scores(right, there, from_first, from_second, 0)
        bars = mined.allowed & asked[:, None]
        hard_first = scale * torch.einsum("id,ihd->ih", first, mined.second.to(first.dtype))
        hard_second = scale * torch.einsum("ikd,ihd->ikh", second, mined.first.to(second.dtype))
        hard_first = hard_first.masked_fill(~bars, -torch.inf)
        hard_second = hard_second.masked_fill(~(there[:, :, None] & bars[:, None]), -torch.inf)
        return Scores(
            right,
            there,
            torch.cat([from_first, hard_first], 1),
            torch.cat([from_second, hard_second], 2),
            mined.allowed.shape[1],
        )


def pair_nce(scores: Scores) -> Float[Tensor, ""]:
    """Names the right sentence of each clip and the right clip of each sentence, among the wrong
    ones: the mean over pairs of both surprises, in nats. Other sentences of a bag are neither right
    nor wrong.

    CLIP takes the mean of both directions too; ImageBind their sum.
    """
    right, there = scores.right, scores.there
    to_second = torch.logaddexp(right, _log_sum(scores.from_first)[:, None]) - right
    to_first = torch.logaddexp(right, _log_sum(scores.from_second)) - right
    return _mean((to_second + to_first) / 2, there)


def mil_nce(scores: Scores) -> Float[Tensor, ""]:
    """-log of the share of the pairs of a clip's bag in the sum over those and all wrong pairs
    (Eq. 1 of Miech et al.): the mean over clips, in nats.

    Wrong pairs are those of the clip with other recordings' sentences and those of its sentences
    with other recordings' clips, in one sum. The authors' code has the pairs of the bag twice in
    the denominator, where the equation has them once; here they are there once.
    """
    asked = scores.there.any(1)
    bag = scores.right.masked_fill(~scores.there, -torch.inf)[asked]
    wrong = [scores.from_first[asked], scores.from_second[asked].flatten(1)]
    surprise = torch.cat([bag, *wrong], 1).logsumexp(1) - bag.logsumexp(1)
    return surprise.sum() / asked.sum().clamp(min=1)


def cpd(scores: Scores, level: Float[Tensor, "2"]) -> Float[Tensor, ""]:
    """Tells each pair from noise, by noise contrastive estimation: the mean over pairs and both
    directions, in nats.

    A pair of similarity s among N has probability p = e^s / Z. It is told from m wrong ones drawn
    evenly, each with probability 1 / N, by h = p / (p + m / N), and the loss is -log h of the right
    one and -log (1 - h) of each wrong one. Z is a constant, N times the mean e^s of the first batch
    (Wu et al., CVPR 2018, Section 3.2, whom the authors' code follows), so N cancels out and the
    logit of h is s - log m - log mean e^s. That code draws m = 4096 from a memory bank; here the
    wrong ones are those of the batch and what was mined.

    Args:
        scores: What was compared.
        level: `noise_level` of the first batch.
    """
    right, losses = scores.right, []
    for wrong, base in zip((scores.from_first[:, None], scores.from_second), level, strict=True):
        counted = wrong > -torch.inf
        base = base + counted.sum(2).clamp(min=1).to(wrong.dtype).log()
        noise = -F.logsigmoid(base[:, :, None] - wrong)
        pair = -F.logsigmoid(right - base)
        losses.append(pair + noise.masked_fill(~counted, 0.0).sum(2))
    return _mean((losses[0] + losses[1]) / 2, scores.there)


def noise_level(scores: Scores) -> Float[Tensor, "2"]:
    """log mean e^s over all pairs, right and wrong, in each of the two directions, without
    gradient; NaN where there is no pair."""
    right = scores.right.detach().masked_fill(~scores.there, -torch.inf)
    levels = []
    for wrong in (scores.from_first, scores.from_second):
        every = torch.cat([right.flatten(), wrong.detach().flatten()])
        count = (every > -torch.inf).sum().to(every.dtype)
        levels.append(every.logsumexp(0) - count.log())
    return torch.stack(levels)


def found(scores: Scores) -> tuple[Found, Found] | None:
    """Whether the sentence nearest to a clip is one of its own, and the clip nearest to a sentence
    its own; None if there is no pair. What was mined is left out: it is near by design."""
    asked, there = scores.there.any(1), scores.there
    if not asked.any():
        return None
    last = scores.from_first.shape[1] - scores.mined
    wrong = scores.from_first[asked, :last]
    own = there[asked].sum(1)
    best = scores.right.masked_fill(~there, -torch.inf)[asked].amax(1)
    to_second = Found(
        (best > wrong.amax(1)).float().mean(),
        (own / (own + (wrong > -torch.inf).sum(1))).mean().item(),
    )
    last = scores.from_second.shape[2] - scores.mined
    clips = scores.from_second[:, :, :last][there]
    to_first = Found(
        (scores.right[there] > clips.amax(1)).float().mean(),
        (1 / (1 + (clips > -torch.inf).sum(1))).mean().item(),
    )
    return to_second, to_first


class NeighbourBank(nn.Module):
    """The vectors of each recording's last visit, to mine negatives from: VideoCLIP's retrieval
    (Xu et al., EMNLP 2021, Section 3.3) where batches are not filled by it.

    Recordings are near where the means of their two streams' vectors are, and of the nearest 2k
    one takes k at random, so that it is not the same ones each time (both the paper's).

    Args:
        recordings: Number of recordings in the catalogue.
        dim: Width of the vectors.
    """

    first: Tensor
    second: Tensor
    seen: Tensor

    def __init__(self, recordings: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("first", torch.zeros(recordings, dim))
        self.register_buffer("second", torch.zeros(recordings, dim))
        self.register_buffer("seen", torch.zeros(recordings, dtype=torch.bool))

    @torch.no_grad()
    def nearest(
        self,
        first: Float[Tensor, "n dim"],
        second: Float[Tensor, "n dim"],
        recording: Int64[Tensor, "n"],
        count: int,
        generator: torch.Generator,
    ) -> Mined:
        """For each recording `count` of the `2 * count` nearest that have been seen and are not in
        the batch, as copies, since `remember` may write before the backward pass.

        Args:
            first: Vectors of the batch's clips.
            second: Of what belongs to them.
            recording: Whose they are; rows of the bank.
            count: The paper's k, the same for all; where there are fewer, the rest is not allowed.
            generator: Source of the choice; the same on all ranks.
        """
        free = self.seen.clone()
        free[recording] = False
        stored = F.normalize(self.first + self.second, dim=1)
        near = F.normalize((first + second).to(stored.dtype), dim=1) @ stored.T
        near = near.masked_fill(~free, -torch.inf)
        value, row = near.topk(min(2 * count, len(free)), dim=1)
        luck = torch.rand(value.shape, generator=generator, device=generator.device)
        luck = luck.to(value.device).masked_fill(value == -torch.inf, -1.0)
        chosen = luck.topk(min(count, value.shape[1]), dim=1).indices
        row = row.gather(1, chosen)
        return Mined(self.first[row], self.second[row], value.gather(1, chosen) > -torch.inf)

    @torch.no_grad()
    def remember(
        self,
        first: Float[Tensor, "n dim"],
        second: Float[Tensor, "n dim"],
        there: Bool[Tensor, "n"],
        recording: Int64[Tensor, "n"],
    ) -> None:
        """Stores the vectors of the recordings that have both.

        Args:
            first: Vectors of the batch's clips.
            second: Of what belongs to them.
            there: Which recordings have both.
            recording: Whose they are; rows of the bank.
        """
        rows = recording[there]
        self.first[rows] = first[there].to(self.first.dtype)
        self.second[rows] = second[there].to(self.second.dtype)
        self.seen[rows] = True


def _log_sum(wrong: Float[Tensor, "*n wrong"]) -> Float[Tensor, "*n"]:
    """logsumexp over the last axis; -inf, with a gradient of 0, where nothing counts."""
    some = (wrong > -torch.inf).any(-1)
    total = torch.where(some[..., None], wrong, 0.0).logsumexp(-1)
    return total.masked_fill(~some, -torch.inf)


def _mean(values: Float[Tensor, "n k"], there: Bool[Tensor, "n k"]) -> Float[Tensor, ""]:
    """The mean of the values that are there; 0 if none is."""
    return values.masked_fill(~there, 0.0).sum() / there.sum().clamp(min=1)
