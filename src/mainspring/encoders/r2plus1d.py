"""R(2+1)D: each 3D convolution as a spatial one, a nonlinearity, and a temporal one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.video_resnet import CITATION, VideoResNet


class TemporalConv(nn.Conv3d):
    """A 3x1x1 convolution, computed in two dimensions: time, and all pixels of a frame.

    The same numbers from the same memory; on CPUs it takes two thirds of the time of a 3D
    convolution with few channels and nine tenths with many (`benchmarks/training.py`).
    """

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__(
            inside, outside, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False
        )

    def forward(
        self, input: Float[Tensor, "n inside time h w"]
    ) -> Float[Tensor, "n outside t h w"]:
        """Equal to `nn.Conv3d.forward`."""
        height, width = input.shape[3:]
        weight = self.weight.squeeze(-1)
        flat = F.conv2d(input.flatten(3), weight, stride=(self.stride[0], 1), padding=(1, 0))
        return flat.unflatten(3, (height, width))


class R2Plus1D18(VideoResNet):
    """R(2+1)D-18 (Tran et al., CVPR 2018, Section 3.5; the public checkpoints' `r2plus1d_18`)."""

    name: ClassVar[str] = "r2plus1d18"
    citation: ClassVar[str] = CITATION

    @classmethod
    def make_stem(cls, width: int) -> nn.Sequential:
        """A 1x7x7 and a 3x1x1 convolution with 45 channels between them at width 64, the number
        in the authors' code (the paper's formula would give 83)."""
        between = cls.rounded(max(1, 45 * width // 64))
        return nn.Sequential(
            nn.Conv3d(3, between, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(between),
            nn.ReLU(inplace=True),
            TemporalConv(between, width),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )

    @classmethod
    def convolution(
        cls, inside: int, outside: int, between: int, time: int, space: int
    ) -> nn.Module:
        """A 1x3x3 and a 3x1x1 convolution."""
        between = cls.rounded(between)
        return nn.Sequential(
            nn.Conv3d(
                inside, between, (1, 3, 3), stride=(1, space, space), padding=(0, 1, 1), bias=False
            ),
            nn.BatchNorm3d(between),
            nn.ReLU(inplace=True),
            TemporalConv(between, outside, time),
        )

    @staticmethod
    def rounded(between: int) -> int:
        """Channels between the two convolutions, as the paper counts them."""
        return between


class R2Plus1DTiny(R2Plus1D18):
    """R(2+1)D with a quarter of the channels and one block a stage: for laptops and first looks.

    Channels between are multiples of 16, the width of a CPU's vector: a seventh less time a step.
    """

    name: ClassVar[str] = "r2plus1d_tiny"
    clip: ClassVar[ClipSpec] = ClipSpec(length=8, rate=12.5, stride=2, size=48, crop=40)

    def __init__(
        self,
        width: int = 16,
        blocks: Sequence[int] = (1, 1, 1, 1),
        temporal_stride: int = 2,
        zero_last_gamma: bool = False,
        moving: bool = False,
    ) -> None:
        super().__init__(width, blocks, temporal_stride, zero_last_gamma, moving)

    @staticmethod
    def rounded(between: int) -> int:
        """The nearest multiple of 16, at least 16."""
        return max(16, 16 * round(between / 16))
