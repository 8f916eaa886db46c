"""Contrast: pull views together that agree in what matters, push all others apart.

The general loss is Eq. 1 of GDT (Patrick et al., "On compositions of transformations in contrastive
self-supervised learning", ICCV 2021). Two binary functions of a pair of views shape it:
c(T, T') = 1 pulls the pair together, w(T, T') = 1 lets the pair take part at all. `agreement`
builds c from a question per factor; `all_but_self` and `cross_stream` are the rules for w in use.

    SimCLR              c = same recording                        w = all_but_self
    GDT, one row of it  c = same recording, same shift            w = cross_stream

Where every query has one positive key and a set of negatives (TaCo, MoCo, InstDisc), `info_nce`
says the same without the square of pairs. All similarities are cosines, all arithmetic is at least
float32 whatever the autocast around it, and probabilities never leave log space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mainspring.errors import ConfigError, unknown

QUESTIONS = ("ignore", "tell_apart")


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


def agreement(
    recording: Int64[Tensor, "n"],
    factors: Mapping[str, Tensor],
    questions: Mapping[str, str],
) -> Bool[Tensor, "n n"]:
    """The contrast function c(T, T'): a product with one term a factor (GDT, Section 3.1).

    A factor to tell apart contributes [values equal], a factor to ignore contributes 1, and views
    of different recordings never agree.

    Args:
        recording: Which recording each view is of.
        factors: For each factor its value in each view, shape (n,).
        questions: For each factor "ignore" or "tell_apart".

    Raises:
        ConfigError: If a question is not one of the two or is asked of a factor that is not there.
    """
    agree = recording[:, None] == recording[None, :]
    for factor, question in questions.items():
        if factor not in factors:
            raise unknown("factor", factor, factors)
        if question not in QUESTIONS:
            raise unknown("question", question, QUESTIONS)
        if question == "tell_apart":
            values = factors[factor]
            agree = agree & (values[:, None] == values[None, :])
    return agree


def all_but_self(recording: Int64[Tensor, "n"]) -> Bool[Tensor, "n n"]:
    """The weight function of SimCLR, w(T, T') = [T != T']: any pair but a view with itself."""
    return ~torch.eye(len(recording), dtype=torch.bool, device=recording.device)


def cross_stream(stream: Int64[Tensor, "n"]) -> Bool[Tensor, "n n"]:
    """The weight function of GDT, Section 3.3: only views of different streams are compared.

    Args:
        stream: Which stream each view is of, as any integers.
    """
    return stream[:, None] != stream[None, :]


def contrast(
    embeddings: Float[Tensor, "n dim"],
    c: Bool[Tensor, "n n"],
    w: Bool[Tensor, "n n"],
    temperature: float,
    negatives: Float[Tensor, "k dim"] | None = None,
) -> Float[Tensor, ""]:
    """Eq. 1 of GDT as a mean over the pairs with c w = 1 (the paper writes the sum).

    Args:
        embeddings: One vector a view; their length does not matter.
        c: Which pairs are pulled together; rows are T, columns T'.
        w: Which pairs take part.
        temperature: The paper's rho.
        negatives: More keys, of a queue or bank, that every view is pushed away from.

    Returns:
        The loss in nats; 0 if no pair has c w = 1.
    """
    pulled = c & w
    asked = pulled.any(1)
    keys = embeddings if negatives is None else torch.cat([embeddings, negatives])
    logits = _cosines(embeddings[asked], keys) / _positive(temperature)
    takes_part = F.pad(w[asked], (0, len(keys) - len(embeddings)), value=True)
    total = logits.masked_fill(~takes_part, -torch.inf).logsumexp(1, keepdim=True)
    surprise = (total - logits)[:, : len(embeddings)]
    return (surprise * pulled[asked]).sum() / pulled.sum().clamp(min=1)


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
    beaten = (right[:, None] > wrong).all(1)
    chance = (1 / (1 + allowed.sum(1))).mean().item()
    return InfoNCE((total - right).mean(), beaten.float().mean(), chance)


def _positive(temperature: float) -> float:
    """The temperature, if it is one."""
    if temperature <= 0:
        raise ConfigError(f"The temperature must be positive, not {temperature}.")
    return temperature


def _unit(vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Rows at length 1, at least in float32."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)


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
