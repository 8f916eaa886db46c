"""Content changes of video: crop, flip, blur, colour and rotation of whole batches on the device.

Clips are (n, time, height, width, 3), uint8 or float in [0, 1]. Every change is drawn once a view,
so all frames of a clip agree; fold time into n where each frame shall have a draw of its own.
Geometry keeps the dtype (uint8 is rounded), colour returns floats in [0, 1].

Two facts make this cheap. Crop, flip, resize and blur are linear and separable, so together they
are one matrix for the rows and one for the columns. Brightness, contrast, saturation, hue and grey
are linear in the pixel, so together they are one 3 × 3 matrix and an offset a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer, Shaped
from torch import Tensor

from mainspring.errors import ConfigError

Clips = Shaped[Tensor, "n time height width 3"]
Cut = Shaped[Tensor, "n time _ _ 3"]  # the same clips in another size

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what "grey" means here
# RGB to YIQ (NTSC), where hue is the angle in the last two rows.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class VideoAugment:
    """Random changes of a clip, drawn once a view. With every setting 0 nothing is changed.

    The order is fixed: crop, resize, flip, blur, brightness, contrast, saturation, hue, grey.
    Values are clamped to [0, 1] once, at the end.

    Attributes:
        crop: Height and width in pixels of what comes out; 0 keeps the size.
        flip: Chance of mirroring left and right.
        scale: Least and greatest share of the picture's area that is cut out and resized to
            `crop`, its sides' ratio log-uniform in [3/4, 4/3] and the box trimmed to the picture.
            At (1, 1) a square of `crop` pixels is cut out and nothing is resized. SimCLR
            (Chen et al. 2020, Appendix A) has (0.08, 1).
        jitter: Strength s of the colour jitter: brightness, contrast and saturation are scaled by
            U[1 - s, 1 + s], hue is turned by U[-s/4, s/4] of a full circle. The ratio of four to
            one is that of SimCLR (s = 0.8) and MoCo v2 (s = 0.4).
        grey: Chance of losing colour (SimCLR: 0.2).
        blur: Chance of a Gaussian blur whose sigma is U[0.1, 2] at a crop of 224 pixels and in
            proportion at others (SimCLR: 0.5).

    Raises:
        ConfigError: If a setting is out of range.
    """

    crop: int = 0
    flip: float = 0.5
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    grey: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; it must lie between 0 and 1.")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ConfigError(
                f"scale is {self.scale}; it must be two shares of the area, 0 < low <= high <= 1."
            )
        if self.crop < 0:
            raise ConfigError(f"crop is {self.crop}; it must be a number of pixels, 0 for all.")

    def __call__(self, samples: Clips, generator: torch.Generator) -> Cut:
        """Draws and applies the changes; deterministic given the generator's state."""
        dice = _Dice(len(samples), generator, samples.device)
        return self._tint(self._frame(samples, dice), dice)

    def still(self, samples: Clips) -> Cut:
        """The change for evaluation: the centre of `crop` pixels, nothing random."""
        return centre(samples, self.crop)

    def _frame(self, samples: Clips, dice: _Dice) -> Cut:
        """Crop, resize, flip and blur."""
        height, width = samples.shape[2:4]
        tall, wide = self.crop or height, self.crop or width
        if self.scale != (1.0, 1.0):
            top, left, box_tall, box_wide = dice.box(height, width, self.scale)
        else:
            _check_crop(self.crop, height, width)
            if not (self.flip or self.blur) and (tall, wide) == (height, width):
                return samples
            top, left = dice.integers(height - tall + 1), dice.integers(width - wide + 1)
            box_tall, box_wide = torch.full_like(top, tall), torch.full_like(left, wide)
        mirrored = dice.uniform(0, 1) < self.flip
        if self.scale == (1.0, 1.0) and not self.blur:
            return cut(samples, top, left, mirrored, tall, wide)
        rows = interpolation(top, box_tall, tall, height)
        columns = interpolation(left, box_wide, wide, width)
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        if self.blur:
            sigma = dice.uniform(0.1, 2.0) * (tall / 224) * (dice.uniform(0, 1) < self.blur)
            with full_precision(samples):
                rows = gaussian(sigma, tall) @ rows
                columns = gaussian(sigma, wide) @ columns
        return resample(samples, rows, columns)

    def _tint(self, samples: Clips, dice: _Dice) -> Clips:
        """Colour jitter and grey."""
        if not (self.jitter or self.grey):
            return samples
        s = self.jitter
        brightness, contrast, saturation = (dice.uniform(1 - s, 1 + s) for _ in range(3))
        hue = dice.uniform(-s / 4, s / 4)
        coloured = dice.uniform(0, 1) >= self.grey
        return colour(samples, brightness, contrast, saturation * coloured, hue)


