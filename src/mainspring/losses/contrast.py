"""Contrast: pull views together that agree in what matters, push all others apart.

`contrast` is the general loss, Eq. 1 of GDT (Patrick et al., "On compositions of transformations in
contrastive self-supervised learning", ICCV 2021): which pairs it pulls together and which it looks
at is said by labels and a rule (`mainspring.losses.pairs`).

Where every query has one positive key and a set of negatives (TaCo, MoCo, InstDisc), `info_nce`
says the same without the square of pairs. All similarities are cosines, all arithmetic is at least
float32 whatever the autocast around it, and probabilities never leave log space.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.errors import ConfigError
from mainspring.losses.pairs import Rule, Stored, agreement, all_but_self, cross_stream
from mainspring.losses.square import KEPT, TIE, Facts, Square, side_for

LEAST = 1e-12
"""Vectors shorter than this keep their direction but not length 1; 0 has no direction."""

__all__ = [
    "Contrasted",
    "InfoNCE",
    "Rule",
    "Stored",
    "agreement",
    "all_but_self",
    "contrast",
    "cross_stream",
    "info_nce",
]


class Contrasted(NamedTuple):
    """What comparing views with each other yields.

    Attributes:
        loss: Eq. 1 of GDT as a mean over the pairs with c w = 1 (the paper writes the sum), in
            nats; 0 if there is no such pair.
        accuracy: Share of the views that have a positive whose best key is one of them. A tie with
            a negative counts as wrong, so that collapsed embeddings score 0.
        chance: What that share is for embeddings without meaning.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    chance: float


class InfoNCE(NamedTuple):
    """What comparing queries with their keys yields.

    Attributes:
        loss: Mean over the queries of Eq. 1 of TaCo, in nats.
        accuracy: Share of queries that are nearer to their positive than to every negative. A
            tie counts as wrong, so that collapsed embeddings score 0.
        chance: What that share is for embeddings without meaning.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    chance: float


def contrast(
    embeddings: Float[Tensor, "n dim"],
    label: Int64[Tensor, "n"],
    rule: Rule,
    temperature: float,
    stored: Stored | None = None,
    *,
    keys_learn: bool = True,
    kept: int = KEPT,
    side: int = 0,
) -> Contrasted:
    """Eq. 1 of GDT, exactly, in memory that grows with n and not with its square.

    Blocks of similarities are visited twice: for the sum of each row, and for the gradient, which
    is worked out along with the loss. As w is symmetric, a block above the diagonal also serves as
    its mirror image below, so n views cost half a matrix product for their similarities (and
    another half if these are too many to keep) and one for the gradient. Views that do not take
    part, and pairs of one stream where streams are compared, cost nothing.

    Args:
        embeddings: One vector a view; their length does not matter.
        label: c: views of one label are pulled together, see `agreement`.
        rule: w: which pairs take part.
        temperature: The paper's rho.
        stored: More keys to be pushed away from.
        keys_learn: Whether a view also learns from being a key of others. The released code of GDT
            detaches keys; the equation does not.
        kept: Similarities kept from the first visit for the second; more are computed again.
        side: Rows and columns of a block; 0 chooses by device.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        vectors = _precise(embeddings)
        order = label.argsort(stable=True)
        if rule.there is not None:
            order = order[rule.there[order]]
        if rule.stream is not None:
            order = order[rule.stream[order].argsort(stable=True)]
        if stored is not None:
            stored = stored._replace(keys=_unit(stored.keys.detach()).to(vectors.dtype))
        facts = Facts(
            label[order], replace(rule.take(order), there=None), stored, _positive(temperature)
        )
        side = side or side_for(vectors.device)
        loss, accuracy, chance = _Equation1.apply(vectors, order, facts, keys_learn, kept, side)
        return Contrasted(loss, accuracy, chance.item())


def info_nce(
    queries: Float[Tensor, "q dim"],
    positives: Float[Tensor, "q dim"],
    negatives: Float[Tensor, "k dim"],
    allowed: Bool[Tensor, "q k"],
    temperature: float,
) -> InfoNCE:
    """One positive key a query against shared negatives (van den Oord et al. 2018; TaCo, Eq. 1).

    Args:
        queries: What looks for its key.
        positives: The key of each query.
        negatives: Keys of others.
        allowed: Which negatives count for which query (not those of its own recording).
        temperature: The paper's tau.
    """
    right = _rowwise_cosines(queries, positives) / _positive(temperature)
    wrong = _cosines(queries, negatives) / temperature
    wrong = wrong.masked_fill(~allowed, -torch.inf)
    total = torch.cat([right[:, None], wrong], 1).logsumexp(1)
    beaten = (right[:, None] - TIE / temperature > wrong).all(1)
    chance = (1 / (1 + allowed.sum(1))).mean().item()
    return InfoNCE((total - right).mean(), beaten.float().mean(), chance)


class _Equation1(torch.autograd.Function):
    """The loss, and in the same pass its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        order: Tensor,
        facts: Facts,
        keys_learn: bool,
        kept: int,
        side: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        unit = vectors[order]
        length = unit.norm(dim=1, keepdim=True).clamp_(min=LEAST)
        square = Square(unit.div_(length), facts, kept, side)
        square.sum()
        if ctx.needs_input_grad[0]:
            grad = square.gradient(keys_learn)
            along = torch.linalg.vecdot(grad, unit)[:, None]
            grad.addcmul_(along, unit, value=-1).div_(length)
            ctx.save_for_backward(torch.zeros_like(vectors).index_copy_(0, order, grad))
        loss, accuracy, chance = square.found()
        ctx.mark_non_differentiable(accuracy, chance)
        return loss, accuracy, chance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None, None, None, None


def _positive(temperature: float) -> float:
    """The temperature, if it is one."""
    if temperature <= 0:
        raise ConfigError(f"The temperature must be positive, not {temperature}.")
    return temperature


def _unit(vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Rows at length 1, at least in float32."""
    return F.normalize(_precise(vectors), dim=1, eps=LEAST)


def _precise(vectors: Tensor) -> Tensor:
    """In float32 at least."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def _cosines(queries: Float[Tensor, "q dim"], keys: Float[Tensor, "k dim"]) -> Float[Tensor, "q k"]:
    """Cosine of every query with every key; autocast would round the product to 8 bits."""
    with torch.autocast(queries.device.type, enabled=False):
        return _unit(queries) @ _unit(keys).T


def _rowwise_cosines(
    queries: Float[Tensor, "q dim"], keys: Float[Tensor, "q dim"]
) -> Float[Tensor, "q"]:
    """Cosine of every query with its own key."""
    with torch.autocast(queries.device.type, enabled=False):
        return (_unit(queries) * _unit(keys)).sum(1)
