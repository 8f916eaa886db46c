"""Dropout at the speed of the numbers it draws."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

COINS = 4
"""In one random number."""


class Dropout(nn.Dropout):
    """Dropout whose coins are 16 bits each on a CPU: many times faster than torch's own, and the
    share is exact to 1 in 65536."""

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Zeros a share `p` of the values and scales the others by 1 / (1 - p)."""
        if not self.training or not self.p or input.device.type != "cpu":
            return super().forward(input)
        count = input.numel()
        bits = torch.empty(-(-count // COINS), dtype=torch.int64).random_(-(2**63), None)
        return _Kept.apply(input, bits.view(torch.int16)[:count].view(input.shape), self.p)


class _Kept(torch.autograd.Function):
    """Keeps the coins for the backward pass and makes the gains from them again: as numbers of the
    input's precision, since a product with truth values converts those on its way, slowly."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, coins: Int16[Tensor, "*shape"], share: float) -> Tensor:
        ctx.save_for_backward(coins)
        ctx.share = share
        return _gains(coins, share, input.dtype).mul_(input)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (coins,) = ctx.saved_tensors
        return _gains(coins, ctx.share, grads[0].dtype).mul_(grads[0]), None, None


def _gains(
    coins: Int16[Tensor, "*shape"], share: float, dtype: torch.dtype
) -> Float[Tensor, "*shape"]:
    """0 for a share of the coins, 1 / (1 - share) for the others."""
    dropped = min(round(share * 2**16), 2**16 - 1)
    out = torch.empty(coins.shape, dtype=dtype)
    torch.ge(coins, dropped - 2**15, out=out)
    return out.mul_(1 / (1 - dropped / 2**16))
