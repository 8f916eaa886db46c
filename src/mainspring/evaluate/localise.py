"""Where a sound comes from: maps against discs and boxes in the picture.

maps = enlarge(grids, size=96, shown=112)      # from an encoder's tokens to 96 x 96 px
truth = discs(places, radii, (96, 96))         # or boxes(corners, (96, 96))
found = localise(maps, truth, groups)
found.pointing.mean, found.pointing_chance, found.pointing_swapped
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from mainspring.errors import DataError
from mainspring.evaluate.intervals import Tally, interval

Maps = Float32[np.ndarray, "n height width"]
Masks = Bool[np.ndarray, "n height width"]
Pixels = Float64[np.ndarray, "n height width"]


@dataclass(frozen=True)
class Localised:
    """How well maps say where something is. Each score stands beside two lower levels: a point or
    area drawn at random, and the same maps held against the truth of other rows, which is what
    maps give that only know where things tend to be.

    Attributes:
        pointing: The pointing game (Zhang et al., ECCV 2016), without their margin: how often the
            highest pixel lies on the object.
        pointing_chance: A point drawn anywhere in the picture.
        pointing_swapped: The maps of other rows.
        half: IoU of the pixels above half way from the map's least to its largest value.
        half_chance: So many pixels drawn anywhere.
        half_swapped: The maps of other rows.
        area: IoU of the map's highest pixels, as many as the object has.
        area_chance: So many pixels drawn anywhere.
        area_swapped: The maps of other rows.
    """

    pointing: Tally
    pointing_chance: float
    pointing_swapped: float
    half: Tally
    half_chance: float
    half_swapped: float
    area: Tally
    area_chance: float
    area_swapped: float

    def to_dict(self, rng: np.random.Generator) -> dict[str, Any]:
        """Plain JSON values, with intervals."""
        return {
            name: {
                "value": tally.mean,
                "chance": getattr(self, f"{name}_chance"),
                "swapped": getattr(self, f"{name}_swapped"),
                "interval": interval(tally, rng),
            }
            for name, tally in (
                ("pointing", self.pointing),
                ("half", self.half),
                ("area", self.area),
            )
        }


def discs(
    places: Float[np.ndarray, "n 2"], radii: Float[np.ndarray, "n"], size: tuple[int, int]
) -> Masks:
    """The pixels whose middle lies within a disc.

    Args:
        places: Middle of each, px right and down from the picture's corner.
        radii: Px. Larger ones give the pointing game a margin.
        size: Height and width of the picture.
    """
    down, right = np.arange(size[0])[:, None] + 0.5, np.arange(size[1]) + 0.5
    x, y = places.astype(np.float64).T[:, :, None, None]
    return (right - x) ** 2 + (down - y) ** 2 <= radii.astype(np.float64)[:, None, None] ** 2


def boxes(corners: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> Masks:
    """The pixels whose middle lies within a box.

    Args:
        corners: Left, top, right and bottom of each, px from the picture's left and upper edge.
        size: Height and width of the picture.
    """
    down, right = np.arange(size[0])[:, None] + 0.5, np.arange(size[1]) + 0.5
    left, top, end, bottom = corners.astype(np.float64).T[:, :, None, None]
    return (left <= right) & (right <= end) & (top <= down) & (down <= bottom)


def enlarge(
    grids: Float32[np.ndarray, "n rows columns"], size: int, shown: int, crop: int = 0
) -> Maps:
    """Maps on a video encoder's grid, at the size of the picture.

    A token of a convolutional encoder looks at the pixel (0, 0) of its cell rather than at the
    cell's middle: kernels are odd and padded by half, so that a stride of 2 takes the pixels 0, 2,
    4 and so on. Between tokens maps are cubic B-splines: where two neighbours are equally high, the
    highest place lies between them, as what both of them see does, while straight lines have their
    peaks at tokens alone. Beyond the last tokens they are held.

    Args:
        grids: Values at the tokens.
        size: Height and width of the (square) picture, px.
        shown: Of the picture as the reader delivered it, px.
        crop: Of the middle part of that which the encoder saw, px; 0 means all.
    """
    seen = crop or shown
    pixel = (np.arange(size) + 0.5) * shown / size - 0.5 - (shown - seen) // 2
    rows, columns = (_between(pixel * count / seen, count) for count in grids.shape[1:])
    return np.einsum("yi,nij,xj->nyx", rows, grids, columns).astype(np.float32)


def localise(maps: Maps, truth: Masks, groups: np.ndarray) -> Localised:
    """Pointing game and IoU.

    Args:
        maps: One a row, at the picture's size; larger is more likely.
        truth: The pixels of the object.
        groups: What is resampled for intervals, one a row.

    Raises:
        DataError: If there is no row, an object has no pixel or a map a value that is not finite.
    """
    sizes = truth.sum(axis=(1, 2))
    if not len(maps) or not sizes.all() or not np.isfinite(maps).all():
        raise DataError(
            f"Localisation takes maps of finite values and objects that are in the picture: of "
            f"{len(maps)} rows, {int((sizes == 0).sum())} objects have no pixel and "
            f"{int((~np.isfinite(maps)).any(axis=(1, 2)).sum())} maps are not finite."
        )
    share = sizes / truth[0].size
    levels = maps.astype(np.float64)
    middle = (levels.min(axis=(1, 2)) + levels.max(axis=(1, 2)))[:, None, None] / 2
    marked = (levels >= middle).astype(np.float64)
    count = marked.sum(axis=(1, 2))
    expected = count * share
    hits, half = _overlaps(points(maps), truth), _overlaps(marked, truth)
    half = half / (count[:, None] + sizes - half)
    area = _overlaps(highest(levels, sizes), truth)
    area = area / (sizes[:, None] + sizes - area)
    return Localised(
        pointing=Tally.of(np.diag(hits), groups),
        pointing_chance=float(share.mean()),
        pointing_swapped=_elsewhere(hits),
        half=Tally.of(np.diag(half), groups),
        half_chance=float((expected / (count + sizes - expected)).mean()),
        half_swapped=_elsewhere(half),
        area=Tally.of(np.diag(area), groups),
        area_chance=float((share / (2 - share)).mean()),
        area_swapped=_elsewhere(area),
    )


def points(maps: Maps) -> Pixels:
    """1 at the highest pixel of each map, the first of equal ones: where the last token of a row is
    the highest, that is the pixel it looks at, and not the margin where `enlarge` holds its value.
    A map that is level everywhere points at the upper left corner."""
    flat = maps.reshape(len(maps), -1)
    marks = np.zeros(flat.shape)
    marks[np.arange(len(flat)), flat.argmax(axis=1)] = 1
    return marks.reshape(maps.shape)


def highest(levels: Pixels, sizes: Int64[np.ndarray, "n"]) -> Pixels:
    """1 for so many of the highest pixels of each map; those equal at the edge share the rest.

    Args:
        levels: Maps.
        sizes: Pixels to mark of each, 1 at least.
    """
    flat = levels.reshape(len(levels), -1)
    edge = np.sort(flat, axis=1)[np.arange(len(flat)), -sizes][:, None]
    above, level = flat > edge, flat == edge
    left = sizes[:, None] - above.sum(axis=1, keepdims=True)
    return (above + level * (left / level.sum(axis=1, keepdims=True))).reshape(levels.shape)


def _overlaps(
    marked: Pixels, truth: Bool[np.ndarray, "m height width"]
) -> Float64[np.ndarray, "n m"]:
    """Pixels that each row's mark shares with each row's truth."""
    return marked.reshape(len(marked), -1) @ truth.reshape(len(truth), -1).T.astype(np.float64)


def _elsewhere(scores: Float64[np.ndarray, "n n"]) -> float:
    """Mean score against the truth of the other rows; NaN for one row."""
    count = len(scores)
    return float((scores.sum() - np.trace(scores)) / (count * (count - 1))) if count > 1 else np.nan


def _between(at: Float64[np.ndarray, "pixel"], count: int) -> Float64[np.ndarray, "pixel token"]:
    """Weights of tokens 0, 1, ... of a cubic B-spline at fractional places."""
    tokens = np.arange(-2, count + 2)
    away = np.abs(np.clip(at, 0, count - 1)[:, None] - tokens)
    weight = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, 1) ** 3 / 6)
    return weight @ np.eye(count)[np.clip(tokens, 0, count - 1)]