def centre(samples: Clips, crop: int) -> Cut:
    """The middle `crop` × `crop` pixels; all of them if `crop` is 0.

    Raises:
        ConfigError: If the clips are smaller than that.
    """
    height, width = samples.shape[2:4]
    _check_crop(crop, height, width)
    if not crop:
        return samples
    top, left = (height - crop) // 2, (width - crop) // 2
    return samples[:, :, top : top + crop, left : left + crop]


def cut(
    samples: Clips,
    top: Integer[Tensor, "n"],
    left: Integer[Tensor, "n"],
    mirrored: Bool[Tensor, "n"],
    height: int,
    width: int,
) -> Cut:
    """Cuts one box of `height` × `width` pixels out of each view, mirrored where asked.

    One gather of whole pixels; nothing is computed, so uint8 stays exact.
    """
    n, time, tall, wide, _ = samples.shape
    device = samples.device
    row = top[:, None] + torch.arange(height, device=device)
    along = torch.arange(width, device=device).expand(n, width)
    column = left[:, None] + torch.where(mirrored[:, None], width - 1 - along, along)
    frame = torch.arange(n * time, device=device).view(n, time, 1, 1)
    pixel = frame * (tall * wide) + (row[:, :, None] * wide + column[:, None, :])[:, None]
    taken = samples.reshape(-1, 3).index_select(0, pixel.flatten())
    return taken.view(n, time, height, width, 3)


def interpolation(
    start: Shaped[Tensor, "n"], size: Shaped[Tensor, "n"], count: int, extent: int
) -> Float[Tensor, "n count extent"]:
    """Matrices that resize the stretch [start, start + size) of `extent` pixels to `count`.

    Linear interpolation with anti-aliasing: a triangle as wide as an output pixel (at least as an
    input pixel), each row summing to 1. A stretch of `count` whole pixels is copied exactly.
    """
    device = start.device
    step = (size / count)[:, None]
    middle = start[:, None] + (torch.arange(count, device=device) + 0.5) * step - 0.5
    away = (torch.arange(extent, device=device) - middle[:, :, None]).abs()
    weight = (1 - away / step.clamp(min=1)[:, :, None]).clamp(min=0)
    return weight / weight.sum(-1, keepdim=True)


def gaussian(sigma: Float[Tensor, "n"], size: int) -> Float[Tensor, "n size size"]:
    """Matrices that blur `size` pixels, each row summing to 1 (so borders stay as bright as they
    were); the identity where sigma, in pixels, is 0."""
    place = torch.arange(size, device=sigma.device)
    away = place[:, None] - place
    weight = torch.exp(-0.5 * (away / sigma.clamp(min=1e-3)[:, None, None]) ** 2)
    return weight / weight.sum(-1, keepdim=True)


def resample(
    samples: Clips, rows: Float[Tensor, "n _ height"], columns: Float[Tensor, "n _ width"]
) -> Cut:
    """Applies a matrix to the rows and one to the columns of all frames of each view."""
    n, time, height, width, _ = samples.shape
    # Moved while they are bytes: four times as fast as moving floats.
    lines = samples.permute(0, 2, 1, 4, 3).reshape(n, height, -1).float()
    with full_precision(samples):
        lines = torch.bmm(rows, lines).view(n, -1, width)
        lines = torch.bmm(lines, columns.transpose(1, 2))
    lines = _like(lines, samples).view(n, rows.shape[1], time, 3, columns.shape[1])
    return lines.permute(0, 2, 1, 4, 3).contiguous()


def colour(
    samples: Clips,
    brightness: Float[Tensor, "n"],
    contrast: Float[Tensor, "n"],
    saturation: Float[Tensor, "n"],
    hue: Float[Tensor, "n"],
) -> Float[Tensor, "n time height width 3"]:
    """Changes colours, in this order, each view by its own amounts.

    Args:
        samples: Pixels.
        brightness: Factor b: x becomes b x.
        contrast: Factor c: x becomes c x + (1 - c) m, with m the mean grey of the whole clip.
        saturation: Factor s: x becomes s x + (1 - s) grey(x); 0 takes all colour away.
        hue: Turn, as a share of the circle, about the grey axis of YIQ (a rotation, where
            other libraries shift the hue of HSV, which is not linear).

    Returns:
        Floats clamped to [0, 1].
    """
    device = samples.device
    unit = 1 / 255 if samples.dtype == torch.uint8 else 1.0
    luma = torch.tensor(LUMA, device=device)
    pixels = samples.reshape(len(samples), -1, 3).float()
    with full_precision(samples):
        fade = torch.lerp(luma.expand(3, 3), torch.eye(3, device=device), saturation[:, None, None])
        matrix = (brightness * contrast * unit)[:, None, None] * (_spin(hue) @ fade)
        offset = (1 - contrast) * brightness * unit * (pixels.mean(1) @ luma)
        # Up to eight pixels a row: a product with a block-diagonal matrix of 24 × 24 is twice as
        # fast as one with 3 × 3.
        block = math.gcd(8, pixels.shape[1])
        wide = torch.einsum("ij,nkl->niljk", torch.eye(block, device=device), matrix)
        wide = wide.reshape(len(samples), 3 * block, 3 * block)
        changed = torch.baddbmm(
            offset[:, None, None], pixels.reshape(len(samples), -1, 3 * block), wide
        )
    return changed.clamp_(0, 1).view(samples.shape)


