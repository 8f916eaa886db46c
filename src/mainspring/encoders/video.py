"""What all video encoders share: how pixels become floats, and how tokens become one vector."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder, as_float_image

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
"""Mean of red, green and blue in Kinetics-400, pixels in [0, 1]; as used by public checkpoints."""
KINETICS_STD = (0.22803, 0.22145, 0.216989)
"""Their standard deviations."""


class VideoEncoder(Encoder):
    """Base of the encoders that see clips of frames.

    A subclass defines `features`, from normalised pixels to a channels-first grid.

    Args:
        moving: See each frame as its difference from the mean of its clip, on grey: what stands
            still, and with it the scene, is not seen.
    """

    stream: ClassVar[str] = "video"
    clip: ClassVar[ClipSpec] = ClipSpec(length=8, rate=25.0, stride=4, size=128, crop=112)

    mean: Tensor
    std: Tensor

    def __init__(self, moving: bool = False) -> None:
        super().__init__()
        self.moving = moving
        self.register_buffer("mean", torch.tensor(KINETICS_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(KINETICS_STD), persistent=False)

    def prepare(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n 3 time height width"]:
        """Pixels to zero mean and unit variance; frames that are padding become the mean colour.
        Of clips that are seen `moving`, the differences from their mean take the pixels' place.

        The result has the channels first in its shape and last in memory, which is how readers
        deliver pixels and how convolutions are fastest: nothing is transposed.
        """
        if self.moving:
            samples = _moving(as_float_image(samples), present)
        scale = 1 / self.std
        offset = -self.mean * scale
        if samples.dtype == torch.uint8:
            scale = scale / 255
        pixels = (samples * scale).add_(offset)
        if present is not None and not bool(present.all()):
            pixels = pixels * present[:, :, None, None, None]
        return pixels.permute(0, 4, 1, 2, 3)

    def features(
        self, pixels: Float[Tensor, "n 3 time height width"]
    ) -> Float[Tensor, "n dim t h w"]:
        """The architecture itself."""
        raise NotImplementedError

    def tokens(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n t h w dim"]:
        """One token a cell of the last stage's grid."""
        return self.features(self.prepare(samples, present)).permute(0, 2, 3, 4, 1)

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n dim"]:
        """The mean of the tokens in float32, without those that saw nothing but padding."""
        moments = tokens.float().mean((2, 3))
        if present is None:
            return moments.mean(1)
        seen = F.adaptive_max_pool1d(present.float(), moments.shape[1])
        return (moments * seen[..., None]).sum(1) / seen.sum(1, keepdim=True).clamp(min=1)


def _moving(
    pixels: Float[Tensor, "n time height width 3"], present: Bool[Tensor, "n time"] | None
) -> Float[Tensor, "n time height width 3"]:
    """Differences from the mean of the frames that are no padding, on grey."""
    if present is None:
        mean = pixels.mean(1, keepdim=True)
    else:
        there = present[:, :, None, None, None]
        mean = (pixels * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
    return (pixels - mean + 0.5).clamp_(0, 1)


def initialise(network: nn.Module, zero_last_gamma: bool = False) -> None:
    """Draws weights as the 3D ResNets' public code does: convolutions from N(0, 2 / fan out)
    (He et al. 2015), batch-norm scale 1 and shift 0.

    Args:
        network: What to initialise, in place. Residual blocks name the batch norm that closes
            their branch with the attribute `last_norm`.
        zero_last_gamma: Start each residual branch at zero by a zero scale in that batch norm
            (Goyal et al. 2017, Section 5.1). PySlowFast trains so, torchvision's 3D ResNets do not.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    if zero_last_gamma:
        for module in network.modules():
            last = getattr(module, "last_norm", None)
            if last is not None:
                nn.init.zeros_(last.weight)
