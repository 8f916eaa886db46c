"""How a recording looks: eight appearances, many cameras, and frames drawn from them.

An appearance (colours, background pattern, ball texture) is drawn independently of the motion. A
camera belongs to a group of recordings: the exact background, exposure, offset and noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from mainspring.recordings.demo.physics import STEPS, Motion

SIZE = 96  # px, width and height
FPS = 20  # frames a second
MARGIN = 5.0  # px between a ball's path and the border, of which a camera may take `SHAKE`
SHAKE = 4.0  # px


@dataclass(frozen=True)
class Appearance:
    """A look: the second label.

    Attributes:
        word: Name of the look.
        pattern: Background family, a key of `PATTERNS`.
        ground: Background colour, RGB 0 to 255.
        texture: Ball texture, a key of `TEXTURES`.
        balls: Main colours of the two balls.
        mark: Colour of the texture's marks.
        words: Of texture, colours and background, for captions.
    """

    word: str
    pattern: str
    ground: tuple[int, int, int]
    texture: str
    balls: tuple[tuple[int, int, int], tuple[int, int, int]]
    mark: tuple[int, int, int]
    words: tuple[str, str, str]


# Half of the looks have light balls on dark ground, half dark balls on light ground.
APPEARANCES: dict[str, Appearance] = {
    look.word: look
    for look in (
        Appearance(
            "night", "blobs", (38, 42, 78), "stripes", ((245, 225, 90), (250, 170, 60)),
            (90, 50, 20), ("striped", "yellow and orange", "a cloudy night-blue background"),
        ),
        Appearance(
            "meadow", "bands", (52, 98, 48), "spot", ((245, 245, 240), (250, 200, 210)),
            (190, 30, 60), ("spotted", "white and pink", "a banded green background"),
        ),
        Appearance(
            "brick", "checks", (118, 52, 42), "halves", ((235, 235, 220), (150, 225, 235)),
            (40, 40, 60), ("half-dark", "white and cyan", "a checked brick-red background"),
        ),
        Appearance(
            "slate", "slope", (70, 74, 80), "cross", ((120, 235, 120), (240, 240, 110)),
            (40, 60, 160), ("crossed", "green and yellow", "a shaded grey background"),
        ),
        Appearance(
            "sand", "bands", (214, 188, 140), "halves", ((150, 40, 40), (90, 40, 110)),
            (245, 235, 220), ("half-light", "red and purple", "a banded sandy background"),
        ),
        Appearance(
            "snow", "slope", (222, 228, 234), "spot", ((30, 60, 150), (30, 110, 70)),
            (250, 230, 120), ("spotted", "blue and green", "a shaded snow-white background"),
        ),
        Appearance(
            "sky", "blobs", (150, 196, 232), "cross", ((160, 40, 90), (60, 50, 60)),
            (245, 245, 245), ("crossed", "crimson and black", "a cloudy sky-blue background"),
        ),
        Appearance(
            "rose", "checks", (232, 170, 182), "stripes", ((40, 90, 90), (60, 50, 130)),
            (240, 220, 160), ("striped", "teal and violet", "a checked rose background"),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """What the recordings of one group share.

    Attributes:
        exposure: Factor on all brightness.
        offset: Shift of the whole scene, px right and down.
        noise: Standard deviation of the sensor's noise, of 255.
        tint: Shift of the background's RGB, of 255.
        scale: Size of the background's pattern, px.
        turn: Its direction, radians.
        phase: Its shift, radians.
    """

    exposure: float
    offset: tuple[float, float]
    noise: float
    tint: tuple[float, float, float]
    scale: float
    turn: float
    phase: tuple[float, float]


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draws the camera of a group."""
    right, down = (float(v) for v in rng.uniform(-SHAKE, SHAKE, 2))
    red, green, blue = (float(v) for v in rng.normal(0, 7, 3))
    along, across = (float(v) for v in rng.uniform(0, 2 * math.pi, 2))
    return Camera(
        exposure=float(rng.uniform(0.85, 1.1)),
        offset=(right, down),
        noise=float(rng.uniform(1, 4)),
        tint=(red, green, blue),
        scale=float(rng.uniform(9, 22)),
        turn=float(rng.uniform(0, math.pi)),
        phase=(along, across),
    )


