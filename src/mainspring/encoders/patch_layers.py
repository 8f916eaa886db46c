"""The layers of the patch transformer, which leave out patches where nothing was observed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.encoders.dropout import Dropout

Rows = Float[Tensor, "row patches width"]


class Layer(nn.Module):
    """Attention over patches and a two-layer network, each followed by its norm."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, batch: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm1 = SeenBatchNorm(dim) if batch else SeenLayerNorm(dim)
        self.wide = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        self.norm2 = SeenBatchNorm(dim) if batch else SeenLayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Rows, seen: Bool[Tensor, "row patches"] | None) -> Rows:
        """`seen` is False at patches that nobody attends to."""
        x = self.norm1(x + self.dropout(self.attend(x, seen)), seen)
        inner = self.dropout(F.gelu(self.wide(x)))
        return self.norm2(x + self.dropout(self.narrow(inner)), seen)

    def attend(self, x: Rows, seen: Bool[Tensor, "row patches"] | None) -> Rows:
        """Self-attention. Where nothing at all was seen all is attended to, as a softmax over
        nothing is not a number; the result is not used.

        On a CPU it is done in float32 whatever the autocast: backwards, bfloat16 takes over four
        times as long there (42 patches, heads of 8).
        """
        every = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None
        if seen is not None:
            mask = (seen | ~seen.any(-1, keepdim=True))[:, None, None, :]
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                q, k, v = every.float().unbind()
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            q, k, v = every.unbind()
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SeenBatchNorm(nn.BatchNorm1d):
    """Batch norm over tokens of which only the seen ones count; the others come out as 0."""

    def forward(  # type: ignore[override]
        self, input: Rows, seen: Bool[Tensor, "row patches"] | None
    ) -> Rows:
        """Statistics over rows and patches (running ones where a single token was seen)."""
        if seen is None:
            return self.normalised(input.flatten(0, 1)).view_as(input)
        out = torch.zeros_like(input)
        out[seen] = self.normalised(input[seen]).to(out.dtype)
        return out

    def normalised(self, tokens: Float[Tensor, "m width"]) -> Float[Tensor, "m width"]:
        """All of these tokens count."""
        if self.training and len(tokens) < 2:
            statistics = (self.running_mean, self.running_var)
            return F.batch_norm(tokens, *statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(tokens)


class SeenLayerNorm(nn.LayerNorm):
    """Layer norm, which looks at each token alone and need not know which were seen."""

    def forward(  # type: ignore[override]
        self, input: Rows, seen: Bool[Tensor, "row patches"] | None
    ) -> Rows:
        """Statistics over the width of each token."""
        return super().forward(input)
