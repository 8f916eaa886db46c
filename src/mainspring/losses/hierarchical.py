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

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mainspring.errors import ConfigError

CELLS = 2**22
"""Similarities held at a time: 16 MiB in float32, about as much as a processor's caches hold."""

GRAIN = 64
"""Products in bfloat16 are of multiples of so many rows: the processor's kernels for them are made
anew for each shape they meet, in which time a dozen products are done."""

Pairs = Float[Tensor, "series 2 time dim"]
There = Bool[Tensor, "series time"]


def hierarchical(
    pairs: Pairs,
    present: There | None = None,
    instance: float = 0.5,
    temporal_unit: int = 0,
    cells: int = CELLS,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Mean over the levels of instance and temporal contrast (Algorithm 1).

    Args:
        pairs: The representation of each step in either view.
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
    with torch.autocast(pairs.device.type, enabled=False):
        exact = torch.promote_types(pairs.dtype, torch.float32)
        return _Hierarchy.apply(
            pairs.to(exact).contiguous(), present, instance, temporal_unit, cells, coarse
        )


class _Hierarchy(torch.autograd.Function):
    """The loss over all levels, and in the same pass its gradient.

    All levels but the first lie one after the other along time in one array, so that their
    instance contrasts, each small, are taken in one go.
    """

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
        levels, upper = _levels(pairs, present)
        loss = pairs.new_zeros(())
        learns = ctx.needs_input_grad[0]
        grads = [torch.zeros_like(part) if learns else None for part in (pairs, upper)]
        if instance:
            for vectors, some, grad in zip(
                (pairs, upper), (levels[:1], levels[1:]), grads, strict=True
            ):
                if some:
                    loss += contrast(_by_moment(vectors, some, grad), instance / len(levels), cells)
        at = 0
        for depth, level in enumerate(levels[:-1]):
            time, grad = level.pairs.shape[2], grads[min(depth, 1)]
            mine = grad if depth == 0 or grad is None else grad.narrow(2, at, time)
            if instance < 1 and depth >= unit:
                weight = (1 - instance) / len(levels)
                loss += contrast(_by_series(level, mine), weight, cells, coarse)
            at += time if depth else 0
        if grads[0] is not None and grads[1] is not None:
            ctx.save_for_backward(_descended(levels, grads[0], grads[1]))
        return loss

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
        adjacent: Whether the views of a member follow each other; otherwise all members of one
            view come before those of the other.
        there: (group, 2 * member), False where there is nothing; None if all are there.
        grad: Where to add the gradient, of the shape of `vectors` but for splits of an axis; or
            None.
        sizes: How many groups each mean is over; the means are added.
    """

    vectors: Tensor
    adjacent: bool
    there: Tensor | None
    grad: Tensor | None
    sizes: tuple[int, ...]


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
    vectors, adjacent, there, grad, _ = members
    groups, double, _ = vectors.shape
    loss = vectors.new_zeros(())
    if double < 3:
        return loss
    scale = _scale(members, weight)
    coarse = coarse and double >= GRAIN
    used = F.pad(vectors.bfloat16(), (0, 0, 0, -double % GRAIN)) if coarse else vectors
    wide = used.shape[1]
    side = max(1, min(groups, cells // double**2))
    rows = double if side > 1 else max(1, min(double, cells // double))
    for begin in range(0, groups, side):
        some = slice(begin, min(begin + side, groups))
        part, share, total = used[some], scale[some], None
        for first in range(0, double, rows):
            row = slice(first, min(first + rows, double))
            asks = part if rows == double else part[:, row]
            alike = torch.bmm(asks, part.transpose(1, 2))
            if coarse:
                alike = alike[:, : row.stop - first, :double].to(vectors.dtype)
            _diagonal(alike, 0, first, 1, row.stop - first).fill_(-torch.inf)
            if there is not None:
                alike.masked_fill_(~there[some, None, :], -torch.inf)
            odds = alike.log_softmax(2)
            if there is not None:
                odds.masked_fill_(~there[some, row, None], 0.0)
            right = [_diagonal(odds, *place) for place in _others(row, double, adjacent)]
            for said in right:
                loss -= said.sum(1) @ share
            if grad is None:
                continue
            odds.exp_()
            for said in right:
                said -= 1
            if there is not None:
                odds.masked_fill_(~there[some, row, None], 0.0)
            odds.mul_(share[:, None, None])
            if rows == double:  # both roles of a row, query and key, in one product
                odds = odds + odds.transpose(1, 2)
            if coarse:
                odds = _padded(odds, asks.shape[1], wide)
            if rows == double:
                total = torch.bmm(odds, part)
                continue
            total = vectors.new_zeros(part.shape) if total is None else total
            total[:, row] += torch.bmm(odds, part)
            total += torch.bmm(odds.transpose(1, 2), asks)
        if grad is not None and total is not None:
            mine = grad[some]
            mine += total[:, :double].reshape(mine.shape)
    return loss


def _padded(values: Tensor, rows: int, columns: int) -> Tensor:
    """Values in bfloat16, and zeros after them."""
    out = values.new_zeros(len(values), rows, columns, dtype=torch.bfloat16)
    out[:, : values.shape[1], : values.shape[2]] = values
    return out


def _scale(members: Members, weight: float) -> Float[Tensor, "group"]:
    """What each row of a group counts: `weight` over the rows that are asked in its mean."""
    vectors, there, sizes = members.vectors, members.there, members.sizes
    if there is None:
        each = weight / (np.asarray(sizes) * vectors.shape[1])
        return vectors.new_tensor(np.repeat(each, sizes))
    rows = there.sum(1).to(vectors.dtype)
    asked = torch.stack([part.sum() for part in rows.split(list(sizes))]).clamp(min=1)
    counts = torch.tensor(sizes, device=vectors.device)
    return (weight / asked).repeat_interleave(counts, output_size=len(vectors))


def _others(row: slice, double: int, adjacent: bool) -> list[tuple[int, int, int, int]]:
    """Where some rows meet their member's other row: diagonals, as `_diagonal` takes them."""
    first, stop, half = row.start, row.stop, double // 2
    if adjacent:
        even, odd = first + first % 2, first + 1 - first % 2
        runs = [(even, even + 1, 2), (odd, odd - 1, 2)]
        ends = [stop, stop]
    else:
        low, high = first, max(first, half)
        runs, ends = [(low, low + half, 1), (high, high - half, 1)], [min(stop, half), stop]
    return [
        (start - first, column, step, len(range(start, end, step)))
        for (start, column, step), end in zip(runs, ends, strict=True)
        if start < end
    ]


def _diagonal(cells: Tensor, row: int, column: int, step: int, count: int) -> Tensor:
    """Cells (group, row + i step, column + i step) for i below `count`: a view (group, count)."""
    outer, down, right = cells.stride()
    start = cells.storage_offset() + row * down + column * right
    return cells.as_strided((len(cells), count), (outer, step * (down + right)), start)


def _by_series(level: _Level, grad: Tensor | None) -> Members:
    """Groups are series, members are steps."""
    series, _, time, dim = level.pairs.shape
    there = None if level.present is None else level.present.repeat(1, 2)
    vectors = level.pairs.reshape(series, 2 * time, dim)
    return Members(vectors, False, there, grad, (series,))


def _by_moment(vectors: Pairs, levels: list[_Level], grad: Tensor | None) -> Members:
    """Groups are the steps of some levels, members are series, their views next to each other."""
    series, _, time, dim = vectors.shape
    there = None
    if levels[0].present is not None:
        present = [level.present for level in levels if level.present is not None]
        there = torch.cat(present, 1).repeat_interleave(2, 0).T
    return Members(
        vectors.view(2 * series, time, dim).transpose(0, 1),
        True,
        there,
        None if grad is None else grad.view(2 * series, time, dim).transpose(0, 1),
        tuple(level.pairs.shape[2] for level in levels),
    )


def _levels(pairs: Pairs, present: There | None) -> tuple[list[_Level], Tensor]:
    """All levels, each half as long as the one before it, and the array that holds all but the
    first: the greater of two steps each; an odd last step is dropped (Algorithm 1, line 6)."""
    series, _, time, dim = pairs.shape
    times = [time >> depth for depth in range(time.bit_length())]
    upper = pairs.new_empty(series, 2, sum(times[1:]), dim)
    levels, at = [_Level(pairs, present, None)], 0
    for half in times[1:]:
        below, there, _ = levels[-1]
        even, odd = below[:, :, : 2 * half : 2], below[:, :, 1 : 2 * half : 2]
        pooled = upper.narrow(2, at, half)
        at += half
        if there is None:
            torch.maximum(even, odd, out=pooled)
            levels.append(_Level(pooled, None, odd > even))
            continue
        one, two = there[:, : 2 * half : 2], there[:, 1 : 2 * half : 2]
        greater = ((odd > even) | ~one[:, None, :, None]) & two[:, None, :, None]
        pooled.copy_(torch.where(greater, odd, even))
        pooled.masked_fill_(~(one | two)[:, None, :, None], 0.0)
        levels.append(_Level(pooled, one | two, greater))
    return levels, upper


def _descended(levels: list[_Level], first: Tensor, upper: Tensor) -> Tensor:
    """The gradient of the first level: each level's own, and that of the level above at the steps
    that it was taken from."""
    stop = upper.shape[2]
    for depth in reversed(range(1, len(levels))):
        odd, half = levels[depth].odd, levels[depth].pairs.shape[2]
        above = upper[:, :, stop - half : stop]
        stop -= half
        time = levels[depth - 1].pairs.shape[2]
        below = first if depth == 1 else upper[:, :, stop - time : stop]
        assert odd is not None
        taken = above * odd
        below[:, :, 1 : 2 * half : 2] += taken
        below[:, :, : 2 * half : 2] += above - taken
    return first
