# ruff: noqa: D102 - the methods are `Programme`'s and documented there
"""The eight motion programmes, which are the labels of the demo world.

All share one frame, one pair of balls and one time scale, and draw no rod, spring or floor, so
that only motion tells them apart. Each loses energy all the time and wins it back in sudden
launches (`Drop` from an unseen hand), which is what makes time's direction visible. Speeds stay
below some 150 px/s, so that a ball moves by about its own size between frames 1/8 s apart.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from mainspring.recordings.demo.law import FAR, Ball, Programme, sign, toss

GRAVITY = 300.0  # px/s²: a fall of 30 px takes 0.45 s, so a clip of 1 s holds a bounce or two


class Drop(Programme):
    """Is lifted by an unseen hand, falls straight down, and bounces lower and lower."""

    word = "drop"
    doing = ("drop and bounce lower and lower", "are lifted, fall and bounce")
    restitution = 0.6
    walls = (-FAR, FAR, 0.0, FAR)
    hand = 50.0  # px/s

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.height = 0.0

    def pull(self, first: float, second: float) -> tuple[float, float]:
        return 0.0, 0.0 if self.driven else -GRAVITY

    def potential(self, first: float, second: float) -> float:
        return GRAVITY * second

    def spent(self, ball: Ball, struck: bool) -> bool:
        return not self.driven and struck and ball.second_speed < 35

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        self.driven = True
        self.height = self.vary * float(rng.uniform(24, 32))
        ball.second_speed = self.hand
        ball.first_speed = -sign(ball.first) * float(rng.uniform(0, 5))

    def steer(self, ball: Ball) -> bool:
        if ball.second >= self.height:
            self.driven = False
        return False


class Throw(Programme):
    """Is thrown in an arc that the air bends, hops on, and is thrown back."""

    word = "throw"
    doing = ("are thrown in arcs and land with hops", "fly to and fro in arcs")
    restitution = 0.6
    air = 0.012
    walls = (-FAR, FAR, 0.0, FAR)

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.side = toss(rng)

    def pull(self, first: float, second: float) -> tuple[float, float]:
        return 0.0, -GRAVITY

    def potential(self, first: float, second: float) -> float:
        return GRAVITY * second

    def start(self, ball: Ball, which: int, rng: np.random.Generator) -> None:
        ball.first = -self.side * 18.0

    def spent(self, ball: Ball, struck: bool) -> bool:
        return struck and ball.second_speed < 35

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        strength = self.vary * float(rng.uniform(0.92, 1.08))
        ball.first_speed = -sign(ball.first) * strength * 75
        ball.second_speed = strength * 125


class Spring(Programme):
    """Is struck, swings on an unseen spring along a slanted line, and calms down."""

    word = "spring"
    doing = ("shake on springs until they calm down", "swing on slanted springs")

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.rate = 2 * math.pi / (1.0 * self.vary)  # rad/s
        self.drag = 2.6  # each swing is about half as wide as the one before
        slant = float(rng.uniform(-0.9, 0.9))
        self.axis = np.array([math.cos(slant), math.sin(slant)])

    def pull(self, first: float, second: float) -> tuple[float, float]:
        return -(self.rate**2) * first, 0.0

    def potential(self, first: float, second: float) -> float:
        return 0.5 * (self.rate * first) ** 2

    def spent(self, ball: Ball, struck: bool) -> bool:
        return self.energy(ball) < 0.5 * ball.mass * (self.rate * 3) ** 2

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        ball.first_speed = toss(rng) * self.rate * float(rng.uniform(22, 29))

    def place(
        self, first: Float[np.ndarray, " time"], second: Float[np.ndarray, " time"]
    ) -> Float[np.ndarray, "time 2"]:
        return first[:, None] * self.axis


class Pendulum(Programme):
    """Swings on an unseen rod, less and less, until struck again; `first` is the arc's length."""

    word = "pendulum"
    doing = ("swing like pendulums that die down", "swing in curves, less and less")

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.rod = 18.0 * self.vary  # px: swings in about 1.7 s when they are wide
        self.drag = 1.9

    def pull(self, first: float, second: float) -> tuple[float, float]:
        return -GRAVITY * math.sin(first / self.rod), 0.0

    def potential(self, first: float, second: float) -> float:
        return GRAVITY * self.rod * (1 - math.cos(first / self.rod))

    def widest(self, angle: float) -> float:
        """Speed at the bottom that just reaches an angle (radians), in px/s."""
        return math.sqrt(2 * GRAVITY * self.rod * (1 - math.cos(angle)))

    def spent(self, ball: Ball, struck: bool) -> bool:
        return self.energy(ball) < 0.5 * ball.mass * self.widest(0.25) ** 2

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        left = self.potential(ball.first, ball.second)
        wanted = self.widest(float(rng.uniform(1.8, 2.2)))
        direction = toss(rng)
        ball.first_speed = direction * math.sqrt(wanted**2 - 2 * left)

    def place(
        self, first: Float[np.ndarray, " time"], second: Float[np.ndarray, " time"]
    ) -> Float[np.ndarray, "time 2"]:
        angle = first / self.rod
        return self.rod * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1)


