"""What every motion programme is made of: a ball, and a law that moves and launches it.

Units are pixels of the picture and seconds; the second axis points up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

FAR = math.inf


@dataclass(slots=True)
class Ball:
    """A ball's size and state in its programme's own coordinates.

    Attributes:
        radius: In px.
        mass: 1 for a radius of 9 px.
        first: First coordinate (px to the right, unless the programme says otherwise).
        second: Second coordinate (px up).
        first_speed: In px/s.
        second_speed: In px/s.
        angle: Orientation in radians, counter-clockwise.
        spin: In rad/s.
    """

    radius: float
    mass: float
    first: float = 0.0
    second: float = 0.0
    first_speed: float = 0.0
    second_speed: float = 0.0
    angle: float = 0.0
    spin: float = 0.0

    @property
    def speed(self) -> float:
        """Speed in px/s."""
        return math.hypot(self.first_speed, self.second_speed)


def sign(value: float) -> float:
    """Returns 1.0 or -1.0, never 0."""
    return 1.0 if value >= 0 else -1.0


def toss(rng: np.random.Generator) -> float:
    """Returns 1.0 or -1.0 with equal chance."""
    return float(rng.choice([-1.0, 1.0]))


class Programme:
    """One law of motion with its own constants, drawn once a ball and recording.

    Attributes:
        word: The label.
        drag: Linear drag, 1/s.
        air: Quadratic drag, 1/px.
        friction: Sliding friction, px/s².
        restitution: Share of the speed that a bounce gives back.
        walls: Left, right, bottom and top, between which the ball's centre stays.
        rolls: Whether the spin follows the speed without slip.
        paired: Whether the two balls share one stage and hit each other.
        doing: What the balls do, for captions.
    """

    word: ClassVar[str]
    doing: ClassVar[tuple[str, ...]]
    paired: ClassVar[bool] = False
    rolls: ClassVar[bool] = False
    drag: float = 0.0
    air: float = 0.0
    friction: float = 0.0
    restitution: float = 0.7
    walls: tuple[float, float, float, float] = (-FAR, FAR, -FAR, FAR)

    def __init__(self, rng: np.random.Generator) -> None:
        self.driven = False  # whether an unseen hand is giving it energy
        self.vary = float(rng.uniform(0.9, 1.1))  # of the time scale or strength, by programme

    def pull(self, first: float, second: float) -> tuple[float, float]:
        """Acceleration in px/s² at a place."""
        return 0.0, 0.0

    def potential(self, first: float, second: float) -> float:
        """Energy a unit of mass at a place, px²/s²; `pull` is its downhill slope."""
        return 0.0

    def start(self, ball: Ball, which: int, rng: np.random.Generator) -> None:
        """Puts the ball where its first launch begins; `which` is 0 or 1."""

    def spent(self, ball: Ball, struck: bool) -> bool:
        """Whether so little is left of the motion that the ball may be launched again.

        Args:
            ball: The ball in question.
            struck: Whether it has just met a wall.
        """
        raise NotImplementedError

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        """Gives the ball (both, if they are paired) new speed in no time."""
        raise NotImplementedError

    def steer(self, ball: Ball) -> bool:
        """May give the ball a second push on its way; tells whether it did."""
        return False

    def place(
        self, first: Float[np.ndarray, " time"], second: Float[np.ndarray, " time"]
    ) -> Float[np.ndarray, "time 2"]:
        """Own coordinates over time to px right and up, as (time, 2)."""
        return np.stack([first, second], axis=1)

    def energy(self, ball: Ball) -> float:
        """Mechanical energy without spin, in units of mass px²/s²."""
        return ball.mass * (0.5 * ball.speed**2 + self.potential(ball.first, ball.second))
