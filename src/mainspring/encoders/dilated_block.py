"""The residual block of dilated convolutions, with little memory and no work that meets padding.

A block keeps its input and what lies between its two convolutions; in long series the GELUs are
computed again in the backward pass, so that memory is a third of what the plain graph would hold.
In short ones calls cost more than arithmetic: all blocks are one step of the graph. Arrays lie in
memory as (n, time, channel), which the processor's convolution kernels take as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_TAILS = 8

REMEMBERED = 2**20
"""Values in a block's input up to which what its GELUs gave is kept for the backward pass; from
there on memory counts for more, and they are computed again."""

PRODUCT_ROWS = 2**13
"""Steps of all series up to which a convolution of one tap is taken as a product."""

Hidden = Float[Tensor, "n width time"]
Steps = Float[Tensor, "n time inputs"]
Out = Float[Tensor, "n time outputs"]
Kernel = Float[Tensor, "outputs inputs *one_few"]
"""Of a convolution as a picture's, (outputs, inputs, 1, few); of a product (outputs, inputs)."""


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
        met = Met.of(self.reach, input.shape[2])
        kernel = _part(self.weight, met.taps, False)
        return convolve(_steps(input), kernel, self.bias, met).transpose(1, 2)


class Met(NamedTuple):
    """What of a convolution meets a series. Taps that would meet nothing but padding are left out,
    which is exact: with TS2Vec's encoder half of all work at 150 steps, three of its ten blocks
    and two thirds of its widest.

    Attributes:
        taps: Those that meet something.
        apart: Steps from one of them to the next.
        before: Zeros to put before the series.
        around: Zeros to assume on both sides of what that gives.

    Where a single tap meets something no step sees another: padding stays to itself.
    """

    taps: slice = slice(0, 1)
    apart: int = 1
    before: int = 0
    around: int = 0

    @property
    def alone(self) -> bool:
        """Whether a single tap meets something."""
        return self.taps.stop - self.taps.start == 1

    @classmethod
    def of(cls, reach: int, length: int) -> Met:
        """Three taps `reach` apart on both sides of a step, or where `reach` is negative on the
        step and before it, in series of `length` steps."""
        apart = abs(reach)
        if reach > 0:
            return cls(slice(1, 2)) if apart >= length else cls(slice(0, 3), apart, 0, apart)
        behind = min(2, max(0, length - 1) // apart)
        return cls(slice(2 - behind, 3), apart, apart * behind)


class Extent(NamedTuple):
    """How far the series of a batch reach within its arrays.

    Attributes:
        length: Steps of the longest.
        tails: Rows that end together, and where; what lies beyond is padding.
        keep: Instead of tails, False at padding, (n, time, 1).
    """

    length: int
    tails: tuple[tuple[slice, int], ...] = ()
    keep: Bool[Tensor, "n time 1"] | None = None

    @classmethod
    def of(cls, present: Bool[Tensor, "n time"]) -> Extent:
        """What `present` says. A few groups of rows that end together, such as one of two crops of
        each series, are cheaper to clear than single cells."""
        there, time = present.cpu().numpy(), present.shape[1]
        lengths = there.sum(1)
        if not (there == (np.arange(time) < lengths[:, None])).all():
            return cls(time, (), present[:, :, None])
        ends = lengths.tolist()
        tails = [(rows, ends[rows.start]) for rows in _alike(ends)]
        if len(tails) > MOST_TAILS:
            return cls(max(ends), (), present[:, :, None])
        return cls(max(ends), tuple((rows, end) for rows, end in tails if end < time))

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return self.keep is not None or bool(self.tails)

    def clear(self, x: Steps) -> Steps:
        """Padding set to 0, in place."""
        if self.keep is not None:
            x *= self.keep
        for rows, end in self.tails:
            x[rows, end:].zero_()
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
    return _Blocks.apply(_steps(x).to(low), extent, layout, learns, *weights).transpose(1, 2)


def keep(
    x: Hidden, steps: Int64[Tensor, "n kept"], extent: Extent
) -> Float[Tensor, "n width kept"]:
    """Some steps of each series, each at most once; 0 beyond `extent`, whatever step is named."""
    return _Kept.apply(x.transpose(1, 2), steps, extent).transpose(1, 2)


class _Kept(torch.autograd.Function):
    """Rows by their number among those of all series, which go back whence they came."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Tensor, extent: Extent) -> Tensor:
        n, time, width = x.shape
        rows = steps.clamp(min=0) + time * torch.arange(n, device=x.device)[:, None]
        ctx.rows = rows.flatten()[:, None].expand(-1, width)
        ctx.shape, ctx.extent = x.shape, extent
        return extent.clear(x.flatten(0, 1).gather(0, ctx.rows).view(n, -1, width))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = ctx.extent.clear(grads[0].clone()) if ctx.extent.padded else grads[0]
        n, time, width = ctx.shape
        into = grad.new_zeros(n * time, width).scatter_add_(0, ctx.rows, grad.flatten(0, 1))
        return into.view(ctx.shape), None, None


ALONE = Met()
"""A convolution of one tap."""


class _Blocks(torch.autograd.Function):
    """Blocks from weights, which are brought to the precision of x. `layout` has of each block the
    reach of its convolutions and how many weights are its own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        extent: Extent,
        layout: list[tuple[int, int]],
        learns: bool,
        *weights: Tensor,
    ) -> Tensor:
        mets = [Met.of(reach, extent.length) for reach, _ in layout]
        live = [
            met.taps if i < 4 else slice(0, 1)
            for met, (_, size) in zip(mets, layout, strict=True)
            for i in range(size)
        ]
        short = x.shape[0] * x.shape[1] <= PRODUCT_ROWS and x.dtype == torch.bfloat16
        kernels = _lowered(weights, live, x.dtype, short)
        learns = learns and any(ctx.needs_input_grad)
        kept: list[Tensor | None] = []
        at = 0
        for depth, (met, (_, size)) in enumerate(zip(mets, layout, strict=True)):
            own = kernels[at : at + size]
            at += size
            seen = not met.alone or depth + 1 == len(mets) or not mets[depth + 1].alone
            with torch.autocast(x.device.type, enabled=False):
                active = F.gelu(x)
                inner = convolve(active, own[0], own[1], met)
                inner = inner if met.alone else extent.clear(inner)
                middle = F.gelu(inner)
                out = convolve(middle, own[2], own[3], met)
                out.add_(convolve(x, own[4], own[5], ALONE) if size > 4 else x)
                out = extent.clear(out) if seen else out
            if learns:
                few = x.numel() <= REMEMBERED
                kept += [x, inner, active if few else None, middle if few else None]
            x = out
        if learns:
            ctx.save_for_backward(*kept, *kernels)
            ctx.extent, ctx.layout, ctx.mets, ctx.live = extent, layout, mets, live
            ctx.exact = [(w.shape, w.dtype) for w in weights]
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        extent = ctx.extent
        count = 4 * len(ctx.layout)
        kept, kernels = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        gelu_back = torch.ops.aten.gelu_backward
        grad = grads[0].contiguous()
        if extent.padded:
            grad = extent.clear(grad.clone())
        found: list[Tensor] = []
        at = len(kernels)
        for depth in reversed(range(len(ctx.layout))):
            met, size = ctx.mets[depth], ctx.layout[depth][1]
            at -= size
            own = kernels[at : at + size]
            x, inner, active, middle = kept[4 * depth : 4 * depth + 4]
            active = F.gelu(x) if active is None else active
            middle = F.gelu(inner) if middle is None else middle
            behind, *second = convolve_back(grad, middle, own[2], met)
            behind = gelu_back(behind, inner)
            behind = behind if met.alone else extent.clear(behind)
            front, *first = convolve_back(behind, active, own[0], met)
            into = gelu_back(front, x)
            third: list[Tensor] = []
            if size > 4:
                beside, *third = convolve_back(grad, x, own[4], ALONE)
            else:
                beside = grad
            grad = into.add_(beside)
            grad = grad if met.alone else extent.clear(grad)
            found = [*first, *second, *third, *found]
        return grad, None, None, None, *_restored(found, ctx.live, ctx.exact)


