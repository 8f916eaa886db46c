"""The residual block of dilated convolutions, with little memory and no work that meets padding.

A block keeps its input and what lies between its two convolutions; in long series the GELUs are
computed again in the backward pass, so that memory is a third of what the plain graph would hold.
In short ones calls cost more than arithmetic: all blocks are one step of the graph. All arrays lie
in memory as (n, time, channel), which the processor's convolution kernels take as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_TAILS = 8

REMEMBERED = 2**20
"""Values in a block's input up to which what its GELUs gave is kept for the backward pass; from
there on memory counts for more, and they are computed again."""

PRODUCT_ROWS = 2**13
"""Steps of all series up to which a convolution of one tap is taken as a product."""

Hidden = Float[Tensor, "n width time"]
Row = Float[Tensor, "n inputs 1 time"]
Out = Float[Tensor, "n outputs 1 time"]
Kernel = Float[Tensor, "outputs inputs 1 taps"]


class DilatedConv(nn.Conv1d):
    """Three taps, `dilation` steps apart, as many steps out as in.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        dilation: Steps from one tap to the next.
        causal: Whether the taps lie on the step itself and before it, not on both sides of it.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, causal: bool) -> None:
        super().__init__(inputs, outputs, 3, dilation=dilation)
        self.reach = -dilation if causal else dilation

    def forward(self, input: Hidden) -> Float[Tensor, "n outputs time"]:
        """Convolves."""
        row, kernel = _row(input), self.weight.unsqueeze(2)
        return convolve(row, kernel, self.bias, self.reach, row.shape[-1]).squeeze(2)


class Extent(NamedTuple):
    """How far the series of a batch reach within its arrays.

    Attributes:
        length: Steps of the longest.
        tails: Rows that end together, and where; what lies beyond is padding.
        keep: Instead of tails, False at padding, (n, 1, time).
    """

    length: int
    tails: tuple[tuple[slice, int], ...] = ()
    keep: Bool[Tensor, "n 1 time"] | None = None

    @classmethod
    def of(cls, present: Bool[Tensor, "n time"]) -> Extent:
        """What `present` says. A few groups of rows that end together, such as one of two crops of
        each series, are cheaper to clear than single cells."""
        time = present.shape[1]
        lengths = present.sum(1)
        steps = torch.arange(time, device=present.device)
        if not bool((present == (steps < lengths[:, None])).all()):
            return cls(time, (), present[:, None, :])
        ends = lengths.tolist()
        tails = [(rows, ends[rows.start]) for rows in _alike(ends)]
        if len(tails) > MOST_TAILS:
            return cls(max(ends), (), present[:, None, :])
        return cls(max(ends), tuple((rows, end) for rows, end in tails if end < time))

    def clear(self, x: Row) -> Row:
        """Padding set to 0, in place."""
        if self.keep is not None:
            x *= self.keep[:, :, None].to(x.dtype)
        for rows, end in self.tails:
            x[rows, ..., end:].zero_()
        return x


def _alike(values: Sequence[int]) -> list[slice]:
    """Rows of equal values: every second one where values take turns, runs otherwise."""
    if len(values) > 2 and all(values[i] == values[i - 2] for i in range(2, len(values))):
        return [slice(0, None, 2), slice(1, None, 2)]
    starts = [i for i, value in enumerate(values) if i == 0 or value != values[i - 1]]
    return [slice(*pair) for pair in itertools.pairwise([*starts, len(values)])]


class Block(nn.Module):
    """residual(x) + conv(gelu(conv(gelu(x)))), both convolutions at the same dilation."""

    def __init__(self, inputs: int, outputs: int, dilation: int, causal: bool, last: bool) -> None:
        super().__init__()
        self.conv1 = DilatedConv(inputs, outputs, dilation, causal)
        self.conv2 = DilatedConv(outputs, outputs, dilation, causal)
        self.residual = nn.Conv1d(inputs, outputs, 1) if last else nn.Identity()

    def alone(self, length: int) -> bool:
        """Whether in a series of `length` steps each step is all that its output depends on."""
        return abs(self.conv1.reach) >= length

    def forward(self, x: Hidden, extent: Extent) -> Float[Tensor, "n outputs time"]:
        """What lies in padding stays 0 before and after every convolution."""
        return through([self], x, extent)


