"""Two balls in motion: a fixed-step simulation of one recording.

Steps are of 1/240 s, a whole number of which make a video frame (20 Hz) and a row of the series
(40 Hz). Each step is a velocity Verlet step (which keeps energy) followed by drag, friction and
bounces (which only lose it), so energy never rises but at launches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mainspring.recordings.demo.programmes import PROGRAMMES, Ball, Programme

STEPS = 240  # a second
LAG = 0.3  # s: the most by which one ball's launch follows the other's
RADII = (7.5, 10.5)  # px
FULL_ENERGY = 0.5 * 400.0**2  # energy 1 in the tables: mass 1 turned about at 200 px/s
UNHEARD = 0.002  # impacts of less energy make no sound and are not listed


@dataclass(frozen=True)
class Impact:
    """A moment at which one ball sounds.

    Attributes:
        time: Seconds from the recording's beginning.
        object: 0 or 1.
        kind: `bounce` (against something unseen), `hit` (against the other ball) or `launch`.
        energy: Kinetic energy of the lost or won speed; 1 is a ball of mass 1 turned about at 200 px/s.
    """

    time: float
    object: int
    kind: str
    energy: float


@dataclass(frozen=True)
class Motion:
    """What two balls do, every 1/240 s, both ends included.

    Attributes:
        place: (2, steps + 1, 2): px to the right and up; to the right and down once `framed`.
        angle: (2, steps + 1): radians, counter-clockwise as seen.
        energy: (2, steps + 1): mechanical energy of each ball, without spin.
        radii: Of the two balls, px.
        impacts: In order of time.
        paired: Whether the balls exchange energy.
    """

    place: np.ndarray
    angle: np.ndarray
    energy: np.ndarray
    radii: tuple[float, float]
    impacts: tuple[Impact, ...]
    paired: bool

    @property
    def times(self) -> np.ndarray:
        """Seconds of each step."""
        return np.arange(self.angle.shape[1]) / STEPS

    @property
    def speed(self) -> np.ndarray:
        """(2, steps + 1): px/s, by differences."""
        return np.linalg.norm(np.gradient(self.place, axis=1), axis=2) * STEPS


def simulate(word: str, seconds: float, rng: np.random.Generator) -> Motion:
    """Moves two balls by one motion programme.

    The recording begins 1 to 2 s into the motion, so that its beginning is no special moment.

    Args:
        word: The programme, a key of `PROGRAMMES`.
        seconds: Length.
        rng: Draws sizes, constants, launches.

    Returns:
        The motion, in the programme's own place: `framed` puts it into a picture.
    """
    radii = (float(rng.uniform(*RADII)), float(rng.uniform(*RADII)))
    balls = [Ball(r, (r / 8) ** 2, angle=float(rng.uniform(0, 2 * math.pi))) for r in radii]
    laws = [PROGRAMMES[word](rng), PROGRAMMES[word](rng)]
    if laws[0].paired:
        laws[1] = laws[0]
    skipped = int(rng.uniform(0, 2.5) * STEPS)
    steps = round(seconds * STEPS)
    states = np.empty((2, steps + 1, 4))
    impacts: list[Impact] = []

    for which in (0, 1):
        laws[which].start(balls[which], which, rng)
    ready = [True, True]
    due = [0, 0]  # step of each ball's next launch
    for step in range(skipped + steps + 1):
        before = [(ball.first_speed, ball.second_speed) for ball in balls]
        kinds: list[str | None] = [None, None]
        for which, (law, ball) in enumerate(zip(laws, balls, strict=True)):
            if advance(law, ball, 1 / STEPS):
                kinds[which] = "bounce"
            if step > due[which] and law.spent(ball, kinds[which] == "bounce"):
                ready[which] = True
        if laws[0].paired and touch(balls[0], balls[1], laws[0].restitution):
            kinds = ["hit", "hit"]
        for which in _launched(step, ready, due, laws, balls, rng):
            kinds[which] = "launch"
        now = step - skipped
        if now < 0:
            continue
        for which, (law, ball) in enumerate(zip(laws, balls, strict=True)):
            states[which, now] = (ball.first, ball.second, ball.angle, law.energy(ball))
            kind = kinds[which]
            if kind is not None and now < steps:
                lost = math.dist(before[which], (ball.first_speed, ball.second_speed))
                energy = 0.5 * ball.mass * lost**2 / FULL_ENERGY
                if energy >= UNHEARD or kind == "launch":
                    impacts.append(Impact(now / STEPS, which, kind, energy))
    place = np.stack(
        [law.place(s[:, 0], s[:, 1]) for law, s in zip(laws, states, strict=True)], axis=0
    )
    return Motion(
        place, states[..., 2], states[..., 3], radii, tuple(impacts), paired=laws[0].paired
    )


def _launched(
    step: int,
    ready: list[bool],
    due: list[int],
    laws: list[Programme],
    balls: list[Ball],
    rng: np.random.Generator,
) -> list[int]:
    """Launches the balls whose time has come, and tells which.

    The balls wait for each other, and are launched at most `LAG` apart: a picture in which one
    ball slows down while the other is pushed would tell little about time's direction.
    """
    if all(ready):
        ready[:] = [False, False]
        lags = rng.uniform(0, LAG, 2)
        due[:] = [step if laws[0].paired else step + int(lag * STEPS) for lag in lags]
    old = [(ball.first_speed, ball.second_speed) for ball in balls]
    for which, (law, ball) in enumerate(zip(laws, balls, strict=True)):
        if step == due[which] and not (law.paired and which == 1):
            law.launch(ball, balls[1 - which], rng)
        law.steer(ball)
    thrown = [
        which
        for which, ball in enumerate(balls)
        if (ball.first_speed, ball.second_speed) != old[which]
    ]
    for which in thrown:
        balls[which].spin = float(rng.choice([-1, 1]) * rng.uniform(3, 8))
    return thrown


def advance(law: Programme, ball: Ball, step: float) -> bool:
    """Moves one ball by `step` seconds.

    Returns:
        Whether it met a wall.
    """
    right, up = law.pull(ball.first, ball.second)
    ball.first_speed += 0.5 * step * right
    ball.second_speed += 0.5 * step * up
    ball.first += step * ball.first_speed
    ball.second += step * ball.second_speed
    right, up = law.pull(ball.first, ball.second)
    ball.first_speed += 0.5 * step * right
    ball.second_speed += 0.5 * step * up

    speed = ball.speed
    slower = math.exp(-step * (law.drag + law.air * speed))
    if law.friction and speed > 0:
        slower *= max(0.0, 1 - step * law.friction / speed)
    ball.first_speed *= slower
    ball.second_speed *= slower

    struck = False
    left, right, bottom, top = law.walls
    if ball.first < left and ball.first_speed < 0 or ball.first > right and ball.first_speed > 0:
        ball.first = min(max(ball.first, left), right)
        ball.first_speed *= -law.restitution
        struck = True
    if (
        ball.second < bottom
        and ball.second_speed < 0
        or ball.second > top
        and ball.second_speed > 0
    ):
        ball.second = min(max(ball.second, bottom), top)
        ball.second_speed *= -law.restitution
        # The ground's grip turns half of the slip into spin.
        ball.spin += 0.5 * (-ball.first_speed / ball.radius - ball.spin)
        struck = True

    if law.rolls:
        ball.spin = -ball.first_speed / ball.radius
    else:
        ball.spin *= 1 - 0.4 * step
    ball.angle += step * ball.spin
    return struck


def touch(one: Ball, other: Ball, restitution: float) -> bool:
    """Lets two balls rebound if they overlap and approach each other.

    Returns:
        Whether they did.
    """
    right, up = other.first - one.first, other.second - one.second
    apart = math.hypot(right, up)
    if apart >= one.radius + other.radius or apart == 0:
        return False
    right, up = right / apart, up / apart
    closing = (one.first_speed - other.first_speed) * right
    closing += (one.second_speed - other.second_speed) * up
    if closing <= 0:
        return False
    push = (1 + restitution) * closing / (1 / one.mass + 1 / other.mass)
    one.first_speed -= push / one.mass * right
    one.second_speed -= push / one.mass * up
    other.first_speed += push / other.mass * right
    other.second_speed += push / other.mass * up
    return True


def framed(motion: Motion, size: int, margin: float, rng: np.random.Generator) -> Motion:
    """Puts a motion into a picture, so that it fits and its place is otherwise left to chance.

    Each ball's whole path lands anywhere it fits (both together if they share a stage), and is
    mirrored left to right half of the time. Narrow motions so roam as wide as broad ones, and a
    single frame says little about the programme.

    Args:
        motion: As `simulate` returns it.
        size: Side of the square picture, px.
        margin: Room left at the border, px.
        rng: Draws the place and the mirroring.

    Returns:
        The motion in px to the right and down from the picture's upper left corner.
    """
    mirrored = bool(rng.integers(2))
    place = motion.place * (-1.0 if mirrored else 1.0, -1.0)
    # The rare path wider than the picture (long throws) shrinks to fit.
    radius = np.array(motion.radii)[:, None]
    widest = place.max(axis=1) - place.min(axis=1)
    place = place * np.minimum((size - 2 * margin - 2 * radius) / (widest + 1e-9), 1.0)[:, None]
    low, high = place.min(axis=1) - radius, place.max(axis=1) + radius
    if motion.paired:
        low, high = np.tile(low.min(axis=0), (2, 1)), np.tile(high.max(axis=0), (2, 1))
    room = size - 2 * margin - (high - low)
    angle = -motion.angle if mirrored else motion.angle
    # Of a few draws the one in which the balls hide each other least.
    draws = rng.uniform(size=(1, 1, 2) if motion.paired else (8, 2, 2))
    places = [place + (margin - low + room * draw)[:, None] for draw in draws]
    hidden = [
        np.count_nonzero(np.linalg.norm(p[0] - p[1], axis=1) < sum(motion.radii)) for p in places
    ]
    return replace(motion, place=places[int(np.argmin(hidden))], angle=angle)