def _part(weight: Tensor, taps: slice, short: bool) -> Kernel:
    """The taps of a kernel that meet something: as a matrix where it is one and series are short,
    for which a plain product is faster in bfloat16."""
    if short and taps.stop - taps.start == 1:
        return weight.select(2, taps.start)
    return weight[..., taps].unsqueeze(2)


def _lowered(
    weights: Sequence[Tensor], live: Sequence[slice], low: torch.dtype, short: bool
) -> list[Tensor]:
    """The live taps of kernels, and biases, in a precision and as the processor takes them."""
    parts = [
        _part(w, taps, short) if w.dim() == 3 else w for w, taps in zip(weights, live, strict=True)
    ]
    if weights[0].dtype == low:
        return parts
    lower = [
        torch.empty_like(part, dtype=low, memory_format=torch.channels_last)
        if part.dim() == 4
        else part.new_empty(part.shape, dtype=low)
        for part in parts
    ]
    torch._foreach_copy_(lower, parts)
    return lower


def _restored(
    found: Sequence[Tensor],
    live: Sequence[slice],
    exact: Sequence[tuple[torch.Size, torch.dtype]],
) -> list[Tensor]:
    """Gradients in the shapes and precisions of their weights; 0 for taps that met nothing."""
    whole, parts = [], []
    for grad, taps, (shape, dtype) in zip(found, live, exact, strict=True):
        if len(shape) < 3:
            part = out = grad.new_empty(shape, dtype=dtype)
        else:
            every = taps.stop - taps.start == shape[2]
            out = (grad.new_empty if every else grad.new_zeros)(shape, dtype=dtype)
            part = _part(out, taps, grad.dim() == 2)
        whole.append(out)
        parts.append(part)
    torch._foreach_copy_(parts, list(found))
    return whole