def through(blocks: Sequence[Block], x: Hidden, extent: Extent) -> Float[Tensor, "n outputs time"]:
    """`x` through one block after the other: a single step of the graph, since what a short series
    costs is calls and not arithmetic."""
    weights: list[Tensor] = []
    layout = []
    for block in blocks:
        convs: list[nn.Conv1d] = [block.conv1, block.conv2]
        if isinstance(block.residual, nn.Conv1d):
            convs.append(block.residual)
        layout.append((block.conv1.reach, 2 * len(convs)))
        weights += [w for conv in convs for w in (conv.weight, conv.bias) if w is not None]
    if not blocks:
        return x
    low = torch.get_autocast_dtype(x.device.type) if _autocast(x) else x.dtype
    learns = torch.is_grad_enabled()
    return _Blocks.apply(_row(x), extent, layout, low, learns, *weights).squeeze(2)


class _Blocks(torch.autograd.Function):
    """Blocks from weights. `layout` has of each block the reach of its convolutions and how many
    weights are its own; `low` is the precision of convolutions, the residuals keep their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        extent: Extent,
        layout: list[tuple[int, int]],
        low: torch.dtype,
        learns: bool,
        *weights: Tensor,
    ) -> Tensor:
        kernels = _lowered(weights, low)
        learns = learns and any(ctx.needs_input_grad)
        kept: list[Tensor | None] = []
        at = 0
        for reach, size in layout:
            own = kernels[at : at + size]
            at += size
            with torch.autocast(x.device.type, enabled=False):
                active = F.gelu(x).to(low)
                inner = extent.clear(convolve(active, own[0], own[1], reach, extent.length))
                middle = F.gelu(inner)
                out = convolve(middle, own[2], own[3], reach, extent.length)
                beside = x
                if size > 4:
                    beside = convolve(x.to(low), own[4], own[5], reach, extent.length)
                out = extent.clear((beside + out).to(x.dtype) if size > 4 else x + out.to(x.dtype))
            if learns:
                few = x.numel() <= REMEMBERED
                kept += [x, inner, active if few else None, middle if few else None]
            x = out
        if learns:
            ctx.save_for_backward(*kept, *kernels)
            ctx.extent, ctx.layout, ctx.low = extent, layout, low
            ctx.exact = [(w.shape, w.dtype) for w in weights]
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        extent, low, length = ctx.extent, ctx.low, ctx.extent.length
        count = 4 * len(ctx.layout)
        kept, kernels = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        gelu_back = torch.ops.aten.gelu_backward
        grad = extent.clear(grads[0].clone())
        found: list[Tensor] = []
        at = len(kernels)
        for depth in reversed(range(len(ctx.layout))):
            reach, size = ctx.layout[depth]
            at -= size
            own = kernels[at : at + size]
            x, inner, active, middle = kept[4 * depth : 4 * depth + 4]
            active = F.gelu(x).to(low) if active is None else active
            middle = F.gelu(inner) if middle is None else middle
            grown = grad.to(low)
            behind, *second = convolve_back(grown, middle, own[2], reach, length)
            behind = extent.clear(gelu_back(behind, inner))
            front, *first = convolve_back(behind, active, own[0], reach, length)
            into = gelu_back(front.to(x.dtype), x)
            third: list[Tensor] = []
            if size > 4:
                beside, *third = convolve_back(grown, x.to(low), own[4], reach, length)
                into += beside.to(x.dtype)
            else:
                into += grad
            grad = extent.clear(into)
            found = [*first, *second, *third, *found]
        return grad, None, None, None, None, *_restored(found, ctx.exact)


def _lowered(weights: Sequence[Tensor], low: torch.dtype) -> list[Tensor]:
    """Kernels as those of pictures one row high, channels last, and biases, in a precision."""
    rows = [w.unsqueeze(2) if w.dim() == 3 else w for w in weights]
    if weights[0].dtype == low:
        return rows
    lower = [
        torch.empty_like(
            row,
            dtype=low,
            memory_format=torch.channels_last if row.dim() == 4 else torch.preserve_format,
        )
        for row in rows
    ]
    torch._foreach_copy_(lower, rows)
    return lower


def _restored(
    found: Sequence[Tensor], exact: Sequence[tuple[torch.Size, torch.dtype]]
) -> list[Tensor]:
    """Gradients in the shapes and precisions of their weights."""
    shaped = [g.reshape(shape) for g, (shape, _) in zip(found, exact, strict=True)]
    if all(g.dtype == dtype for g, (_, dtype) in zip(shaped, exact, strict=True)):
        return shaped
    out = [g.new_empty(shape, dtype=dtype) for g, (shape, dtype) in zip(shaped, exact, strict=True)]
    torch._foreach_copy_(out, shaped)
    return out


def convolve(x: Row, kernel: Kernel, bias: Tensor | None, reach: int, length: int) -> Out:
    """Convolution over time with taps `reach` apart: on both sides of a step, or where `reach` is
    negative on the step and before it. One tap is a 1×1 convolution whatever the reach.

    Taps that in a series of `length` steps would meet nothing but padding are left out, which is
    exact: with TS2Vec's encoder half of all work at 150 steps, three of its ten blocks and two
    thirds of its widest.
    """
    x, kernel, padding, apart, _ = _reduced(x, kernel, reach, length)
    if _is_product(x, kernel):
        return _raised(F.linear(_flat(x), kernel[:, :, 0, 0], bias))
    return F.conv2d(x, kernel, bias, padding=(0, padding), dilation=(1, apart))


def convolve_back(
    grad: Out, x: Row, kernel: Kernel, reach: int, length: int
) -> tuple[Row, Kernel, Tensor]:
    """Gradients of `convolve` with respect to x, kernel and bias."""
    time = x.shape[-1]
    wide, few, padding, apart, taps = _reduced(x, kernel, reach, length)
    rows = _flat(grad).flatten(0, 1)
    if _is_product(wide, few):
        into = _raised((rows @ few[:, :, 0, 0]).unflatten(0, (len(grad), time)))
        weight = (rows.T @ _flat(wide).flatten(0, 1))[:, :, None, None]
    else:
        into, weight, _ = torch.ops.aten.convolution_backward(
            grad, wide, few, None, [1, 1], [0, padding], [1, apart], False, [0, 0], 1,
            [True, True, False],
        )  # fmt: skip
    bias = rows.sum(0)  # the kernel's own is slower
    if few.shape[-1] < kernel.shape[-1]:
        whole = torch.zeros_like(kernel)
        whole[..., taps] = weight
        weight = whole
    return into[..., into.shape[-1] - time :], weight, bias


def _reduced(
    x: Row, kernel: Kernel, reach: int, length: int
) -> tuple[
    Float[Tensor, "n inputs 1 wide"], Float[Tensor, "outputs inputs 1 few"], int, int, slice
]:
    """Input, the taps that meet it, padding on both sides, dilation, and which taps those are."""
    taps, apart = kernel.shape[-1], abs(reach)
    if taps == 1:
        return x, kernel, 0, 1, slice(0, 1)
    if reach > 0:
        if apart >= length:
            return x, kernel[..., 1:2], 0, 1, slice(1, 2)
        return x, kernel, apart, apart, slice(0, 3)
    alive = slice(2 - min(2, max(0, length - 1) // apart), 3)
    kept = kernel[..., alive]
    return F.pad(x, (apart * (kept.shape[-1] - 1), 0)), kept, 0, apart, alive


def _is_product(x: Row, kernel: Kernel) -> bool:
    """Whether a convolution is faster as a plain product: that of one tap over few steps, in the
    precision in which products are as fast as convolutions."""
    few = x.shape[0] * x.shape[-1] <= PRODUCT_ROWS
    return few and kernel.shape[-1] == 1 and kernel.dtype == torch.bfloat16


def _flat(x: Row) -> Float[Tensor, "n time width"]:
    """A view of what lies in memory as it is."""
    return x.squeeze(2).transpose(1, 2)


def _raised(x: Float[Tensor, "n time width"]) -> Row:
    """The inverse of `_flat`."""
    return x.transpose(1, 2).unsqueeze(2)


def _row(x: Hidden) -> Float[Tensor, "n width 1 time"]:
    """As pictures one row high, with the channels last in memory."""
    return _raised(x.transpose(1, 2).contiguous())


def _autocast(x: Tensor) -> bool:
    return x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
