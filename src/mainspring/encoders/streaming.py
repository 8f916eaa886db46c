"""Tokens of a series as it arrives, one sample at a time, equal to those of the whole series.

    stream = Stream(encoder)                 # dilated, causal, values as they are
    for values in sensor:                    # (channel,)
        token = stream.push(values)          # (dim,)

A causal convolution of three taps needs two earlier inputs, `dilation` and twice `dilation` steps
ago, so each keeps a ring of its last inputs. TS2Vec's encoder then spends 0.64 million
multiplications a sample, however long the series is, and keeps 4.2 MB.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from mainspring.encoders.dilated import Dilated
from mainspring.encoders.dilated_block import Block, DilatedConv
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, DataError

STEP, LAST = "step", "last"
"""Names in a state: the count of samples, and the last observed values, NaN before the first."""


class Stream:
    """A causal encoder with a memory.

    Args:
        encoder: `Dilated` with `causal=True` and `normalise="none"`; its weights are copied.
        series: How many series arrive side by side, each with values at every push; None is one
            without that axis.

    Raises:
        ConfigError: If the encoder cannot be computed step by step.
    """

    def __init__(self, encoder: Encoder, series: int | None = None) -> None:
        _require_causal(encoder)
        assert isinstance(encoder, Dilated)
        if series is not None and series < 1:
            raise ConfigError(f"series is {series}; it must be at least 1, or None for one series.")
        self.encoder = encoder
        self.series = series
        blocks = [block for block in encoder.blocks if isinstance(block, Block)]
        with torch.no_grad():
            self._blocks = [
                (_Ring(block.conv1, series or 1), _Ring(block.conv2, series or 1), block.residual)
                for block in blocks
            ]
        self._last = torch.full((series or 1, encoder.channels), torch.nan)
        self._step = 0

    @torch.no_grad()
    def push(self, values: Shaped[Tensor, "*n channel"]) -> Float[Tensor, "*n dim"]:
        """The token of the next step.

        Args:
            values: (channel,), or (n, channel) where several series arrive; NaN or infinity where
                missing.

        Raises:
            DataError: If the shape is another.
        """
        values = torch.as_tensor(values, dtype=torch.float32)
        values = values.masked_fill(values.isinf(), torch.nan)  # it would stay in the memory
        lead = () if self.series is None else (self.series,)
        if values.shape != (*lead, self.encoder.channels):
            raise DataError(
                f"Values of shape {tuple(values.shape)} were pushed, where "
                f"{(*lead, self.encoder.channels)} was expected, (series, channel); several series "
                "side by side need Stream(encoder, series=n)."
            )
        sample = values.reshape(-1, self.encoder.channels).cpu()
        self._last = torch.where(sample.isnan(), self._last, sample)
        sample = self._last if self.encoder.missing == "fill" else sample
        sample = sample[:, None].to(self.encoder.project.weight.device)
        hidden = self.encoder.stem(self.encoder.prepare(sample))[:, :, 0]
        for first, second, residual in self._blocks:
            inner = first.push(F.gelu(hidden), self._step)
            beside = residual(hidden[:, :, None])[:, :, 0]
            hidden = beside + second.push(F.gelu(inner), self._step)
        self._step += 1
        return hidden.reshape(*lead, -1)

    def reset(self) -> None:
        """Forgets everything: the next sample is the first of its series."""
        self._step = 0
        for ring in self._rings().values():
            ring.past.zero_()
        self._last = torch.full_like(self._last, torch.nan)

    def state_dict(self) -> dict[str, Tensor]:
        """What was seen so far, as plain tensors: to stop here and go on elsewhere."""
        state = {name: ring.past.clone() for name, ring in self._rings().items()}
        return {**state, STEP: torch.tensor(self._step), LAST: self._last.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a state that `state_dict` gave.

        Raises:
            ConfigError: If it is of another encoder, or of another number of series.
        """
        rings = self._rings()
        want = {name: tuple(ring.past.shape) for name, ring in rings.items()}
        want |= {STEP: (), LAST: tuple(self._last.shape)}
        got = {name: tuple(value.shape) for name, value in state.items()}
        if got != want:
            name = next(n for n in [*want, *got] if got.get(n) != want.get(n))
            raise ConfigError(
                f"The state does not fit this stream: {name} is {got.get(name, 'not there')}, "
                f"where {want.get(name, 'nothing')} was expected. It must come from a stream of "
                "the same encoder and the same number of series."
            )
        for name, ring in rings.items():
            ring.past.copy_(state[name])
        self._step = int(state[STEP])
        self._last = state[LAST].clone()

    def _rings(self) -> dict[str, _Ring]:
        return {
            f"blocks.{depth}.conv{number}": ring
            for depth, (first, second, _) in enumerate(self._blocks)
            for number, ring in ((1, first), (2, second))
        }


class _Ring:
    """A causal convolution with its last inputs; before the first sample all were 0, as padding is.

    Args:
        conv: Of three taps.
        count: Series side by side.
    """

    def __init__(self, conv: DilatedConv, count: int) -> None:
        self.apart = -conv.reach
        self.kernel = conv.weight.permute(2, 1, 0).flatten(0, 1).clone()  # oldest tap first
        assert conv.bias is not None
        self.bias = conv.bias.clone()
        self.past = self.kernel.new_zeros(2 * self.apart, count, conv.in_channels)

    def push(self, now: Float[Tensor, "n inputs"], step: int) -> Float[Tensor, "n outputs"]:
        """The output at this step; the oldest input makes room for the new one."""
        oldest, middle = step % len(self.past), (step + self.apart) % len(self.past)
        inputs = torch.cat([self.past[oldest], self.past[middle], now], 1)
        self.past[oldest] = now
        return torch.addmm(self.bias, inputs, self.kernel)


def _require_causal(encoder: Encoder) -> None:
    """Raises where a token depends on what has not arrived yet."""
    if not isinstance(encoder, Dilated):
        raise ConfigError(
            f"{type(encoder).__name__} has no way to be computed step by step; train with encoder "
            'dilated and architecture={"series": {"causal": True, "normalise": "none"}}.'
        )
    if not encoder.settings["causal"] or encoder.normalise != "none":
        raise ConfigError(
            f"The encoder has causal={encoder.settings['causal']} and "
            f"normalise={encoder.normalise!r}: its tokens depend on samples that have not arrived "
            'yet. Train with architecture={"series": {"causal": True, "normalise": "none"}}, or '
            "encode past windows with mainspring.encoders.cone.sliding."
        )
