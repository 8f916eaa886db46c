"""Collapse monitors: two numbers that say whether embeddings still differ from one another.

A contrastive or predictive loss can fall while the encoder maps everything to one point or one
line; these are cheap enough to be looked at every step.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor


def effective_rank(embeddings: Float[Tensor, "n dim"]) -> float:
    """In how many directions embeddings differ: exp of the entropy of their normalised singular
    values, once their mean is subtracted.

    Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007,
    Definition 1; as a measure of representations RankMe (Garrido et al., ICML 2023, Equation 1).
    Neither subtracts the mean. Here it is, since features after a ReLU share a large one that
    hides everything else: untrained dilated convolutions on GunPoint have rank 1.1 with it and 7.8
    without, while a probe on them is right for 96 %.

    Returns:
        Between 1 and min(n - 1, dim); 0 for embeddings that are all one point (to a millionth),
        NaN for non-finite ones.
    """
    values = _exact(embeddings)
    if not np.isfinite(values).all():
        return float("nan")
    centred = values - values.mean(0)
    products = centred @ centred.T if len(values) < values.shape[1] else centred.T @ centred
    singular = np.sqrt(np.linalg.eigvalsh(products).clip(min=0))  # sooner than those of `centred`
    if np.square(singular).sum() <= 1e-12 * np.square(values).sum():
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def feature_spread(embeddings: Float[Tensor, "n dim"]) -> float:
    """How far l2-normalised embeddings spread: 1 like isotropic noise, 0 when collapsed.

    The standard deviation of each dimension over the batch, averaged and times sqrt(dim); the
    diagnostic of SimSiam (Chen & He, CVPR 2021, Section 4.1), where it is compared to 1/sqrt(dim).

    Returns:
        The spread; NaN for non-finite embeddings.
    """
    values = _exact(embeddings)
    if not np.isfinite(values).all():
        return float("nan")
    unit = values / np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-12)
    return float(unit.std(axis=0).mean() * values.shape[1] ** 0.5)


def _exact(embeddings: Tensor) -> Float64[np.ndarray, "n dim"]:
    """In NumPy, whose calls cost a few microseconds: these numbers are taken at every step."""
    return embeddings.detach().to("cpu", torch.float64).numpy()
