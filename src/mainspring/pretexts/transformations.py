"""Temporal transformations of a clip: how each is drawn, and what it is called.

Each is a small class that knows how far it reaches into a recording, which clips it looks at, the
value of its factor in each of them, the class to be named, and which clips are compared to name it.
All is index arithmetic but rotation, whose quarter turn is drawn here and carried out on pixels
later. Values are drawn uniformly with the identity among them (0 degrees, forward, normal speed).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mainspring.clips import Clips, ClipSpec, odd_one_out, reverse, span, window
from mainspring.errors import ConfigError

Values = Int64[np.ndarray, "view"]


class Transformation:
    """One way to change a clip in time.

    Class attributes:
        name: What the user writes.
        factor: The factor that it sets.
        code: Value of the factor "transformation" in its views; 0 is the plain clip.
    """

    name: ClassVar[str]
    factor: ClassVar[str]
    code: ClassVar[int]

    @property
    def classes(self) -> int:
        """Number of classes to name; 0 if there is nothing to name."""
        return 0

    @property
    def views(self) -> int:
        """Clips it adds to a draw."""
        return 1

    @property
    def branches(self) -> int:
        """Embeddings that its class is named from, as `compared` gives them."""
        return self.views

    def reach(self, spec: ClipSpec) -> int:
        """Positions a recording must have."""
        return spec.span

    def draw(self, extent: int, spec: ClipSpec, rng: np.random.Generator) -> tuple[Clips, Values]:
        """The clips and the value of the factor in each."""
        raise NotImplementedError

    def answer(self, values: Int64[Tensor, "batch view"]) -> Int64[Tensor, "batch"]:
        """The class to name, from the factor's values in its views."""
        return values[:, 0]

    def compared(
        self, mine: Float[Tensor, "batch view dim"], plain: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch branch dim"]:
        """The embeddings that its class is named from: its own clip unless it says otherwise."""
        return mine

    def changed(
        self, mine: Float[Tensor, "batch view dim"], values: Int64[Tensor, "batch view"]
    ) -> Float[Tensor, "batch dim"]:
        """The embedding of the transformed clip, which is contrasted with the plain one."""
        return mine[:, 0]


@dataclass(frozen=True)
class Again(Transformation):
    """No transformation: another window of the recording. Contrast alone is built on it."""

    name: ClassVar[str] = "again"
    factor: ClassVar[str] = "transformation"
    code: ClassVar[int] = 0

    def draw(self, extent: int, spec: ClipSpec, rng: np.random.Generator) -> tuple[Clips, Values]:
        """A window of its own."""
        return window(extent, spec.length, spec.stride, rng)[None], np.zeros(1, np.int64)


@dataclass(frozen=True)
class Rotation(Transformation):
    """Quarter turns, one for the whole clip (TaCo, Section 4.2.2; Gidaris et al., ICLR 2018)."""

    name: ClassVar[str] = "rotation"
    factor: ClassVar[str] = "rotation"
    code: ClassVar[int] = 1

    @property
    def classes(self) -> int:
        """0, 90, 180 and 270 degrees."""
        return 4

    def draw(self, extent: int, spec: ClipSpec, rng: np.random.Generator) -> tuple[Clips, Values]:
        """A window, and how many quarter turns it is to get."""
        return window(extent, spec.length, spec.stride, rng)[None], rng.integers(4, size=1)


@dataclass(frozen=True)
class Reverse(Transformation):
    """Forwards or backwards (TaCo, Section 4.2.2; Wei et al., CVPR 2018)."""

    name: ClassVar[str] = "reverse"
    factor: ClassVar[str] = "direction"
    code: ClassVar[int] = 2

    @property
    def classes(self) -> int:
        """Forwards and backwards."""
        return 2

    def draw(self, extent: int, spec: ClipSpec, rng: np.random.Generator) -> tuple[Clips, Values]:
        """A window, reversed by a coin."""
        clip = window(extent, spec.length, spec.stride, rng)
        backwards = rng.integers(2, size=1)
        return (reverse(clip) if backwards[0] else clip)[None], backwards


@dataclass(frozen=True)
class Shuffle(Transformation):
    """Odd one out: of several clips one has its pieces in another order (TaCo, Section 4.2.2;
    Fernando et al., CVPR 2017). Pieces are drawn from a window 3/2 times as long as the clip.

    Attributes:
        clips: How many clips are compared; even, see `heads.pairwise_differences`. 1 draws the
            shuffled clip alone, which then needs no naming.
        pieces: Into how many pieces a clip is cut; 0 makes every sample a piece of its own.
    """

    name: ClassVar[str] = "shuffle"
    factor: ClassVar[str] = "odd"
    code: ClassVar[int] = 3
    clips: int = 4
    pieces: int = 0

    def __post_init__(self) -> None:
        if self.clips < 1 or (self.clips > 1 and self.clips % 2):
            raise ConfigError(
                f"Shuffle compares an even number of clips, not {self.clips}: the sum of pairwise "
                "differences gives the middle one of an odd number no weight at all. Set clips to "
                f"{self.clips + 1}."
            )
        if self.pieces < 0 or self.pieces == 1:
            raise ConfigError(
                f"A clip is shuffled in 2 or more pieces (0: all), not {self.pieces}."
            )

    @property
    def classes(self) -> int:
        """One class a position of the odd clip."""
        return self.clips if self.clips > 1 else 0

    @property
    def views(self) -> int:
        """All clips are looked at."""
        return self.clips

    def _cut(self, spec: ClipSpec) -> tuple[int, int]:
        """Samples in a piece, and how many pieces a clip has (the last may be cut short)."""
        piece = math.ceil(spec.length / (self.pieces or spec.length))
        return piece, math.ceil(spec.length / piece)

    def reach(self, spec: ClipSpec) -> int:
        """A window of 3/2 clips."""
        piece, count = self._cut(spec)
        return span(count * 3 // 2 * piece, spec.stride)

    def draw(self, extent: int, spec: ClipSpec, rng: np.random.Generator) -> tuple[Clips, Values]:
        """The clips, and 1 for the odd one."""
        piece, count = self._cut(spec)
        if count < 2:
            raise ConfigError(f"A clip of {spec.length} samples has no other order to draw.")
        within = np.arange(piece) * spec.stride
        starts, odd = odd_one_out(
            extent - int(within[-1]), count, piece * spec.stride, self.clips, rng
        )
        clips = (starts[:, :, None] + within).reshape(self.clips, -1)[:, : spec.length]
        return clips, (np.arange(self.clips) == odd).astype(np.int64)

    def answer(self, values: Int64[Tensor, "batch view"]) -> Int64[Tensor, "batch"]:
        """Which clip is the odd one."""
        return values.argmax(1)

    def changed(
        self, mine: Float[Tensor, "batch view dim"], values: Int64[Tensor, "batch view"]
    ) -> Float[Tensor, "batch dim"]:
        """The shuffled clip."""
        return mine[torch.arange(len(mine), device=mine.device), values.argmax(1)]


@dataclass(frozen=True)
class Speed(Transformation):
    """How fast the clip plays (TaCo, Section 4.2.2; Benaim et al., CVPR 2020).

    Attributes:
        speeds: Factors of normal speed, among them 1; the class is the index.
        beside_plain: Name the speed from the difference to the plain clip of the same recording;
            otherwise from the clip by itself.
    """

    name: ClassVar[str] = "speed"
    factor: ClassVar[str] = "speed"
    code: ClassVar[int] = 4
    speeds: tuple[float, ...] = (1, 2, 4)
    beside_plain: bool = True

    def __post_init__(self) -> None:
        if len(set(self.speeds)) < 2 or len(set(self.speeds)) < len(self.speeds):
            raise ConfigError(f"Speeds are two or more different factors, not {self.speeds}.")
        if min(self.speeds) <= 0:
            raise ConfigError(f"Speeds are positive, not {min(self.speeds)}.")

    @property
    def classes(self) -> int:
        """One class a speed."""
        return len(self.speeds)

    @property
    def branches(self) -> int:
        """The clip, and the plain one if it is named beside that."""
        return 2 if self.beside_plain else 1

    def reach(self, spec: ClipSpec) -> int:
        """The fastest clip's span."""
        return span(spec.length, spec.stride * max(self.speeds))

    def draw(self, extent: int, spec: ClipSpec, rng: np.random.Generator) -> tuple[Clips, Values]:
        """A window at one of the speeds, and which."""
        choice = rng.integers(len(self.speeds), size=1)
        stride = spec.stride * self.speeds[int(choice[0])]
        return window(extent, spec.length, stride, rng)[None], choice

    def compared(
        self, mine: Float[Tensor, "batch view dim"], plain: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch branch dim"]:
        """The plain clip, which plays at normal speed, beside the clip in question."""
        return torch.stack([plain, mine[:, 0]], 1) if self.beside_plain else mine