def convolve(x: Steps, kernel: Kernel, bias: Tensor | None, met: Met) -> Out:
    """Convolution over time with the taps that meet something."""
    if kernel.dim() == 2:
        return F.linear(x, kernel, bias)
    x = F.pad(x, (0, 0, met.before, 0)) if met.before else x
    around, apart = (0, met.around), (1, met.apart)
    return _flat(F.conv2d(_row(x), kernel, bias, padding=around, dilation=apart))


def convolve_back(grad: Out, x: Steps, kernel: Kernel, met: Met) -> tuple[Steps, Kernel, Tensor]:
    """Gradients of `convolve` with respect to x, kernel and bias."""
    rows = grad.flatten(0, 1)
    bias = rows.sum(0)  # the kernel's own is slower
    if kernel.dim() == 2:
        return (rows @ kernel).view(x.shape), rows.T @ x.flatten(0, 1), bias
    wide = F.pad(x, (0, 0, met.before, 0)) if met.before else x
    into, weight, _ = torch.ops.aten.convolution_backward(
        _row(grad), _row(wide), kernel, None, [1, 1], [0, met.around], [1, met.apart],
        False, [0, 0], 1, [True, True, False],
    )  # fmt: skip
    return _flat(into)[:, met.before :] if met.before else _flat(into), weight, bias


def _row(x: Steps) -> Float[Tensor, "n inputs 1 time"]:
    """As pictures one row high, with the channels last in memory: a view."""
    return x.unsqueeze(1).permute(0, 3, 1, 2)


def _flat(x: Float[Tensor, "n inputs 1 time"]) -> Steps:
    """The inverse of `_row`."""
    return x.permute(0, 2, 3, 1).squeeze(1)


def _steps(x: Hidden) -> Steps:
    return x.transpose(1, 2).contiguous()


def _autocast(x: Tensor) -> bool:
    return x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
