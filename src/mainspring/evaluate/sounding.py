"""Is the map of where a sound comes from right? Asked of the generated world, which knows.

Two balls look alike there. Both sound when they meet something, one of them hums as it moves, and
the tables beside the films say which, when and where. At such a moment a map is right if its
highest place lies on the ball that sounds (the pointing game, Zhang et al., ECCV 2016).

Chance is the share of the picture that the ball covers, and beating it takes no ear: whatever
points at balls does. So maps that do not hear stand beside the one in question (the middle of the
picture, where most moves, the map for the sound of another film), and of the points on exactly one
of the balls it is counted how many are on the right one, a half for whoever only looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float32, Float64, UInt8

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate.forward import Reads
from mainspring.pretexts.crossmodal.sound_source import SoundSource, around, maps
from mainspring.recordings.demo.picture import SIZE
from mainspring.recordings.recording import Recording

Maps = Float32[np.ndarray, "n height width"]
Discs = Float64[np.ndarray, "n 3"]

RINGS = 0.15
"""Seconds around a moment within which an impact of the other ball could be what is heard; a tone
falls to a ninth in this time."""
STEP = 0.2
"""Seconds from one moment of humming to the next."""
SMOOTH = 17
"""Px: side of the square over which motion is summed, a ball's width."""


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


@dataclass(frozen=True)
class Score:
    """How well maps point at what sounds.

    Attributes:
        moments: How many were asked.
        pointing: Share of maps whose highest place is on the ball that sounds.
        chance: The same for points anywhere in the picture.
        either: Share whose highest place is on either ball.
        which: Of the points on exactly one ball, the share on the right one; NaN without any.
        overlap: Mean intersection over union of the ball that sounds with the highest places of
            the map, as many as a ball covers on average. That number, rather than a threshold, says
            nothing about how high a map is, only about its order.
        overlap_chance: The same for places anywhere in the picture.
        hits: Whether each moment was a hit.
    """

    moments: int
    pointing: float
    chance: float
    either: float
    which: float
    overlap: float
    overlap_chance: float
    hits: Bool[np.ndarray, "n"]


@dataclass(frozen=True)
class Scene:
    """Clips around moments.

    Attributes:
        moments: Where the balls are in each clip's middle frame.
        pictures: As the reader delivers them.
        sounds: Of the same instants.
    """

    moments: Moments
    pictures: UInt8[np.ndarray, "n frames size size 3"]
    sounds: Float32[np.ndarray, "n time"]

    def with_sounds_of_others(self) -> Scene:
        """Each picture with the sound of another film."""
        count, films = len(self.moments), self.moments.films
        for shift in range(count // 2, count // 2 + count):
            taken = (np.arange(count) + shift) % count
            if (films[taken] != films).all():
                return replace(self, sounds=self.sounds[taken])
        raise DataError("Sounds of other films need moments of two films, in equal parts at most.")


def impacts(world: Path, films: Sequence[str], alone: bool = True) -> Moments:
    """The moments at which a ball meets something.

    Args:
        world: Folder of a generated world.
        films: Paths of the films to ask about, within it.
        alone: Only those around which the other ball meets nothing, so that one ball is right.
    """
    tracks, truth = _tracks(world, films), _table(world / "truth.parquet", world, films)
    rows = []
    for film, second, ball in zip(truth["uri"], truth["time"], truth["object"], strict=True):
        near = (truth["uri"] == film) & (truth["object"] != ball)
        if not alone or not (np.abs(truth["time"][near] - second) < RINGS).any():
            rows.append((film, second, int(ball)))
    return _moments(rows, tracks)


def hums(world: Path, films: Sequence[str]) -> Moments:
    """Moments at which nothing is heard but the ball that hums."""
    tracks, truth = _tracks(world, films), _table(world / "truth.parquet", world, films)
    rows = []
    for film in films:
        track = tracks[film]
        struck = truth["time"][truth["uri"] == film]
        grid = np.arange(STEP, track.seconds[-1], STEP)
        quiet = (np.abs(struck[:, None] - grid) >= RINGS).all(0)
        rows += [(film, float(second), track.hums) for second in grid[quiet]]
    return _moments(rows, tracks)


def watch(
    world: Path,
    moments: Moments,
    reader: Reads,
    clips: Mapping[str, ClipSpec],
) -> Scene:
    """Reads the clips around moments, and looks up the balls in their middle frames.

    Args:
        world: Folder of the generated world.
        moments: When.
        reader: Of both streams.
        clips: How they are cut.

    Raises:
        DataError: If there are no moments.
    """
    if not len(moments):
        raise DataError("There are no moments to ask about in these films.")
    films = list(dict.fromkeys(moments.films.tolist()))
    tracks = _tracks(world, films)
    sounding, other = moments.sounding.copy(), moments.other.copy()
    pictures, sounds = [], []
    for film in films:
        rows = np.flatnonzero(moments.films == film)
        recording = Recording(film)
        timeline = reader.timeline(recording)
        cut = around(timeline, clips, moments.seconds[rows])
        read = reader.read(recording, cut)
        pictures.append((rows, read["video"]))
        sounds.append((rows, read["audio"]))
        middles = cut["video"][:, clips["video"].length // 2] / timeline["video"].rate
        for discs in (sounding, other):
            balls = [tracks[film].ball_of(radius) for radius in discs[rows, 2]]
            discs[rows] = [
                tracks[film].disc(ball, second) for ball, second in zip(balls, middles, strict=True)
            ]
    return Scene(
        Moments(moments.films, moments.seconds, sounding, other),
        _joined(pictures),
        _joined(sounds),
    )


def attention(
    encoders: Mapping[str, Encoder],
    pretext: SoundSource,
    scene: Scene,
    batch: int = 32,
) -> Maps:
    """The map of each clip's middle frame, over the whole picture.

    Args:
        encoders: "video" and "audio"; left in the mode they came in.
        pretext: What they were trained with.
        scene: Clips.
        batch: Clips at a time.
    """
    modes = [(module, module.training) for module in [*encoders.values(), pretext]]
    for module, _ in modes:
        module.eval()
    try:
        found = []
        for at in range(0, len(scene.moments), batch):
            pictures = torch.from_numpy(scene.pictures[at : at + batch])
            sounds = torch.from_numpy(scene.sounds[at : at + batch])
            grids = maps(encoders, pretext, pictures, sounds)
            found.append(_middle(grids.float().cpu().numpy(), scene.pictures.shape[1]))
    finally:
        for module, training in modes:
            module.train(training)
    return enlarge(np.concatenate(found), scene.pictures.shape[2], pretext.clips["video"].crop)


def motion(scene: Scene) -> Maps:
    """Where most moves: differences of the middle frame to those beside it, summed over a ball's
    width. It knows how large balls are, and hears nothing."""
    middle = scene.pictures.shape[1] // 2
    frames = scene.pictures[:, max(0, middle - 1) : middle + 2].astype(np.float32)
    moved = torch.from_numpy(np.abs(np.diff(frames, axis=1)).mean((1, 4)))[:, None]
    sized = torch.nn.functional.interpolate(
        moved, size=(SIZE, SIZE), mode="bilinear", align_corners=False
    )
    # Only what is summed counts at the border, where a part of the square is outside.
    return torch.nn.functional.avg_pool2d(
        sized, SMOOTH, stride=1, padding=SMOOTH // 2, count_include_pad=False
    )[:, 0].numpy()


def middle_of_picture(scene: Scene) -> Maps:
    """Higher the nearer to the middle of the picture."""
    away = np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - (SIZE - 1) / 2)).astype(np.float32)
    return np.tile(-away, (len(scene.moments), 1, 1))


