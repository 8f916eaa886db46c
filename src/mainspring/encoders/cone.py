"""The last token of every window of a series, without computing the tokens before it.

TS2Vec's "sliding causal" encoding gives step t the last token of the encoder applied to the steps
[t - context, t] alone (Yue et al., AAAI 2022, Section 4.2, and `encode(causal=True,
sliding_length=1)` of the authors' code), so that no step knows its future, whatever the encoder.

    tokens = sliding(encoder, torch.from_numpy(series), context=200)     # (time, dim)

Two things make it exact and cheap. Only the positions on which the last token depends are computed,
a cone that thins out from block to block: 7.6 million multiplications a window of 201 steps instead
of 128 million. And where windows of one series overlap, positions so far from a window's edges that
they do not feel them have the same hidden state in every window: it is computed once for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mainspring.encoders.dilated import Dilated
from mainspring.encoders.dilated_block import Block, DilatedConv, Extent
from mainspring.errors import ConfigError

CONTEXT = 200
"""Steps before its own that a token sees, in the paper's forecasting and anomaly detection."""

BATCH = 512
"""Windows at a time: the matrices of a position then stay in the processor's cache."""

Column = Float[Tensor, "n width"]
Keep = Bool[Tensor, "n time"] | None


@dataclass(frozen=True)
class _Level:
    """The hidden states of n windows at one depth, a column (n, width) a position.

    Attributes:
        count: n.
        shared: Positions that windows of one series have in common; window i begins at row i of
            `whole`.
        whole: Hidden states (row, width) of that series.
        own: The other positions that are needed.
    """

    count: int
    shared: range
    whole: Tensor | None = None
    own: dict[int, Tensor] = field(default_factory=dict)

    def __getitem__(self, position: int) -> Column:
        if self.whole is not None and position in self.shared:
            return self.whole[position : position + self.count]
        return self.own[position]

    def gelu(self) -> _Level:
        """The same after the activation."""
        whole = None if self.whole is None else F.gelu(self.whole)
        own = {position: F.gelu(column) for position, column in self.own.items()}
        return _Level(self.count, self.shared, whole, own)


@torch.no_grad()
def last_tokens(
    encoder: Dilated,
    windows: Float32[Tensor, "n time channel"],
    present: Keep = None,
    hide_last: bool = False,
) -> Float32[Tensor, "n dim"]:
    """`encoder.tokens(windows, present)[:, -1]` of an encoder in evaluation mode.

    Args:
        encoder: On any device, with any settings.
        windows: NaN where values are missing.
        present: False at padding.
        hide_last: Let each window's last step enter as 0, as steps are hidden in TS2Vec's training,
            so that its token comes from the steps before it alone (Section 4.3).
    """
    if hide_last:
        windows = windows.clone()
        windows[:, -1] = torch.nan
    hidden = encoder.stem(encoder.prepare(windows, present)).permute(2, 0, 1).contiguous()
    if hide_last:  # some encoders fill in what is missing
        hidden[-1] = 0
    keep = None if present is None or bool(present.all()) else present
    stem = _Level(len(windows), range(0), own=dict(enumerate(hidden)))
    return _last(encoder, stem, windows.shape[1], keep, None)


@torch.no_grad()
def sliding(
    encoder: Dilated,
    series: Float32[Tensor, "time channel"],
    context: int = CONTEXT,
    batch: int = BATCH,
    hide_last: bool = False,
) -> Float32[Tensor, "time dim"]:
    """One token a step, each from the step itself and at most `context` steps before it.

    Args:
        encoder: On any device, with any settings; with `normalise="recording"` each window has
            statistics of its own.
        series: NaN where values are missing.
        context: Steps before its own that a token sees; fewer exist at the series' start.
        batch: Windows at a time.
        hide_last: As in `last_tokens`.

    Returns:
        On the encoder's device.

    Raises:
        ConfigError: If `context` is negative.
    """
    if context < 0:
        raise ConfigError(f"context is {context} steps; it must not be negative.")
    time, device = len(series), encoder.project.weight.device
    context = max(0, min(context, time - 1))  # what lies before the start is padding at any length
    length, count = context + 1, min(batch, time)
    each_alone = encoder.normalise == "none" and not (
        encoder.missing == "fill" and bool(series.isnan().any())
    )
    padded = F.pad(series.to(device), (0, 0, context, 0), value=torch.nan)
    there = torch.arange(len(padded), device=device) >= context
    out = torch.empty(time, encoder.dim, device=device)
    for start in range(0, time, max(1, count)):
        at = min(start, time - count)  # the last batch moves back: the shapes stay the same
        rows = slice(at, at + count + context)
        present = None if at >= context else there[rows]
        if each_alone:
            tokens = _consecutive(encoder, padded[rows], present, length, hide_last)
        else:
            windows = padded[rows].unfold(0, length, 1).transpose(1, 2)
            keep = None if present is None else present.unfold(0, length, 1)
            tokens = last_tokens(encoder, windows, keep, hide_last)
        out[at : at + count] = tokens
    return out


