"""Optimisers and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from mainspring.errors import ConfigError, unknown

NAMES = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class Optimiser:
    """How weights change.

    Attributes:
        name: "adamw" (the default here: it needs no tuning from data set to data set) or "sgd".
        lr: Peak learning rate; 0 takes 1e-3 for AdamW and 0.06 * batch / 1024 for SGD (TaCo,
            Section 4.2, with the linear scaling rule of Goyal et al. 2017).
        weight_decay: Decay of matrices and kernels; biases, gains and other vectors have none.
        momentum: SGD only.
        warmup: Share of all steps in which the rate rises linearly to its peak.
        schedule: "cosine" falls to 0 by half a cosine after the warm-up, "constant" stays.
        clip: Largest norm of the gradient; 0 does not clip.
        ema: Decay of a moving average of the encoder's weights, which is then what the run hands
            back; 0 keeps none.
        mean: Hand back the mean of the encoder's weights over all steps, the first ones included
            (TS2Vec's way), instead of the last ones.

    Raises:
        ConfigError: If a name is unknown, a number out of range, or two averages are asked for.
    """

    name: str = "adamw"
    lr: float = 0.0
    weight_decay: float = 1e-2
    momentum: float = 0.9
    warmup: float = 0.05
    schedule: str = "cosine"
    clip: float = 0.0
    ema: float = 0.0
    mean: bool = False

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("optimiser", self.name, NAMES)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for name in ("lr", "weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"optimiser.{name} is {getattr(self, name)}; it must not be negative."
                )
        for name in ("momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"optimiser.{name} is {getattr(self, name)}; it must be at least 0 and below 1."
                )
        if not 0 <= self.warmup <= 1:
            raise ConfigError(
                f"optimiser.warmup is {self.warmup}; it is a share of all steps, from 0 to 1."
            )
        if self.mean and self.ema:
            raise ConfigError("optimiser.mean and optimiser.ema are both set; choose one average.")

    def keep(self, step: int) -> float:
        """Share of the average that stays when the weights after step `step` (from 0) join it; 1
        where none is kept."""
        if self.mean:
            return (step + 1) / (step + 2)
        return self.ema or 1.0

    def peak(self, batch: int) -> float:
        """The peak learning rate for a batch of so many recordings."""
        if self.lr:
            return self.lr
        return 1e-3 if self.name == "adamw" else 0.06 * batch / 1024


def build(
    settings: Optimiser, parameters: Iterable[nn.Parameter], batch: int
) -> torch.optim.Optimizer:
    """The optimiser with vectors (biases, gains) exempt from decay."""
    every = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    lr = settings.peak(batch)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)


def rate(step: int, steps: int, peak: float, warmup: float, schedule: str = "cosine") -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, Eq. 5, one period), or
    the peak to the end.

    Args:
        step: Steps already taken, from 0.
        steps: All steps of the run.
        peak: Highest rate.
        warmup: Share of the steps that warm up.
        schedule: What follows.
    """
    rising = max(1, round(steps * warmup))
    if step < rising:
        return peak * (step + 1) / rising
    if schedule == "constant":
        return peak
    done = (step - rising) / max(1, steps - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Average:
    """A moving average of a module's weights and buffers: t <- decay t + (1 - decay) s.

    Args:
        target: What holds the average; changed in place.
        source: Whose weights join it.
    """

    def __init__(self, target: nn.Module, source: nn.Module) -> None:
        pairs = [
            (mean, value)
            for one, other in (
                (target.parameters(), source.parameters()),
                (target.buffers(), source.buffers()),
            )
            for mean, value in zip(one, other, strict=True)
        ]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def join(self, decay: float) -> None:
        """Moves the average towards the source; counts are copied."""
        for mean, value in self._counts:
            mean.copy_(value)
        if self._floats:
            means, values = zip(*self._floats, strict=True)
            torch._foreach_lerp_(means, values, 1 - decay)