def _spin(hue: Float[Tensor, "n"]) -> Float[Tensor, "n 3 3"]:
    """Matrices that turn RGB about the grey axis by `hue` of a circle."""
    yiq = torch.tensor(YIQ, device=hue.device)
    angle = hue * (2 * math.pi)
    spin = torch.zeros(len(hue), 3, 3, device=hue.device)
    spin[:, 0, 0] = 1
    spin[:, 1, 1] = spin[:, 2, 2] = angle.cos()
    spin[:, 2, 1] = angle.sin()
    spin[:, 1, 2] = -angle.sin()
    return torch.linalg.inv(yiq) @ spin @ yiq


def rotate(
    samples: Clips,
    quarter: Int[Tensor, "n"],
    jitter_degrees: Float[Tensor, "n time"] | None = None,
) -> Clips:
    """Turns each view counter-clockwise by `quarter` times 90° and each frame by a little more.

    Without jitter the turns are exact. With it every frame is interpolated bilinearly, also those
    turned by 0°, and what comes in from outside is the picture mirrored at its border, so neither
    sharpness nor black corners betray the angle. TaCo (Bai et al., Section 4.2.2) names the
    quarter and draws the jitter from [-3°, 3°].

    Raises:
        ConfigError: If a picture that is not square shall be turned by 90° or 270°.
    """
    height, width = samples.shape[2:4]
    turns = (quarter % 4).to(samples.device)
    if height != width and bool((turns % 2 == 1).any()):
        raise ConfigError(
            f"Clips of {height} x {width} pixels cannot be turned by 90° and keep their shape; "
            "use a square crop."
        )
    if jitter_degrees is None:
        turned = torch.empty_like(samples, memory_format=torch.contiguous_format)
        for k in range(4):
            (views,) = torch.nonzero(turns == k, as_tuple=True)
            if len(views):
                turned[views] = torch.rot90(samples[views], k, (2, 3))
        return turned
    angle = torch.deg2rad(jitter_degrees.to(samples.device).float() + 90 * turns[:, None])
    angle = angle.flatten()[:, None, None]
    # Centred pixel coordinates; the vertical one points down, as rows do.
    y = torch.arange(height, device=samples.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=samples.device) - (width - 1) / 2
    cos, sin = angle.cos(), angle.sin()
    source = ((x * cos - y * sin) * (2 / width), (x * sin + y * cos) * (2 / height))
    frames = samples.flatten(0, 1).permute(0, 3, 1, 2).contiguous().float()
    drawn = F.grid_sample(
        frames, torch.stack(source, -1), padding_mode="reflection", align_corners=False
    )
    drawn = _like(drawn, samples).permute(0, 2, 3, 1).contiguous()
    return drawn.view(samples.shape)


def _like(values: Tensor, samples: Tensor) -> Tensor:
    """Back to the dtype of `samples`, rounded if that is uint8."""
    if samples.dtype == torch.uint8:
        return values.add_(0.5).clamp_(0, 255).to(torch.uint8)
    return values.to(samples.dtype)


def _check_crop(crop: int, height: int, width: int) -> None:
    if crop > min(height, width):
        raise ConfigError(
            f"A crop of {crop} pixels was asked of clips of {height} x {width}; "
            f"use a crop of at most {min(height, width)} or read the clips larger."
        )


def full_precision(samples: Tensor) -> torch.autocast:
    """A context in which autocast leaves pixels alone: bf16 has fewer levels than a byte."""
    return torch.autocast(samples.device.type, enabled=False)


@dataclass(frozen=True)
class _Dice:
    """One draw a view, from the generator's device to that of the samples."""

    n: int
    generator: torch.Generator
    device: torch.device

    def uniform(self, low: float, high: float) -> Float[Tensor, "n"]:
        share = torch.rand(self.n, generator=self.generator, device=self.generator.device)
        return (low + (high - low) * share).to(self.device)

    def integers(self, below: int) -> Integer[Tensor, "n"]:
        size, device = (self.n,), self.generator.device
        return torch.randint(below, size, generator=self.generator, device=device).to(self.device)

    def box(
        self, height: int, width: int, scale: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Top, left, height and width, in pixels and fractions of them, of a random part."""
        area = self.uniform(*scale) * (height * width)
        ratio = self.uniform(-math.log(4 / 3), math.log(4 / 3)).exp()
        tall = (area / ratio).sqrt().clamp(max=height)
        wide = (area * ratio).sqrt().clamp(max=width)
        top = self.uniform(0, 1) * (height - tall)
        left = self.uniform(0, 1) * (width - wide)
        return top, left, tall, wide
