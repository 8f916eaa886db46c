"""R3D-18: a residual network of full 3x3x3 convolutions."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from mainspring.encoders.video_resnet import CITATION, VideoResNet


class R3D18(VideoResNet):
    """R3D-18 (Tran et al., CVPR 2018, Section 3.2; the public checkpoints' `r3d_18`)."""

    name: ClassVar[str] = "r3d18"
    citation: ClassVar[str] = CITATION

    @classmethod
    def make_stem(cls, width: int) -> nn.Sequential:
        """A 3x7x7 convolution."""
        return nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )

    @classmethod
    def convolution(
        cls, inside: int, outside: int, between: int, time: int, space: int
    ) -> nn.Module:
        """One 3x3x3 convolution; `between` belongs to the factorised kind."""
        return nn.Conv3d(inside, outside, 3, stride=(time, space, space), padding=1, bias=False)
