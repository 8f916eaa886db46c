"""The residual block of dilated convolutions, with little memory and no work that meets padding.

A block keeps its input and what lies between its two convolutions; the GELUs are computed again in
the backward pass, so that memory is a third of what the plain graph would hold. All arrays lie in
memory as (n, time, channel), which the processor's convolution kernels take as they are.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_TAILS = 8

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
        """What `present` says. A few groups of rows that end together are cheaper to clear than
        single cells."""
        time = present.shape[1]
        lengths = present.sum(1)
        steps = torch.arange(time, device=present.device)
        if not bool((present == (steps < lengths[:, None])).all()):
            return cls(time, (), present[:, None, :])
        ends, counts = torch.unique_consecutive(lengths, return_counts=True)
        if len(ends) > MOST_TAILS:
            return cls(int(lengths.max()), (), present[:, None, :])
        stops = list(itertools.accumulate(counts.tolist()))
        rows = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
        tails = [(row, end) for row, end in zip(rows, ends.tolist(), strict=True) if end < time]
        return cls(int(lengths.max()), tuple(tails))

    def clear(self, x: Row) -> Row:
        """Padding set to 0, in place."""
        if self.keep is not None:
            x *= self.keep[:, :, None].to(x.dtype)
        for rows, end in self.tails:
            x[rows, ..., end:] = 0
        return x


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
        weights = [self.conv1.weight, self.conv1.bias, self.conv2.weight, self.conv2.bias]
        if isinstance(self.residual, nn.Conv1d):
            weights += [self.residual.weight, self.residual.bias]
        low = torch.get_autocast_dtype(x.device.type) if _autocast(x) else x.dtype
        return _Block.apply(_row(x), extent, self.conv1.reach, low, *weights).squeeze(2)


class _Block(torch.autograd.Function):
    """A block from weights; `low` is the precision of its convolutions, the residual keeps its
    own."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, extent: Extent, reach: int, low: torch.dtype, *weights: Tensor
    ) -> Tensor:
        kernels = [w.unsqueeze(2) if w.dim() == 3 else w for w in (w.to(low) for w in weights)]
        with torch.autocast(x.device.type, enabled=False):
            inner = convolve(F.gelu(x).to(low), kernels[0], kernels[1], reach, extent.length)
            inner = extent.clear(inner)
            out = convolve(F.gelu(inner), kernels[2], kernels[3], reach, extent.length)
            if len(kernels) > 4:
                out = out + convolve(x.to(low), kernels[4], kernels[5], reach, extent.length)
                out = extent.clear(out.to(x.dtype))
            else:
                out = extent.clear(x + out.to(x.dtype))
        ctx.save_for_backward(x, inner, *weights)
        ctx.extent, ctx.reach, ctx.low = extent, reach, low
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, inner, *weights = ctx.saved_tensors
        extent, reach, low = ctx.extent, ctx.reach, ctx.low
        length = extent.length
        kernels = [w.to(low).unsqueeze(2) for w in weights[::2]]
        gelu_back = torch.ops.aten.gelu_backward
        out = extent.clear(grads[0].clone())
        grown = out.to(low)
        middle, *second = convolve_back(grown, F.gelu(inner), kernels[1], reach, length)
        middle = extent.clear(gelu_back(middle, inner))
        front, *first = convolve_back(middle, F.gelu(x).to(low), kernels[0], reach, length)
        into = gelu_back(front.to(x.dtype), x)
        found = [*first, *second]
        if len(kernels) > 2:
            beside, *third = convolve_back(grown, x.to(low), kernels[2], reach, length)
            found += third
            into += beside.to(x.dtype)
        else:
            into += out
        shaped = [g.reshape(w.shape).to(w.dtype) for g, w in zip(found, weights, strict=True)]
        return into, None, None, None, *shaped


def convolve(x: Row, kernel: Kernel, bias: Tensor | None, reach: int, length: int) -> Out:
    """Convolution over time with taps `reach` apart: on both sides of a step, or where `reach` is
    negative on the step and before it. One tap is a 1×1 convolution whatever the reach.

    Taps that in a series of `length` steps would meet nothing but padding are left out, which is
    exact: with TS2Vec's encoder half of all work at 150 steps, three of its ten blocks and two
    thirds of its widest.
    """
    x, kernel, padding, apart, _ = _reduced(x, kernel, reach, length)
    return F.conv2d(x, kernel, bias, padding=(0, padding), dilation=(1, apart))


def convolve_back(
    grad: Out, x: Row, kernel: Kernel, reach: int, length: int
) -> tuple[Row, Kernel, Tensor]:
    """Gradients of `convolve` with respect to x, kernel and bias."""
    time = x.shape[-1]
    wide, few, padding, apart, taps = _reduced(x, kernel, reach, length)
    into, weight, _ = torch.ops.aten.convolution_backward(
        grad, wide, few, None, [1, 1], [0, padding], [1, apart], False, [0, 0], 1,
        [True, True, False],
    )  # fmt: skip
    bias = grad.squeeze(2).transpose(1, 2).flatten(0, 1).sum(0)  # the kernel's own is slower
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


def _row(x: Hidden) -> Float[Tensor, "n width 1 time"]:
    """As pictures one row high, with the channels last in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(2)


def _autocast(x: Tensor) -> bool:
    return x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