def _consecutive(
    encoder: Dilated,
    series: Float32[Tensor, "row channel"],
    present: Bool[Tensor, "row"] | None,
    length: int,
    hide_last: bool,
) -> Float32[Tensor, "n dim"]:
    """The last tokens of all windows of `length` rows in a series of which each value enters as it
    is, whatever window it stands in."""
    one = None if present is None else present[None]
    hidden = encoder.stem(encoder.prepare(series[None], one))[0].T.contiguous()
    count, own = len(series) - length + 1, {}
    if hide_last:
        own[length - 1] = hidden.new_zeros(count, hidden.shape[1])
    stem = _Level(count, range(length - len(own)), hidden, own)
    keep = None if present is None else present.unfold(0, length, 1)
    extent = Extent(len(series)) if one is None else Extent.of(one)
    return _last(encoder, stem, length, keep, extent)


def _last(
    encoder: Dilated, level: _Level, length: int, keep: Keep, extent: Extent | None
) -> Float[Tensor, "n dim"]:
    """Walks the cone: back from the last position to what it needs, then forward through that."""
    blocks = [block for block in encoder.blocks if isinstance(block, Block)]
    shared = [level.shared]
    for block in blocks:
        left, right = (2 * o for o in (-min(_offsets(block.conv1)), max(_offsets(block.conv1))))
        shared.append(range(shared[-1].start + left, shared[-1].stop - right))
    needed = [{length - 1}]
    for block, common in zip(reversed(blocks), reversed(shared), strict=False):
        own = needed[0].difference(common)
        inner = _sources(block.conv2, own, length)
        needed.insert(0, own | _sources(block.conv1, inner, length))
    deepest = max(
        (k for k, common in enumerate(shared) if not needed[k].isdisjoint(common)), default=0
    )
    for depth, block in enumerate(blocks, start=1):
        whole = None
        if extent is not None and level.whole is not None and depth <= deepest:
            whole = block(level.whole.T[None], extent)[0].T
        own = needed[depth].difference(shared[depth])
        columns = _through(block, level, own, length, keep)
        level = _Level(level.count, shared[depth], whole, columns)
    return level[length - 1]


def _through(
    block: Block, level: _Level, positions: set[int], length: int, keep: Keep
) -> dict[int, Tensor]:
    """A block's output at some positions, cleared where there is padding."""

    def cleared(column: Tensor, position: int) -> Tensor:
        return column if keep is None else column * keep[:, position, None]

    if not positions:
        return {}
    active, inner = level.gelu(), {}
    first, second = _matrices(block.conv1), _matrices(block.conv2)
    for q in _sources(block.conv2, positions, length):
        inner[q] = cleared(_at(block.conv1, first, active, q, length), q)
    middle = _Level(level.count, range(0), own=inner).gelu()
    out = {}
    for p in positions:
        beside = level[p]
        if isinstance(block.residual, torch.nn.Conv1d):
            beside = F.linear(beside, block.residual.weight[:, :, 0], block.residual.bias)
        out[p] = cleared(beside + _at(block.conv2, second, middle, p, length), p)
    return out


def _at(conv: DilatedConv, matrices: Tensor, level: _Level, position: int, length: int) -> Tensor:
    """A convolution's output at one position: its taps within the window as one product."""
    taps = [tap for tap, o in enumerate(_offsets(conv)) if 0 <= position + o < length]
    columns = [level[position + _offsets(conv)[tap]] for tap in taps]
    kernel = matrices[taps[0] : taps[-1] + 1].flatten(0, 1)
    assert conv.bias is not None
    return torch.addmm(conv.bias, torch.cat(columns, 1), kernel)


def _matrices(conv: DilatedConv) -> Float[Tensor, "tap inputs outputs"]:
    return conv.weight.permute(2, 1, 0).contiguous()


def _offsets(conv: DilatedConv) -> tuple[int, int, int]:
    """Where the taps lie, relative to the position that they give."""
    reach = conv.reach
    return (2 * reach, reach, 0) if reach < 0 else (-reach, 0, reach)


def _sources(conv: DilatedConv, positions: Iterable[int], length: int) -> set[int]:
    """The positions within a window on which a convolution's output at some positions depends."""
    return {p + o for p in positions for o in _offsets(conv) if 0 <= p + o < length}
