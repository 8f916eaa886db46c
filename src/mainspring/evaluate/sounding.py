"""Is the map of where a sound comes from right? Asked of the generated world, which knows.

Two balls look alike there, and tables beside the films say which of them sounds when and where
(`mainspring.evaluate.balls`). At such a moment a map is right if its highest place lies on the ball
that sounds (the pointing game, Zhang et al., ECCV 2016).

    scene = watch(world, impacts(world, films), reader, clips)
    score(attention(encoders, pretext, scene), scene.moments)

Chance is the share of the picture that the ball covers, and beating it takes no ear: whatever
points at balls does. So maps that do not hear stand beside the one in question (the middle of the
picture, where most moves, the map for the sound of another film), and of the points on exactly one
of the balls it is counted how many are on the right one, a half for whoever only looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from mainspring.clips import ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate.balls import Discs, Moments, moved
from mainspring.evaluate.forward import Reads
from mainspring.evaluate.localise import Localised, Maps, Masks, discs, enlarge, localise, points
from mainspring.pretexts.crossmodal.sound_source import SoundSource, around, maps
from mainspring.recordings.demo.picture import SIZE
from mainspring.recordings.recording import Recording

SMOOTH = 17
"""Px: side of the square over which motion is summed, a ball's width."""


@dataclass(frozen=True)
class Score:
    """How well maps point at what sounds.

    Attributes:
        moments: How many were asked.
        ball: Pointing game and IoU for the ball that sounds; intervals resample films.
        either: Share whose highest place is on either ball.
        which: Of the points on exactly one ball, the share on the right one; NaN without any.
    """

    moments: int
    ball: Localised
    either: float
    which: float


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
        """Each picture with the sound of another film.

        Raises:
            DataError: If there is one film only, or most moments are of one.
        """
        count, films = len(self.moments), self.moments.films
        for shift in range(count // 2, count // 2 + count):
            taken = (np.arange(count) + shift) % count
            if (films[taken] != films).all():
                return replace(self, sounds=self.sounds[taken])
        raise DataError("Sounds of other films need moments of two films, in equal parts at most.")


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
    middles = np.empty(len(moments))
    pictures, sounds = [], []
    for film in dict.fromkeys(moments.films.tolist()):
        rows = np.flatnonzero(moments.films == film)
        recording = Recording(film)
        timeline = reader.timeline(recording)
        cut = around(timeline, clips, moments.seconds[rows])
        read = reader.read(recording, cut)
        pictures.append((rows, read["video"]))
        sounds.append((rows, read["audio"]))
        middles[rows] = cut["video"][:, clips["video"].length // 2] / timeline["video"].rate
    return Scene(moved(world, moments, middles), _joined(pictures), _joined(sounds))


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
    shown = scene.pictures.shape[2]
    return enlarge(np.concatenate(found), SIZE, shown, pretext.clips["video"].crop)


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


def score(found: Maps, moments: Moments) -> Score:
    """Compares maps with where the balls are.

    Args:
        found: Of `SIZE` by `SIZE` px, one a moment; larger is more likely.
        moments: Those of the scene.

    Raises:
        DataError: If there is no map, or one has a value that is not finite.
    """
    right, wrong = _balls(moments.sounding), _balls(moments.other)
    point = points(found)
    here, either, one = (
        (point * which).sum(axis=(1, 2)) for which in (right & ~wrong, right | wrong, right ^ wrong)
    )
    return Score(
        moments=len(moments),
        ball=localise(found, right, moments.films),
        either=float(either.mean()),
        which=float(here.sum() / one.sum()) if one.any() else float("nan"),
    )


def _balls(where: Discs) -> Masks:
    """The pixels of balls, whose places count from the middle of the first pixel."""
    return discs(where[:, :2] + 0.5, where[:, 2], (SIZE, SIZE))


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Samples of all films in the order of the moments."""
    rows = np.concatenate([part[0] for part in parts])
    return np.concatenate([part[1] for part in parts])[np.argsort(rows)]


def _middle(grids: Float32[np.ndarray, "n t h w"], frames: int) -> Float32[np.ndarray, "n h w"]:
    """The map of the clip's middle frame."""
    return grids[:, frames // 2 * grids.shape[1] // frames]