def _blobs(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    return np.sin(along + 1.7 * np.sin(0.6 * across)) * np.sin(0.8 * across + np.sin(0.5 * along))


PATTERNS = {
    "blobs": _blobs,
    "bands": lambda along, across: np.tanh(2 * np.sin(along)),
    "checks": lambda along, across: np.tanh(3 * np.sin(along) * np.sin(across)),
    "slope": lambda along, across: np.clip((along - along.mean()) / 6, -1.5, 1.5),
}

# Share of the mark's colour at a place on the ball: own coordinates, 1 at the rim. All textures
# lack a half-turn symmetry, so that spin can be followed at a few frames a second.
TEXTURES = {
    "stripes": lambda u, v: _edge(np.cos(4.2 * u + 0.8)),
    "spot": lambda u, v: _edge((0.45 - np.hypot(u - 0.45, v)) * 2.5),
    "halves": lambda u, v: _edge(u * 2.5),
    "cross": lambda u, v: _edge((0.22 - np.minimum(np.abs(u), np.abs(v))) * 3) * (u + v > -0.4),
}


def _edge(height: np.ndarray) -> np.ndarray:
    """A soft step from 0 to 1 at height 0."""
    return np.clip(0.5 + 1.5 * height, 0.0, 1.0)


def background(look: Appearance, camera: Camera) -> Float32[np.ndarray, "rows columns 3"]:
    """Draws the still background, before exposure."""
    down, right = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    right, down = right - camera.offset[0], down - camera.offset[1]
    wave = 2 * math.pi / camera.scale / 2
    cos, sin = wave * math.cos(camera.turn), wave * math.sin(camera.turn)
    along = cos * right + sin * down + camera.phase[0]
    across = cos * down - sin * right + camera.phase[1]
    height = PATTERNS[look.pattern](along, across).astype(np.float32)
    colour = np.array(look.ground, np.float32) + np.array(camera.tint, np.float32)
    return colour + 13.0 * height[..., None]


def seen(motion: Motion, camera: Camera) -> Float[np.ndarray, "2 times 2"]:
    """Px right and down of the balls' centres in the picture."""
    return motion.place + np.array(camera.offset)


def draw(
    motion: Motion, look: Appearance, camera: Camera, seconds: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "frames rows columns 3"]:
    """Draws all frames of a recording.

    Args:
        motion: Framed for a picture of `SIZE`.
        look: Colours and textures.
        camera: Of the recording's group.
        seconds: Length.
        rng: Draws the noise and which ball has which colour.

    Returns:
        RGB, `FPS` frames a second.
    """
    frames = round(seconds * FPS)
    steps = np.arange(frames) * (STEPS // FPS)
    video = np.tile(background(look, camera), (frames, 1, 1, 1))
    colours = look.balls if rng.integers(2) else look.balls[::-1]
    centres = seen(motion, camera)[:, steps]
    for which in (0, 1):
        paint_ball(
            video, centres[which], motion.angle[which, steps], motion.radii[which],
            np.array(colours[which], np.float32), np.array(look.mark, np.float32),
            TEXTURES[look.texture],
        )  # fmt: skip
    video *= camera.exposure
    grain = rng.standard_normal(video.shape[:3], dtype=np.float32)
    video += (camera.noise * grain)[..., None]
    return np.clip(video + 0.5, 0, 255).astype(np.uint8)


def paint_ball(
    video: Float32[np.ndarray, "frames rows columns 3"],
    centres: Float[np.ndarray, "frames 2"],
    angles: Float[np.ndarray, " frames"],
    radius: float,
    colour: Float32[np.ndarray, "3"],
    mark: Float32[np.ndarray, "3"],
    texture: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    """Paints one ball into every frame, in place, with an anti-aliased rim.

    Args:
        video: What to paint on.
        centres: Px right and down.
        angles: Radians, counter-clockwise as seen.
        radius: Px.
        colour: RGB of the ball.
        mark: RGB of its texture's marks.
        texture: One of `TEXTURES`.
    """
    half = math.ceil(radius)  # MARGIN and SHAKE keep this window inside the picture
    corner = np.floor(centres).astype(int) - half
    span = np.arange(2 * half + 2)
    columns = corner[:, :1] + span  # (frame, window)
    rows = corner[:, 1:] + span
    right = ((columns - centres[:, :1]) / radius)[:, None, :]
    down = ((rows - centres[:, 1:]) / radius)[:, :, None]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    u, v = cos * right - sin * down, -sin * right - cos * down
    away = np.hypot(right, down)
    share = texture(u, v)[..., None]
    shade = (1.0 - 0.25 * np.clip(away, 0, 1) ** 2)[..., None]  # darker towards the rim
    painted = shade * (share * mark + (1 - share) * colour)
    cover = np.clip(0.5 + (1 - away) * radius, 0, 1)[..., None]
    frame = np.arange(len(video))[:, None, None]
    where = (frame, rows[:, :, None], columns[:, None, :])
    video[where] = cover * painted + (1 - cover) * video[where]
