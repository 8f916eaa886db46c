"""The 3D residual network that R3D-18 and R(2+1)D-18 share (Tran et al., CVPR 2018, Section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mainspring.encoders.video import VideoEncoder, initialise
from mainspring.errors import ConfigError

Before = Float[Tensor, "n before time height width"]
After = Float[Tensor, "n after t h w"]
Convolution = Callable[[int, int, int, int, int], nn.Module]
"""(channels in, channels out, channels between, stride in time, stride in space) to a module."""

CITATION = (
    "Tran, Wang, Torresani, Ray, LeCun, Paluri: A Closer Look at Spatiotemporal Convolutions for "
    "Action Recognition, CVPR 2018"
)


class Block(nn.Module):
    """Two convolutions and a shortcut: relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)).

    Both factorised convolutions of a block have the number of channels between that makes the
    first one's weights as many as those of the full 3x3x3 convolution (Section 3.5).
    """

    def __init__(
        self, convolution: Convolution, inside: int, outside: int, time: int, space: int
    ) -> None:
        super().__init__()
        between = inside * outside * 27 // (inside * 9 + outside * 3)
        self.conv1 = nn.Sequential(
            convolution(inside, outside, between, time, space),
            nn.BatchNorm3d(outside),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            convolution(outside, outside, between, 1, 1), nn.BatchNorm3d(outside)
        )
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if inside != outside or time != 1 or space != 1:
            self.downsample = nn.Sequential(
                nn.Conv3d(inside, outside, 1, stride=(time, space, space), bias=False),
                nn.BatchNorm3d(outside),
            )

    @property
    def last_norm(self) -> nn.Module:
        """The batch norm that closes the branch."""
        return self.conv2[1]

    def forward(self, x: Before) -> After:
        """Same grid, or one of fewer frames and pixels."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class VideoResNet(VideoEncoder):
    """A stem and four stages; stages two to four halve height and width.

    Weights have the names and, at width 64, the shapes of torchvision's networks without `fc`.

    Args:
        width: Channels of the first stage; each later stage doubles them. 64 in the paper.
        blocks: Residual blocks of each stage; (2, 2, 2, 2) is the 18-layer network.
        temporal_stride: Stride in time of stages two to four: 2 in the paper, so that 8 frames
            end as one. With 1 all frames are kept, which short clips and tasks of order may want.
        zero_last_gamma: See `initialise`; False as in the public code.
        moving: See `VideoEncoder`.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        temporal_stride: int = 2,
        zero_last_gamma: bool = False,
        moving: bool = False,
    ) -> None:
        super().__init__(moving)
        if width < 1 or len(blocks) != 4 or min(blocks) < 1 or temporal_stride not in (1, 2):
            raise ConfigError(
                f"A video ResNet has a positive width, four stages of at least one block and a "
                f"temporal stride of 1 or 2, not width={width}, blocks={tuple(blocks)}, "
                f"temporal_stride={temporal_stride}."
            )
        self.settings = {
            "width": width,
            "blocks": list(blocks),
            "temporal_stride": temporal_stride,
            "zero_last_gamma": zero_last_gamma,
            "moving": moving,
        }
        self.dim = width * 8
        self.stem = self.make_stem(width)
        inside = width
        for stage, count in enumerate(blocks):
            outside = width * 2**stage
            time, space = (1, 1) if stage == 0 else (temporal_stride, 2)
            first = Block(self.convolution, inside, outside, time, space)
            rest = [Block(self.convolution, outside, outside, 1, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            inside = outside
        initialise(self, zero_last_gamma)

    @classmethod
    def make_stem(cls, width: int) -> nn.Sequential:
        """From 3 channels to `width`, halving height and width."""
        raise NotImplementedError

    @classmethod
    def convolution(
        cls, inside: int, outside: int, between: int, time: int, space: int
    ) -> nn.Module:
        """The convolution that sets the networks apart."""
        raise NotImplementedError

    def features(
        self, pixels: Float[Tensor, "n 3 time height width"]
    ) -> Float[Tensor, "n dim t h w"]:
        """Stem and four stages."""
        x = self.stem(pixels)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x
