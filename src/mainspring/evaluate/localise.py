"""Where a sound comes from: maps of coarse cells against discs and boxes in the picture.

truth = discs(places, radii, (height, width))      # or boxes(corners, (height, width))
found = localise(maps, truth, groups)
found.pointing.mean, found.pointing_chance, found.pointing_swapped
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int64

from mainspring.errors import DataError
from mainspring.evaluate.intervals import Tally, interval

Maps = Float32[np.ndarray, "n rows columns"]
Masks = Bool[np.ndarray, "n height width"]
Pixels = Float64[np.ndarray, "n height width"]


@dataclass(frozen=True)
class Localised:
    """How well maps say where something is. Each score stands beside two lower levels: a point or
    area drawn at random, and the same maps held against the truth of other rows, which is what
    maps give that only know where things tend to be.

    Attributes:
        pointing: The pointing game (Zhang et al., ECCV 2016), without their margin: how often the
            middle of the cell with the largest value lies on the object.
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
    """The pixels whose middle lies within a box: left, top, right and bottom, in px."""
    down, right = np.arange(size[0])[:, None] + 0.5, np.arange(size[1]) + 0.5
    left, top, end, bottom = corners.astype(np.float64).T[:, :, None, None]
    return (left <= right) & (right <= end) & (top <= down) & (down <= bottom)


def localise(maps: Maps, truth: Masks, groups: np.ndarray) -> Localised:
    """Pointing game and IoU.

    Args:
        maps: One a row; larger is more likely. Its cells divide the whole picture evenly.
        truth: The pixels of the object, at the picture's size.
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
    fine = enlarged(maps, truth.shape[1:])
    middle = (fine.min(axis=(1, 2)) + fine.max(axis=(1, 2)))[:, None, None] / 2
    marked = (fine >= middle).astype(np.float64)
    count = marked.sum(axis=(1, 2))
    expected = count * share
    points, half = points_of(maps, truth.shape[1:]), _overlaps(marked, truth)
    half = half / (count[:, None] + sizes - half)
    area = _overlaps(highest(fine, sizes), truth)
    area = area / (sizes[:, None] + sizes - area)
    hits = _overlaps(points, truth)
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


def enlarged(maps: Maps, size: tuple[int, int]) -> Pixels:
    """Maps at the picture's size, bilinear between the middles of cells."""
    wide = F.interpolate(
        torch.from_numpy(maps).double()[:, None], size, mode="bilinear", align_corners=False
    )
    return wide[:, 0].numpy()


def points_of(maps: Maps, size: tuple[int, int]) -> Pixels:
    """The pixel in the middle of the cell with the largest value; equal ones share the 1."""
    _, rows, columns = maps.shape
    top = maps == maps.max(axis=(1, 2), keepdims=True)
    down = ((np.arange(rows) + 0.5) * size[0] / rows).astype(np.int64)
    right = ((np.arange(columns) + 0.5) * size[1] / columns).astype(np.int64)
    shares = top / top.sum(axis=(1, 2), keepdims=True)
    return np.einsum("nrc,rh,cw->nhw", shares, np.eye(size[0])[down], np.eye(size[1])[right])


def highest(fine: Pixels, sizes: Int64[np.ndarray, "n"]) -> Pixels:
    """1 for so many of the highest pixels of each map; those equal at the edge share the rest."""
    flat = fine.reshape(len(fine), -1)
    edge = np.sort(flat, axis=1)[np.arange(len(flat)), -sizes][:, None]
    above, level = flat > edge, flat == edge
    left = sizes[:, None] - above.sum(axis=1, keepdims=True)
    return (above + level * (left / level.sum(axis=1, keepdims=True))).reshape(fine.shape)


def _overlaps(
    marked: Pixels, truth: Bool[np.ndarray, "m height width"]
) -> Float64[np.ndarray, "n m"]:
    """Pixels that each row's mark shares with each row's truth."""
    return marked.reshape(len(marked), -1) @ truth.reshape(len(truth), -1).T.astype(np.float64)


def _elsewhere(scores: Float64[np.ndarray, "n n"]) -> float:
    """Mean score against the truth of the other rows; NaN for one row."""
    count = len(scores)
    return float((scores.sum() - np.trace(scores)) / (count * (count - 1))) if count > 1 else np.nan
