"""Two balls in motion: a fixed-step simulation of one recording.

Steps are of 1/240 s, a whole number of which make a video frame (20 Hz) and a row of the series
(40 Hz). Each step is a velocity Verlet step (which keeps energy) followed by drag, friction and
bounces (which only lose it), so energy rises only at launches and while a ball is lifted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from mainspring.recordings.demo.law import Ball, Programme, toss
from mainspring.recordings.demo.programmes import PROGRAMMES

STEPS = 240  # a second
LAG = 0.3  # s: the most by which one ball's launch follows the other's
RADII = (7.5, 10.5)  # px
FULL_ENERGY = 0.5 * 250.0**2  # energy 1 in the tables: mass 1 turned about at 125 px/s
UNHEARD = 0.002  # impacts of less energy make no sound and are not listed


@dataclass(frozen=True)
class Impact:
    """A moment at which one ball sounds.

    Attributes:
        time: Seconds from the recording's beginning.
        object: 0 or 1.
        kind: `bounce` (against something unseen), `hit` (against the other ball) or `launch`.
        energy: Kinetic energy of the change of speed; 1 is a ball of mass 1 that turns about at
            125 px/s.
    """

    time: float
    object: int
    kind: str
    energy: float


@dataclass(frozen=True)
class Motion:
    """What two balls do, every 1/240 s, both ends included.

    Attributes:
        place: Px to the right and up; to the right and down once `framed`.
        angle: Radians, counter-clockwise as seen.
        energy: Mechanical energy of each ball, without spin.
        driven: Whether an unseen hand lifts the ball, and so adds energy.
        radii: Of the two balls, px.
        impacts: In order of time.
        paired: Whether the balls exchange energy.
    """

    place: Float[np.ndarray, "2 times 2"]
    angle: Float[np.ndarray, "2 times"]
    energy: Float[np.ndarray, "2 times"]
    driven: Bool[np.ndarray, "2 times"]
    radii: tuple[float, float]
    impacts: tuple[Impact, ...]
    paired: bool

    @property
    def times(self) -> Float[np.ndarray, " times"]:
        """Seconds of each step."""
        return np.arange(self.angle.shape[1]) / STEPS

    @property
    def speed(self) -> Float[np.ndarray, "2 times"]:
        """Px/s of each ball, by differences."""
        return np.linalg.norm(np.gradient(self.place, axis=1), axis=2) * STEPS


class Scene:
    """Two balls and their laws, moved step by step.

    The balls wait for each other and are launched at most `LAG` apart: a picture in which one
    ball slows down while the other is pushed would tell little about time's direction.
    """

    def __init__(self, word: str, rng: np.random.Generator) -> None:
        radii = (float(rng.uniform(*RADII)) for _ in range(2))
        self.rng = rng
        self.balls = [
            Ball(radius, (radius / 9) ** 2, angle=float(rng.uniform(0, 2 * math.pi)))
            for radius in radii
        ]
        self.laws = [PROGRAMMES[word](rng), PROGRAMMES[word](rng)]
        self.paired = self.laws[0].paired
        if self.paired:
            self.laws[1] = self.laws[0]
        for which, (law, ball) in enumerate(zip(self.laws, self.balls, strict=True)):
            law.start(ball, which, rng)
        self.now = 0  # steps
        self.ready = [True, True]  # to be launched
        self.due = [0, 0]  # step of each ball's next launch, or of its last one

    def step(self) -> list[str | None]:
        """Moves on by a step.

        Returns:
            What befell each ball: the kind of an `Impact`, or None.
        """
        befell: list[str | None] = [None, None]
        for which, (law, ball) in enumerate(zip(self.laws, self.balls, strict=True)):
            struck = advance(law, ball, 1 / STEPS)
            if struck:
                befell[which] = "bounce"
            if self.now > self.due[which] and law.spent(ball, struck):
                self.ready[which] = True
        if self.paired and touch(self.balls[0], self.balls[1], self.laws[0].restitution):
            befell = ["hit", "hit"]
        if all(self.ready):
            self.ready = [False, False]
            lags = [0.0, 0.0] if self.paired else self.rng.uniform(0, LAG, 2)
            self.due = [self.now + int(lag * STEPS) for lag in lags]
        for which in self._launch():
            befell[which] = "launch"
        self.now += 1
        return befell

    def _launch(self) -> list[int]:
        """Launches the balls whose time has come, and tells which."""
        old = [(ball.first_speed, ball.second_speed) for ball in self.balls]
        for which, (law, ball) in enumerate(zip(self.laws, self.balls, strict=True)):
            if self.now == self.due[which] and not (self.paired and which == 1):
                law.launch(ball, self.balls[1 - which], self.rng)
            law.steer(ball)
        launched = []
        for which, ball in enumerate(self.balls):
            if (ball.first_speed, ball.second_speed) != old[which]:
                launched.append(which)
                ball.spin = toss(self.rng) * float(self.rng.uniform(3, 8))
        return launched


def simulate(word: str, seconds: float, rng: np.random.Generator) -> Motion:
    """Moves two balls by one motion programme.

    The recording begins up to 2.5 s into the motion, so that its beginning is no special moment.

    Args:
        word: The programme, a key of `PROGRAMMES`.
        seconds: Length.
        rng: Draws sizes, constants, launches.

    Returns:
        The motion, in the programme's own place: `framed` puts it into a picture.
    """
    scene = Scene(word, rng)
    skipped = int(rng.uniform(0, 2.5) * STEPS)
    steps = round(seconds * STEPS)
    states = np.empty((2, steps + 1, 5))
    impacts: list[Impact] = []
    for now in range(-skipped, steps + 1):
        before = [(ball.first_speed, ball.second_speed) for ball in scene.balls]
        befell = scene.step()
        if now < 0:
            continue
        for which, (law, ball) in enumerate(zip(scene.laws, scene.balls, strict=True)):
            states[which, now] = (
                ball.first, ball.second, ball.angle, law.energy(ball), law.driven
            )  # fmt: skip
            kind = befell[which]
            if kind is not None and now < steps:
                change = math.dist(before[which], (ball.first_speed, ball.second_speed))
                energy = 0.5 * ball.mass * change**2 / FULL_ENERGY
                if energy >= UNHEARD or kind == "launch":
                    impacts.append(Impact(now / STEPS, which, kind, energy))
    first, second, angle, energies, driven = np.moveaxis(states, 2, 0)
    return Motion(
        place=np.stack([scene.laws[i].place(first[i], second[i]) for i in (0, 1)]),
        angle=angle,
        energy=energies,
        driven=driven > 0,
        radii=(scene.balls[0].radius, scene.balls[1].radius),
        impacts=tuple(impacts),
        paired=scene.paired,
    )


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

    left, right, bottom, top = law.walls
    sideways = (ball.first < left and ball.first_speed < 0) or (
        ball.first > right and ball.first_speed > 0
    )
    upright = (ball.second < bottom and ball.second_speed < 0) or (
        ball.second > top and ball.second_speed > 0
    )
    if sideways:
        ball.first = min(max(ball.first, left), right)
        ball.first_speed *= -law.restitution
    if upright:
        ball.second = min(max(ball.second, bottom), top)
        ball.second_speed *= -law.restitution
        # The ground's grip turns half of the slip into spin.
        ball.spin += 0.5 * (-ball.first_speed / ball.radius - ball.spin)

    if law.rolls:
        ball.spin = -ball.first_speed / ball.radius
    else:
        ball.spin *= 1 - 0.4 * step
    ball.angle += step * ball.spin
    return sideways or upright


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
