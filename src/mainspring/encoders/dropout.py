"""Dropout at the speed of the numbers it draws."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        coins = bits.view(torch.int16)[:count].view(input.shape)
        dropped = round(self.p * 2**16)
        keep = coins >= dropped - 2**15
        return (input * keep).mul_(1 / (1 - dropped / 2**16))
