"""The hierarchical contrast of TS2Vec: every time step against other steps and other series.

Yue et al., "TS2Vec: towards universal representation of time series", AAAI 2022, Section 3.3. Two
views of each series give each time step two representations. Instance contrast (Eq. 2) asks which
of the batch's representations of this moment is of the same series; temporal contrast (Eq. 1) asks
which of the series' representations is of the same moment. Both are asked again after each halving
of time by max pooling (Algorithm 1), down to a single step.

Similarities are dot products, as in the paper. Sums of exponentials stay in log space, and the
gradient, which a softmax gives for little more than the loss, is computed with it, a few rows at a
time: memory grows with the series' length and not with its square.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.errors import ConfigError

CELLS = 2**24
"""Similarities held at a time: 64 MiB in float32."""

Steps = Float[Tensor, "series time dim"]
There = Bool[Tensor, "series time"]
Pairs = Float[Tensor, "series 2 time dim"]


def hierarchical(
    first: Steps,
    second: Steps,
    present: There | None = None,
    instance: float = 0.5,
    temporal_unit: int = 0,
    cells: int = CELLS,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Mean over the levels of instance and temporal contrast (Algorithm 1).

    Args:
        first: The representation of each step in one view.
        second: The same steps in the other view.
        present: Steps that are no padding; None if all are. What is not there is neither asked
            nor a negative, and a pooled step is there if one of its two is.
        instance: Weight of instance contrast (the released code's alpha); temporal contrast has
            the rest. The paper adds the two, which is twice this loss at one half.
        temporal_unit: Levels, from the finest, without temporal contrast: for long series.
        cells: Similarities held at a time.
        coarse: Take the products of temporal contrast in bfloat16, four times as fast where the
            processor has it; similarities are then off by up to one part in 256.

    Returns:
        The loss in nats. At the last level, one step, there is instance contrast alone; without a
        second series there is none.

    Raises:
        ConfigError: If the weight is not a share.
    """
    if not 0 <= instance <= 1:
        raise ConfigError(f"The weight of instance contrast is {instance}, not between 0 and 1.")
    with torch.autocast(first.device.type, enabled=False):
        exact = torch.promote_types(first.dtype, torch.float32)
        pairs = torch.stack([first, second], 1).to(exact)
        return _Hierarchy.apply(pairs, present, instance, temporal_unit, cells, coarse)


