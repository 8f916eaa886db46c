"""Scores of maps: how well a sound goes with the best places of a picture.

A sound and every place of a picture are vectors of length 1, and a map is their cosines. `compare`
pools each map into one score, `choose_own` is the cross-entropy of telling one's own from others.
The poolings are those of

    max      Arandjelovic and Zisserman, "Objects that sound" (AVOL-Net), ECCV 2018, Section 4.1
    attend   Senocak et al., "Learning to localize sound source in visual scenes", CVPR 2018,
             Section 3.2
    trimap   Chen et al., "Localizing visual sounds the hard way", CVPR 2021, Section 3.3
    soft     a smooth maximum, ours
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

Cosines = Float[Tensor, "clip sound place"]
Scores = Float[Tensor, "clip sound"]

TOGETHER = 2**26
"""Cosines held at a time: 256 MiB of them."""
INSIDE, OUTSIDE, SOFTNESS = 0.65, 0.4, 0.03
"""Of the tri-map (Chen et al., Section 4.1): cosines above the first are the source, below the
second the background, and how soft the two borders are."""


def compare(
    places: Float[Tensor, "clip place width"],
    sounds: Float[Tensor, "sound width"],
    pool: Callable[[Cosines, float], Scores],
    temperature: float,
    together: int = TOGETHER,
) -> Scores:
    """Every clip's pictures with every sound: the pooled map over the temperature.

    At most `together` cosines are held at a time; where that takes several parts, each is computed
    again for its gradient.

    Args:
        places: Vectors of length 1, one a place.
        sounds: Vectors of length 1.
        pool: One of `POOLS`.
        temperature: Of the scores.
        together: Cosines.
    """

    def part(some: Float[Tensor, "clip place width"]) -> Scores:
        return pool(torch.einsum("npd,md->nmp", some, sounds), temperature)

    rows = max(1, together // max(1, places.shape[1] * len(sounds)))
    if rows >= len(places):
        return part(places)
    return torch.cat([checkpoint(part, some, use_reentrant=False) for some in places.split(rows)])


def choose_own(
    scores: Float[Tensor, "n n"],
    allowed: Bool[Tensor, "n n"],
    other: Float[Tensor, "n"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy of choosing one's own (the diagonal) among what is allowed, and the accuracy.

    Args:
        scores: Of each row's choices.
        allowed: Which of them there are; the diagonal always.
        other: One more wrong choice a row, which the accuracy leaves out.

    Returns:
        The mean loss, 0 without rows, and the share of rows whose own is above all others; a tie
        counts as wrong.
    """
    right = scores.diagonal()
    choices = scores.masked_fill(~allowed, -torch.inf)
    wrong = choices.detach().clone().fill_diagonal_(-torch.inf)
    if other is not None:
        choices = torch.cat([choices, other[:, None]], 1)
    count = max(1, len(scores))
    loss = (choices.logsumexp(1) - right).sum() / count
    return loss, (right[:, None] > wrong).all(1).sum() / count


def _largest(cosines: Cosines, temperature: float) -> Scores:
    """AVOL-Net, Section 4.1: the best place."""
    return cosines.amax(2) / temperature


def _soft(cosines: Cosines, temperature: float) -> Scores:
    """A smooth maximum: the log of the mean over places of exp(cosine / temperature)."""
    return (cosines / temperature).logsumexp(2) - math.log(cosines.shape[2])


def _attend(cosines: Cosines, temperature: float) -> Scores:
    """Senocak et al., Section 3.2: places weighted by a softmax over the map. The weighted vectors
    are not brought to length 1 again, so the score is the weighted mean of the cosines."""
    return ((cosines / temperature).softmax(2) * cosines).sum(2) / temperature


def _trimap(cosines: Cosines, temperature: float) -> Scores:
    """Chen et al., Section 3.3: the mean over what is above a soft threshold; as in the released
    code also for pairs that do not belong together, where the paper has the plain mean."""
    return _mean(cosines, (cosines - INSIDE) / SOFTNESS) / temperature


POOLS: dict[str, Callable[[Cosines, float], Scores]] = {
    "max": _largest,
    "soft": _soft,
    "attend": _attend,
    "trimap": _trimap,
}


def background(own: Float[Tensor, "n place"]) -> Float[Tensor, "n"]:
    """Chen et al., Section 3.3: the mean over what is below a soft threshold in one's own map.

    Args:
        own: Each picture's cosines with its own sound.
    """
    return _mean(own, (OUTSIDE - own) / SOFTNESS)


def _mean(values: Float[Tensor, "*rows place"], above: Float[Tensor, "*rows place"]) -> Tensor:
    """The mean over places weighted by sigmoid(above), also where all weights are near 0."""
    return (values * logsigmoid(above).softmax(-1)).sum(-1)
