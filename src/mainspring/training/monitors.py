"""Collapse monitors: two numbers that say whether embeddings still differ from one another.

A contrastive or predictive loss can fall while the encoder maps everything to one point or one
line; these are cheap enough to be looked at every few steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(embeddings: Float[Tensor, "n dim"]) -> float:
    """How many directions the embeddings use: exp of the entropy of normalised singular values.

    Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007,
    Definition 1; as a measure of representations RankMe (Garrido et al., ICML 2023, Equation 1).
    The embeddings are not centred, as there: a constant non-zero embedding has rank 1.

    Returns:
        Between 1 and min(n, dim); 0 for embeddings that are all zero, NaN for non-finite ones.
    """
    values = embeddings.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(values).all()):
        return float("nan")
    singular = torch.linalg.svdvals(values)
    total = singular.sum()
    if total == 0:
        return 0.0
    share = singular / total
    return float(torch.exp(torch.special.entr(share).sum()))


def feature_spread(embeddings: Float[Tensor, "n dim"]) -> float:
    """How far l2-normalised embeddings spread: 1 like isotropic noise, 0 when collapsed.

    The standard deviation of each dimension over the batch, averaged and times sqrt(dim); the
    diagnostic of SimSiam (Chen & He, CVPR 2021, Section 4.1), where it is compared to 1/sqrt(dim).

    Returns:
        The spread; NaN for non-finite embeddings.
    """
    values = embeddings.detach().to(torch.float64)
    unit = torch.nn.functional.normalize(values, dim=1)
    return float(unit.std(dim=0, correction=0).mean() * values.shape[1] ** 0.5)