class Roll(Programme):
    """Rolls on a level, slows down, turns at walls, and is pushed again."""

    word = "roll"
    doing = ("roll between walls and slow down", "roll along and lose their speed")
    rolls = True
    restitution = 0.8
    friction = 18.0
    drag = 0.8

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        half = float(rng.uniform(20, 25))
        self.walls = (-half, half, -FAR, FAR)

    def spent(self, ball: Ball, struck: bool) -> bool:
        return abs(ball.first_speed) < 8

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        strength = self.vary * float(rng.uniform(105, 135))
        ball.first_speed = toss(rng) * strength


class Collide(Programme):
    """Two balls on a table are shot at each other, knock, and slow down."""

    word = "collide"
    doing = ("hit each other and drift apart", "knock together like billiard balls")
    paired = True
    restitution = 0.8
    drag = 1.3
    friction = 15.0
    walls = (-26.0, 26.0, -22.0, 22.0)

    def start(self, ball: Ball, which: int, rng: np.random.Generator) -> None:
        ball.first = 18.0 if which else -18.0
        ball.second = float(rng.uniform(-12, 12))

    def spent(self, ball: Ball, struck: bool) -> bool:
        return ball.speed < 12

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        aim = math.atan2(other.second - ball.second, other.first - ball.first)
        aim += float(rng.uniform(-0.2, 0.2))
        strength = self.vary * float(rng.uniform(125, 155))
        who = int(rng.integers(3))  # one ball, the other, or both at less speed
        share = 0.7 if who == 2 else 1.0
        for shot, direction in ((ball, aim), (other, aim + math.pi)):
            if who == 2 or (who == 0) == (shot is ball):
                shot.first_speed = share * strength * math.cos(direction)
                shot.second_speed = share * strength * math.sin(direction)


class Spiral(Programme):
    """Circles inward towards an unseen drain and is flung out again."""

    word = "spiral"
    doing = ("circle inward and are flung out", "spiral towards a drain")
    drag = 2.2

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.rate = 2 * math.pi / (1.15 * self.vary)  # rad/s
        self.turn = toss(rng)
        self.outbound = False

    def pull(self, first: float, second: float) -> tuple[float, float]:
        return -(self.rate**2) * first, -(self.rate**2) * second

    def potential(self, first: float, second: float) -> float:
        return 0.5 * self.rate**2 * (first * first + second * second)

    def start(self, ball: Ball, which: int, rng: np.random.Generator) -> None:
        angle = float(rng.uniform(0, 2 * math.pi))
        ball.first, ball.second = 4 * math.cos(angle), 4 * math.sin(angle)

    def spent(self, ball: Ball, struck: bool) -> bool:
        return not self.outbound and math.hypot(ball.first, ball.second) < 5

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        away = math.hypot(ball.first, ball.second)
        speed = self.rate * float(rng.uniform(28, 34))
        ball.first_speed, ball.second_speed = ball.first / away * speed, ball.second / away * speed
        self.outbound = True

    def steer(self, ball: Ball) -> bool:
        away = math.hypot(ball.first, ball.second)
        outward = ball.first * ball.first_speed + ball.second * ball.second_speed > 0
        if not self.outbound or outward:
            return False
        speed = self.turn * self.rate * away  # keeps it on a circle
        ball.first_speed, ball.second_speed = -ball.second / away * speed, ball.first / away * speed
        self.outbound = False
        return True


class Balloon(Programme):
    """Rises with a wobble, bumps against a ceiling, and is shot down again."""

    word = "balloon"
    doing = ("rise with a wobble and bump above", "float up like balloons")
    restitution = 0.4
    drag = 1.8
    lift = 90.0  # px/s²: the drag lets it rise at 50 px/s in the end

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.wobble = 2 * math.pi / (0.7 * self.vary)  # rad/s
        self.walls = (-FAR, FAR, -float(rng.uniform(32, 38)), 0.0)

    def pull(self, first: float, second: float) -> tuple[float, float]:
        return -(self.wobble**2) * first, self.lift

    def potential(self, first: float, second: float) -> float:
        return 0.5 * (self.wobble * first) ** 2 - self.lift * second

    def spent(self, ball: Ball, struck: bool) -> bool:
        return struck and -12 < ball.second_speed <= 0

    def launch(self, ball: Ball, other: Ball, rng: np.random.Generator) -> None:
        ball.second_speed = -float(rng.uniform(135, 155))
        ball.first_speed = toss(rng) * self.wobble * 7


PROGRAMMES: dict[str, type[Programme]] = {
    kind.word: kind for kind in (Drop, Throw, Spring, Pendulum, Roll, Collide, Spiral, Balloon)
}
