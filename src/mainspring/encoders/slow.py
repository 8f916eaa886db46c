"""The Slow pathway of SlowFast: a 2D ResNet that looks along time only in its last two stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.video import VideoEncoder, initialise
from mainspring.errors import ConfigError

Before = Float[Tensor, "n before time height width"]
After = Float[Tensor, "n after t h w"]

CITATION = "Feichtenhofer, Fan, Malik, He: SlowFast Networks for Video Recognition, ICCV 2019"

TEMPORAL_KERNELS = (1, 1, 3, 3)
"""Of res2 to res5 (Table 1: non-degenerate temporal convolutions in res4 and res5 only)."""


def convolve(inside: int, outside: int, time: int, space: int, stride: int = 1) -> nn.Conv3d:
    """A time x space x space convolution that keeps every frame."""
    return nn.Conv3d(
        inside,
        outside,
        (time, space, space),
        stride=(1, stride, stride),
        padding=(time // 2, space // 2, space // 2),
        bias=False,
    )


class Basic(nn.Module):
    """Branch of two convolutions, Tx3x3 and 1x3x3 (the 18-layer network)."""

    expansion = 1

    def __init__(self, inside: int, inner: int, time: int, stride: int) -> None:
        super().__init__()
        self.a = convolve(inside, inner, time, 3, stride)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = convolve(inner, inner, 1, 3)
        self.b_bn = nn.BatchNorm3d(inner)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The batch norm that closes the branch."""
        return self.b_bn

    def forward(self, x: Before) -> After:
        """What is added to the shortcut."""
        return self.b_bn(self.b(self.relu(self.a_bn(self.a(x)))))


class Bottleneck(nn.Module):
    """Branch of three convolutions, Tx1x1, 1x3x3 and 1x1x1 (the 50-layer network)."""

    expansion = 4

    def __init__(self, inside: int, inner: int, time: int, stride: int) -> None:
        super().__init__()
        outside = inner * self.expansion
        self.a = convolve(inside, inner, time, 1)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = convolve(inner, inner, 1, 3, stride)
        self.b_bn = nn.BatchNorm3d(inner)
        self.c = convolve(inner, outside, 1, 1)
        self.c_bn = nn.BatchNorm3d(outside)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The batch norm that closes the branch."""
        return self.c_bn

    def forward(self, x: Before) -> After:
        """What is added to the shortcut."""
        x = self.relu(self.a_bn(self.a(x)))
        x = self.relu(self.b_bn(self.b(x)))
        return self.c_bn(self.c(x))


class Residual(nn.Module):
    """relu(shortcut(x) + branch(x)); the shortcut is projected where channels or size change."""

    def __init__(
        self, branch: type[Basic | Bottleneck], inside: int, inner: int, time: int, stride: int
    ) -> None:
        super().__init__()
        outside = inner * branch.expansion
        self.projects = inside != outside or stride != 1
        if self.projects:
            self.branch1 = convolve(inside, outside, 1, 1, stride)
            self.branch1_bn = nn.BatchNorm3d(outside)
        self.branch2 = branch(inside, inner, time, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Before) -> After:
        """Every frame kept."""
        shortcut = self.branch1_bn(self.branch1(x)) if self.projects else x
        return self.relu(self.branch2(x) + shortcut)


class Slow50(VideoEncoder):
    """Slow pathway on ResNet-50 (Table 1), without lateral connections.

    Every frame is kept: no stage strides in time. Weights have the names of PySlowFast's public
    checkpoints (`s2.pathway0_res0.branch2.a.weight`), whose head is not part of the encoder.

    Args:
        width: Channels of the stem; 64 in the paper.
        blocks: Residual blocks of res2 to res5.
        zero_last_gamma: See `initialise`. True in PySlowFast's Kinetics configurations; the paper
            leaves it open.
        moving: See `VideoEncoder`.
    """

    name: ClassVar[str] = "slow50"
    citation: ClassVar[str] = CITATION
    clip: ClassVar[ClipSpec] = ClipSpec(length=8, rate=30.0, stride=8, size=128, crop=112)
    branch: ClassVar[type[Basic | Bottleneck]] = Bottleneck

    def __init__(
        self,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        zero_last_gamma: bool = True,
        moving: bool = False,
    ) -> None:
        super().__init__(moving)
        if width < 1 or len(blocks) != 4 or min(blocks) < 1:
            raise ConfigError(
                f"A Slow pathway has a positive width and four stages of at least one block, not "
                f"width={width}, blocks={tuple(blocks)}."
            )
        self.settings: dict[str, Any] = {
            "width": width,
            "blocks": list(blocks),
            "zero_last_gamma": zero_last_gamma,
            "moving": moving,
        }
        self.s1 = nn.Module()
        self.s1.pathway0_stem = nn.Module()
        self.s1.pathway0_stem.conv = convolve(3, width, 1, 7, stride=2)
        self.s1.pathway0_stem.bn = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        inside = width
        for stage, (count, time) in enumerate(zip(blocks, TEMPORAL_KERNELS, strict=True)):
            inner = width * 2**stage
            group = nn.Module()
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                block = Residual(self.branch, inside, inner, time, stride)
                group.add_module(f"pathway0_res{index}", block)
                inside = inner * self.branch.expansion
            self.add_module(f"s{stage + 2}", group)
        self.dim = inside
        initialise(self, zero_last_gamma)

    def stem(self, pixels: Float[Tensor, "n 3 time height width"]) -> After:
        """conv1 and its pooling: a quarter of the height and width."""
        first = self.get_submodule("s1.pathway0_stem")
        x = first.get_submodule("conv")(pixels)
        return self.pool(self.relu(first.get_submodule("bn")(x)))

    def stage(self, x: Before, number: int) -> After:
        """res2 to res5, by number."""
        for block in self.get_submodule(f"s{number}").children():
            x = block(x)
        return x

    def features(
        self, pixels: Float[Tensor, "n 3 time height width"]
    ) -> Float[Tensor, "n dim t h w"]:
        """conv1 and res2 to res5."""
        x = self.stem(pixels)
        for number in range(2, 6):
            x = self.stage(x, number)
        return x


class Slow18(Slow50):
    """Slow pathway on ResNet-18, the backbone of TaCo (Bai et al., Section 5.1).

    TaCo names PySlowFast and no channels; these are ResNet-18's (64 to 512), with the two
    convolutions Tx3x3 and 1x3x3 of PySlowFast's basic block.
    """

    name: ClassVar[str] = "slow18"
    branch: ClassVar[type[Basic | Bottleneck]] = Basic

    def __init__(
        self,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        zero_last_gamma: bool = True,
        moving: bool = False,
    ) -> None:
        super().__init__(width, blocks, zero_last_gamma, moving)
