"""Series in memory to vectors: one each, or one a step, at each series' true length.

    whole(encoder, [first, second])                      # (2, dim)
    steps(encoder, [first, second])                      # [(time, dim), (time, dim)]
    steps(encoder, [long], context=200)                  # no step knows its future
    steps(encoder, [long], window=25)                    # maximum over 25 steps around each

Series of one length are encoded side by side and none is padded, so a vector does not depend on
which others were encoded with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from mainspring.encoders.cone import sliding
from mainspring.encoders.dilated import Dilated
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError
from mainspring.evaluate.forward import encode

STEPS_AT_ONCE = 1 << 13
"""Time steps a forward pass, or a single series if that is longer: 10 MB of tokens 320 wide. More
would leave the processor's caches and take longer."""

Values = Float32[np.ndarray, "_time _channel"]
Tokens = Float32[np.ndarray, "_time dim"]


def whole(encoder: Encoder, series: Sequence[Values]) -> Float32[np.ndarray, "n dim"]:
    """One vector a series, pooled as the encoder does.

    Raises:
        DataError: If a series is empty, or has other channels than the encoder reads.
    """
    out = np.empty((len(series), encoder.dim), np.float32)
    for rows in _alike(series):
        samples = torch.from_numpy(np.stack([series[row] for row in rows]))
        out[rows] = encode(encoder, samples, torch.ones(samples.shape[:2], dtype=torch.bool))
    return out


def steps(
    encoder: Encoder,
    series: Sequence[Values],
    window: int | None = None,
    context: int | None = None,
) -> list[Tokens]:
    """One vector a step.

    Args:
        encoder: Runs on the device it is on.
        series: NaN where values are missing.
        window: Take the maximum over so many steps around each (stride 1, same length: TS2Vec's
            `encoding_window`); of an even number one more lies before the step than after it.
        context: Let each step see itself and so many steps before it alone. The vector is then the
            last token of that window, and of an encoder without a token a step, its vector.

    Raises:
        ConfigError: If the encoder gives no token a step and no context is given.
        DataError: If a series is empty, or has other channels than the encoder reads.
    """
    found: list[Tokens] = [np.empty((0, encoder.dim), np.float32)] * len(series)
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            for rows in _alike(series):
                samples = torch.from_numpy(np.stack([series[row] for row in rows]))
                tokens = _tokens(encoder, samples, context)
                if window is not None:
                    tokens = _highest(tokens, window)
                for row, own in zip(rows, tokens.float().cpu().numpy(), strict=True):
                    found[row] = own
    finally:
        encoder.train(training)
    return found


def _alike(series: Sequence[Values]) -> Iterator[list[int]]:
    """Rows of equal length, as many as fit in a forward pass."""
    lengths = np.array([len(values) for values in series])
    if len(series) and not lengths.min():
        raise DataError(f"Series {int(lengths.argmin())} is empty: a series needs one step.")
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length).tolist()
        some = max(1, STEPS_AT_ONCE // int(length))
        yield from (rows[at : at + some] for at in range(0, len(rows), some))


def _tokens(
    encoder: Encoder, samples: Float32[Tensor, "n time channel"], context: int | None
) -> Float32[Tensor, "n time dim"]:
    device = next(encoder.parameters()).device
    if context is not None and isinstance(encoder, Dilated):
        return torch.stack([sliding(encoder, values, context) for values in samples])
    if context is not None:
        return torch.stack([_windows(encoder, values.to(device), context) for values in samples])
    tokens = encoder.tokens(samples.to(device))
    if tokens.shape[:-1] != samples.shape[:2]:
        raise ConfigError(
            f"{type(encoder).__name__} gives no token for each step, but {tuple(tokens.shape[1:])} "
            f'for {samples.shape[1]} steps; ask for pool="series", give a context, or use encoder '
            "dilated."
        )
    return tokens.float()


def _windows(
    encoder: Encoder, values: Float32[Tensor, "time channel"], context: int
) -> Float32[Tensor, "time dim"]:
    """The vectors of the windows that end at each step."""
    context = min(context, len(values) - 1)
    padded = F.pad(values, (0, 0, context, 0), value=torch.nan)
    there = torch.arange(len(padded), device=values.device) >= context
    windows = padded.unfold(0, context + 1, 1).transpose(1, 2)
    present = there.unfold(0, context + 1, 1)
    some = max(1, STEPS_AT_ONCE // (context + 1))
    parts = zip(windows.split(some), present.split(some), strict=True)
    return torch.cat([encoder(window.contiguous(), keep).float() for window, keep in parts])


def _highest(tokens: Float32[Tensor, "n time dim"], window: int) -> Float32[Tensor, "n time dim"]:
    half = window // 2
    padded = F.pad(tokens.transpose(1, 2), (half, window - 1 - half), value=-torch.inf)
    return F.max_pool1d(padded, window, stride=1).transpose(1, 2)