class _Hierarchy(torch.autograd.Function):
    """The loss over all levels, and in the same pass its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        pairs: Tensor,
        present: Tensor | None,
        instance: float,
        unit: int,
        cells: int,
        coarse: bool,
    ) -> Tensor:
        levels = [_Level(pairs, present, None)]
        while levels[-1].pairs.shape[2] > 1:
            levels.append(_halved(levels[-1]))
        loss = pairs.new_zeros(())
        grad: Tensor | None = None
        for depth in reversed(range(len(levels))):
            level = levels[depth]
            if ctx.needs_input_grad[0]:
                grad = _spread(level, grad, levels[depth + 1].odd if grad is not None else None)
            if instance:
                loss += contrast(_by_moment(level, grad), instance, cells)
            if instance < 1 and depth >= unit and level.pairs.shape[2] > 1:
                loss += contrast(_by_series(level, grad), 1 - instance, cells, coarse)
        if grad is not None:
            ctx.save_for_backward(grad.div_(len(levels)))
        return loss / len(levels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None, None, None, None


class _Level(NamedTuple):
    """One level: both views of each series, which steps there are (None for all), and where the
    second of two steps of the level below was the greater."""

    pairs: Pairs
    present: There | None
    odd: Tensor | None


class Members(NamedTuple):
    """Groups whose members are told apart, each shown in two views.

    Attributes:
        vectors: (group, 2 * member, dim).
        other: (2 * member,) For each row the one that shows the same member in the other view.
        there: (group, 2 * member), False where there is nothing; None if all are there.
        grad: Like `vectors`; where to add the gradient, or None.
    """

    vectors: Tensor
    other: Tensor
    there: Tensor | None
    grad: Tensor | None


def contrast(
    members: Members, weight: float, cells: int = CELLS, coarse: bool = False
) -> Float[Tensor, ""]:
    """In each group, -log softmax of a row's similarity to its member's other row, against all rows
    but itself (Eq. 1 and 2): the mean over rows, times `weight`.

    Args:
        members: What to compare; the gradient is added to its `grad`.
        weight: Of the loss and the gradient.
        cells: Similarities held at a time.
        coarse: Take products in bfloat16.

    Returns:
        The loss in nats; a lone member has nothing to be told from and counts as 0.
    """
    vectors, other, there, grad = members
    groups, double, _ = vectors.shape
    loss = vectors.new_zeros(())
    if double < 3:
        return loss
    asked = groups * double if there is None else max(1, int(there.sum()))
    scale = weight / asked
    used = vectors.bfloat16() if coarse else vectors
    side = max(1, min(groups, cells // double**2))
    rows = double if side > 1 else max(1, min(double, cells // double))
    for begin, first in itertools.product(range(0, groups, side), range(0, double, rows)):
        some, row = slice(begin, begin + side), slice(first, min(first + rows, double))
        part = used[some]
        count = row.stop - first
        own = torch.arange(count, device=vectors.device)
        alike = torch.bmm(part[:, row], part.transpose(1, 2)).to(vectors.dtype)
        right = alike[:, own, other[row]]
        alike[:, own, own + first] = -torch.inf
        if there is not None:
            alike.masked_fill_(~there[some, None, :], -torch.inf)
        top = alike.amax(2, keepdim=True)
        share = alike.sub_(top).exp_()
        total = share.sum(2, keepdim=True)
        surprise = (total.log() + top)[:, :, 0] - right
        if there is not None:
            surprise = surprise.masked_fill(~there[some, row], 0.0)
        loss += surprise.sum()
        if grad is None:
            continue
        share.div_(total)
        share[:, own, other[row]] -= 1
        if there is not None:
            share.masked_fill_(~there[some, row, None], 0.0)
        mine, share = grad[some], share.to(used.dtype)
        if count == double:  # both roles of a row, query and key, in one product
            mine.add_(torch.bmm(share + share.transpose(1, 2), part), alpha=scale)
        else:
            mine[:, row].add_(torch.bmm(share, part), alpha=scale)
            mine.add_(torch.bmm(share.transpose(1, 2), part[:, row]), alpha=scale)
    return loss * scale


def _by_series(level: _Level, grad: Tensor | None) -> Members:
    """Groups are series, members are steps."""
    series, _, time, dim = level.pairs.shape
    there = level.present
    return Members(
        level.pairs.view(series, 2 * time, dim),
        (torch.arange(2 * time, device=level.pairs.device) + time) % (2 * time),
        None if there is None else torch.cat([there, there], 1),
        None if grad is None else grad.view(series, 2 * time, dim),
    )


def _by_moment(level: _Level, grad: Tensor | None) -> Members:
    """Groups are steps, members are series, their two views next to each other."""
    series, _, time, dim = level.pairs.shape
    there = level.present
    return Members(
        level.pairs.view(2 * series, time, dim).transpose(0, 1),
        torch.arange(2 * series, device=level.pairs.device) ^ 1,
        None if there is None else there.repeat_interleave(2, 0).T,
        None if grad is None else grad.view(2 * series, time, dim).transpose(0, 1),
    )


def _halved(level: _Level) -> _Level:
    """The greater of two steps each; an odd last step is dropped (Algorithm 1, line 6)."""
    stop = level.pairs.shape[2] // 2 * 2
    even, odd = level.pairs[:, :, :stop:2], level.pairs[:, :, 1:stop:2]
    if level.present is None:
        return _Level(torch.maximum(even, odd), None, odd > even)
    first, second = level.present[:, :stop:2], level.present[:, 1:stop:2]
    greater = ((odd > even) | ~first[:, None, :, None]) & second[:, None, :, None]
    there = first | second
    pooled = torch.where(greater, odd, even).masked_fill(~there[:, None, :, None], 0.0)
    return _Level(pooled, there, greater)


def _spread(level: _Level, above: Tensor | None, odd: Tensor | None) -> Tensor:
    """Zeros like the level, or the next level's gradient at the steps that it was taken from."""
    grad = torch.zeros_like(level.pairs)
    if above is not None and odd is not None:
        stop = level.pairs.shape[2] // 2 * 2
        grad[:, :, 1:stop:2] = above * odd
        grad[:, :, :stop:2] = above - grad[:, :, 1:stop:2]
    return grad
