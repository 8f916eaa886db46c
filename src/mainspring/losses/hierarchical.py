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

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.errors import ConfigError

CELLS = 2**24
"""Similarities held at a time: 64 MiB in float32."""

Steps = Float[Tensor, "series time dim"]
There = Bool[Tensor, "series time"]


def hierarchical(
    first: Steps,
    second: Steps,
    present: There | None = None,
    instance: float = 0.5,
    temporal_unit: int = 0,
    cells: int = CELLS,
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

    Returns:
        The loss in nats. At the last level, one step, there is instance contrast alone; without a
        second series there is none.

    Raises:
        ConfigError: If the weight is not a share.
    """
    if not 0 <= instance <= 1:
        raise ConfigError(f"The weight of instance contrast is {instance}, not between 0 and 1.")
    total, levels = first.new_zeros((), dtype=torch.promote_types(first.dtype, torch.float32)), 0
    while True:
        steps = first.shape[1]
        if instance:
            moments = None if present is None else present.transpose(0, 1)
            across = contrast_pairs(first.transpose(0, 1), second.transpose(0, 1), moments, cells)
            total = total + instance * across
        if steps > 1 and levels >= temporal_unit and instance < 1:
            total = total + (1 - instance) * contrast_pairs(first, second, present, cells)
        levels += 1
        if steps <= 1:
            return total / levels
        first, second = _halve(first, present), _halve(second, present)
        if present is not None:
            half = steps // 2
            present = present[:, : 2 * half].unflatten(1, (half, 2)).any(2)


def contrast_pairs(
    first: Float[Tensor, "group member dim"],
    second: Float[Tensor, "group member dim"],
    present: Bool[Tensor, "group member"] | None = None,
    cells: int = CELLS,
) -> Float[Tensor, ""]:
    """In each group, -log softmax of a member's similarity to itself in the other view, against all
    members of both views but itself in its own (Eq. 1 and 2), as a mean over members and views.

    Args:
        first: Members in one view.
        second: The same members in the other.
        present: Which members there are; None for all.
        cells: Similarities held at a time.

    Returns:
        The loss in nats; a lone member has nothing to be told from and counts as 0.
    """
    if first.shape[1] < 2:
        return first.new_zeros((), dtype=torch.promote_types(first.dtype, torch.float32))
    with torch.autocast(first.device.type, enabled=False):
        dtype = torch.promote_types(first.dtype, torch.float32)
        both = torch.cat([first, second], 1).to(dtype)
        there = None if present is None else torch.cat([present, present], 1)
        return _Contrast.apply(both, there, cells)


class _Contrast(torch.autograd.Function):
    """The loss over (group, 2 * member, dim), and in the same pass its gradient."""

    @staticmethod
    def forward(ctx: Any, both: Tensor, there: Tensor | None, cells: int) -> Tensor:
        groups, double, _ = both.shape
        members = double // 2
        # A lone member weighs in the count only, as in the plain formula, where its softmax has
        # the one entry.
        asked = groups * double if there is None else max(1, int(there.sum()))
        loss = both.new_zeros(())
        wanted = ctx.needs_input_grad[0]
        grad = torch.zeros_like(both) if wanted else None
        side = max(1, min(groups, cells // double**2))
        for begin in range(0, groups, side):
            part = both[begin : begin + side]
            gone = None if there is None else ~there[begin : begin + side]
            rows = double if side > 1 else max(1, min(double, cells // double))
            for top in range(0, double, rows):
                some = part[:, top : top + rows]
                count = some.shape[1]
                alike = some @ part.transpose(1, 2)
                index = torch.arange(top, top + count, device=both.device)
                own, other = torch.arange(count, device=both.device), (index + members) % double
                right = alike[:, own, other]
                alike[:, own, index] = -torch.inf
                if gone is not None:
                    alike.masked_fill_(gone[:, None, :], -torch.inf)
                total = alike.logsumexp(2)
                surprise = total - right
                if gone is not None:
                    surprise = surprise.masked_fill(gone[:, top : top + count], 0.0)
                loss += surprise.sum()
                if grad is None:
                    continue
                share = alike.sub_(total[:, :, None]).exp_()
                share[:, own, other] -= 1
                if gone is not None:
                    share.masked_fill_(gone[:, top : top + count, None], 0.0)
                mine = grad[begin : begin + side]
                if count == double:  # all rows are here: both roles of a member in one product
                    torch.bmm(share + share.transpose(1, 2), part, out=mine)
                else:
                    mine[:, top : top + count] += share @ part
                    mine.baddbmm_(share.transpose(1, 2), some)
        if grad is not None:
            ctx.save_for_backward(grad.div_(asked))
        return loss / asked

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None


def _halve(steps: Steps, present: There | None) -> Float[Tensor, "series half dim"]:
    """Max pooling over pairs of steps; an odd last step is dropped (Algorithm 1, line 6)."""
    half = steps.shape[1] // 2
    if present is not None:
        padded = ~present[:, : 2 * half, None]
        pairs = steps[:, : 2 * half].masked_fill(padded, -torch.inf).unflatten(1, (half, 2))
        pooled = pairs.amax(2)
        return pooled.masked_fill(
            ~present[:, : 2 * half].unflatten(1, (half, 2)).any(2)[:, :, None], 0.0
        )
    return F.max_pool1d(steps.transpose(1, 2), 2).transpose(1, 2)
