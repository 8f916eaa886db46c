"""Heads of masked prediction over several streams: one sequence of them, names for its frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.encoders.patch_transformer import sine_positions
from mainspring.errors import ConfigError, unknown

HOW = ("concat", "sum")


class Fusion(nn.Module):
    """Features of streams to one sequence in context, as in AV-HuBERT (Shi et al., ICLR 2022,
    Section 3.2): a projection each, zeros for a stream that is not given, side by side or summed,
    layer norm, a layer to the width, and a transformer over time with sines for positions.

    Args:
        dims: Width of each stream's features.
        how: "concat" or "sum".
        width: Of the sequence; even and a multiple of `heads`.
        layers: Of the transformer.
        heads: Of its attention.
        dropout: In it.

    Raises:
        ConfigError: If a setting is unknown or does not fit another.
    """

    def __init__(
        self, dims: Mapping[str, int], how: str, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        if how not in HOW:
            raise unknown("fusion", how, HOW)
        if min(width, heads) < 1 or width % 2 or width % heads:
            raise ConfigError(
                f"width is {width}; it must be even and a multiple of heads, {heads}, and both "
                "must be positive."
            )
        if layers < 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"layers is {layers} and dropout {dropout}; both must be at least 0, and dropout "
                "below 1."
            )
        self.side_by_side = how == "concat"
        self.project = nn.ModuleDict({s: nn.Linear(dims[s], width) for s in sorted(dims)})
        joined = len(dims) * width if self.side_by_side else width
        self.join = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width))
        deep = [
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        ]
        self.layers = nn.Sequential(*deep, nn.LayerNorm(width))

    def forward(
        self,
        frames: Mapping[str, Float[Tensor, "n frame _"]],
        given: Mapping[str, Bool[Tensor, "n"]],
    ) -> Float[Tensor, "n frame width"]:
        """One vector a frame.

        Args:
            frames: Features of each stream, at the same times.
            given: Which recordings each stream is given of.
        """
        parts = [
            project(frames[stream]) * given[stream][:, None, None]
            for stream, project in self.project.items()
        ]
        fused = self.join(torch.cat(parts, 2) if self.side_by_side else torch.stack(parts).sum(0))
        return self.layers(fused + sine_positions(fused.shape[1], fused.shape[2]).to(fused))


class Codebook(nn.Module):
    """Frames beside a codeword for each cluster, as in HuBERT and AV-HuBERT: the logits are
    cos(A o, e_c) / tau, in float32 whatever the autocast.

    Args:
        count: Clusters.
        width: Of a frame o.
        final: Of the space in which they are compared.
        temperature: tau.

    Raises:
        ConfigError: If there is no such space or temperature.
    """

    def __init__(self, count: int, width: int, final: int, temperature: float) -> None:
        super().__init__()
        if min(width, final) < 1 or temperature <= 0:
            raise ConfigError(
                f"width is {width}, final {final} and temperature {temperature}; all three must be "
                "positive."
            )
        self.temperature = temperature
        self.project = nn.Linear(width, final)
        self.words = nn.Parameter(torch.randn(count, final))

    def forward(self, states: Float[Tensor, "n frame width"]) -> Float[Tensor, "n frame count"]:
        """Logits."""
        with torch.autocast(states.device.type, enabled=False):
            frames = F.normalize(self.project(states.float()), dim=-1)
            return frames @ F.normalize(self.words, dim=-1).T / self.temperature
