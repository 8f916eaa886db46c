"""When the balls of a generated world sound, and where they are then: what its tables say.

Both balls of a film sound when they meet something, and one of them hums as it moves.

    moments = impacts(world, films)       # or hums(world, films)
    moments.sounding                      # x, y and radius of the ball that is heard
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64

from mainspring.errors import DataError

Discs = Float64[np.ndarray, "n 3"]

RINGS = 0.15
"""Seconds around a moment within which an impact of the other ball could be what is heard; a tone
falls to a ninth in this time."""
STEP = 0.2
"""Seconds from one moment of humming to the next."""


@dataclass(frozen=True)
class Moments:
    """When a ball sounds, and where both balls are then.

    Attributes:
        films: Path of each moment's film.
        seconds: From its beginning.
        sounding: x, y and radius of the ball that sounds, px of the picture.
        other: The same of the other ball.
    """

    films: np.ndarray
    seconds: Float64[np.ndarray, "n"]
    sounding: Discs
    other: Discs

    def __len__(self) -> int:
        return len(self.films)


def impacts(world: Path, films: Sequence[str], alone: bool = True) -> Moments:
    """The moments at which a ball meets something.

    Args:
        world: Folder of a generated world.
        films: Paths of the films to ask about, within it.
        alone: Only those around which the other ball meets nothing, so that one ball is right.

    Raises:
        DataError: If there is no generated world, or a film is not of it.
    """
    tracks, truth = _tracks(world, films), _table(world / "truth.parquet", world, films)
    rows = []
    for film, second, ball in zip(truth["uri"], truth["time"], truth["object"], strict=True):
        near = (truth["uri"] == film) & (truth["object"] != ball)
        if not alone or not (np.abs(truth["time"][near] - second) < RINGS).any():
            rows.append((film, second, int(ball)))
    return _moments(rows, tracks)


def hums(world: Path, films: Sequence[str]) -> Moments:
    """Moments at which nothing is heard but the ball that hums, `STEP` apart.

    Args:
        world: Folder of a generated world.
        films: Paths of the films to ask about, within it.

    Raises:
        DataError: If there is no generated world, or a film is not of it.
    """
    tracks, truth = _tracks(world, films), _table(world / "truth.parquet", world, films)
    rows = []
    for film in films:
        track = tracks[film]
        struck = truth["time"][truth["uri"] == film]
        grid = np.arange(STEP, track.seconds[-1], STEP)
        quiet = (np.abs(struck[:, None] - grid) >= RINGS).all(0)
        rows += [(film, float(second), track.hums) for second in grid[quiet]]
    return _moments(rows, tracks)


def moved(world: Path, moments: Moments, seconds: Float64[np.ndarray, "n"]) -> Moments:
    """The same moments with the balls where they are at other seconds of their films.

    Args:
        world: Folder of a generated world.
        moments: Of its films.
        seconds: From the beginning of each moment's film; between frames, places are interpolated.

    Raises:
        DataError: If a film is not of this world.
    """
    films = moments.films.tolist()
    tracks = _tracks(world, list(dict.fromkeys(films)))

    def there(discs: Discs) -> Discs:
        rows = zip(films, discs[:, 2], seconds.tolist(), strict=True)
        found = [
            tracks[film].disc(tracks[film].ball_of(radius), second) for film, radius, second in rows
        ]
        return np.array(found).reshape(-1, 3)

    return replace(moments, sounding=there(moments.sounding), other=there(moments.other))


@dataclass(frozen=True)
class _Track:
    """Where the two balls of a film are.

    Attributes:
        seconds: Of each frame.
        places: x and y of each ball in each frame.
        radii: Of each ball.
        hums: Which ball hums.
    """

    seconds: Float64[np.ndarray, "frame"]
    places: Float64[np.ndarray, "2 frame 2"]
    radii: tuple[float, float]
    hums: int

    def disc(self, ball: int, second: float) -> tuple[float, float, float]:
        """x, y and radius of a ball."""
        x, y = (np.interp(second, self.seconds, self.places[ball, :, axis]) for axis in (0, 1))
        return float(x), float(y), self.radii[ball]

    def ball_of(self, radius: float) -> int:
        """The ball of a radius."""
        return int(abs(self.radii[1] - radius) < abs(self.radii[0] - radius))


def _table(path: Path, world: Path, films: Sequence[str]) -> dict[str, np.ndarray]:
    """A table of a world as arrays: only what is about these films, whose paths are made whole."""
    if not path.is_file():
        raise DataError(f"{world} is no generated world: {path.name} is not there.")
    table = pq.read_table(path).to_pydict()
    uris = np.array([str(world / uri) for uri in table["uri"]], object)
    kept = np.isin(uris.astype(str), np.array(films, str))
    columns = {name: np.array(values)[kept] for name, values in table.items() if name != "uri"}
    return columns | {"uri": uris[kept]}


def _tracks(world: Path, films: Sequence[str]) -> dict[str, _Track]:
    """The balls of each film."""
    table, found = _table(world / "tracks.parquet", world, films), {}
    for film in films:
        rows = [(table["uri"] == film) & (table["object"] == ball) for ball in (0, 1)]
        if not rows[0].any():
            raise DataError(f"{film} is no film of the world in {world}.")
        found[film] = _Track(
            table["time"][rows[0]],
            np.stack([np.stack([table["x"][r], table["y"][r]], 1) for r in rows]),
            (float(table["radius"][rows[0]][0]), float(table["radius"][rows[1]][0])),
            int(table["sounding"][rows[1]][0]),
        )
    return found


def _moments(rows: list[tuple[str, float, int]], tracks: dict[str, _Track]) -> Moments:
    """Moments of (film, second, ball that sounds)."""
    discs = [
        np.array([tracks[film].disc(which(ball), second) for film, second, ball in rows])
        for which in (lambda ball: ball, lambda ball: 1 - ball)
    ]
    sounding, other = (each.reshape(-1, 3) for each in discs)
    films = np.array([row[0] for row in rows], object)
    return Moments(films, np.array([row[1] for row in rows], np.float64), sounding, other)