def enlarge(grids: Float32[np.ndarray, "n h w"], size: int, crop: int = 0) -> Maps:
    """Maps on an encoder's grid, at the size of the world's picture.

    A token of a convolutional encoder looks at the pixel (0, 0) of its cell rather than at the
    cell's middle: kernels are odd and padded by half, so that a stride of 2 takes the pixels 0, 2,
    4 and so on. Between tokens maps are cubic B-splines: where two neighbours are equally high, the
    highest place lies between them, as what both of them see does, while straight lines have their
    peaks at tokens alone. Beyond the last tokens they are held.

    Args:
        grids: Values at the tokens.
        size: Of the pictures that the reader delivered.
        crop: Of the part of them that the encoder saw; 0 means all.
    """
    seen = crop or size
    pixel = (np.arange(SIZE) + 0.5) * size / SIZE - 0.5 - (size - seen) // 2
    rows, columns = (_between(pixel * count / seen, count) for count in grids.shape[1:])
    return np.einsum("yi,nij,xj->nyx", rows, grids, columns).astype(np.float32)


def score(found: Maps, moments: Moments) -> Score:
    """Compares maps of `SIZE` by `SIZE` px with where the balls are."""
    ranked = found.reshape(len(found), -1)
    points = np.stack(np.unravel_index(ranked.argmax(1), (SIZE, SIZE)), 1)
    hits, wrong = (_inside(points, discs) for discs in (moments.sounding, moments.other))
    one = hits ^ wrong
    place = np.mgrid[0:SIZE, 0:SIZE].reshape(2, -1).T
    covered = np.stack(
        [_inside(place, np.tile(disc, (len(place), 1))) for disc in moments.sounding]
    )
    share = float(covered.mean())
    count = max(1, round(share * SIZE**2))
    best = np.argpartition(-ranked, count - 1, axis=1)[:, :count]
    shared = np.take_along_axis(covered, best, 1).sum(1)
    return Score(
        moments=len(moments),
        pointing=float(hits.mean()),
        chance=share,
        either=float((hits | wrong).mean()),
        which=float(hits[one].mean()) if one.any() else float("nan"),
        overlap=float((shared / (count + covered.sum(1) - shared)).mean()),
        overlap_chance=share / (2 - share),
        hits=hits,
    )


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


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Samples of all films in the order of the moments."""
    rows = np.concatenate([part[0] for part in parts])
    return np.concatenate([part[1] for part in parts])[np.argsort(rows)]


def _middle(grids: Float32[np.ndarray, "n t h w"], frames: int) -> Float32[np.ndarray, "n h w"]:
    """The map of the clip's middle frame."""
    return grids[:, frames // 2 * grids.shape[1] // frames]


def _between(at: Float64[np.ndarray, "pixel"], count: int) -> Float64[np.ndarray, "pixel token"]:
    """Weights of tokens 0, 1, ... of a cubic B-spline at fractional places."""
    tokens = np.arange(-2, count + 2)
    away = np.abs(np.clip(at, 0, count - 1)[:, None] - tokens)
    weight = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, 1) ** 3 / 6)
    return weight @ np.eye(count)[np.clip(tokens, 0, count - 1)]


def _inside(points: np.ndarray, discs: Discs) -> Bool[np.ndarray, "n"]:
    """Whether each point (row, column) lies on its disc (x, y, radius)."""
    return np.hypot(points[:, 1] - discs[:, 0], points[:, 0] - discs[:, 1]) <= discs[:, 2]
