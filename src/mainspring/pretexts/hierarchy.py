"""Which views to draw, so that a contrast over any factors is never empty: GDT's sampling.

Patrick et al., "On compositions of transformations in contrastive self-supervised learning", ICCV
2021, Section 3.1. A view differs from another in some *factors*: which recording it is of, when it
starts, in which direction it runs, what was done to its colours. A `Level` says of one factor how
many values of it to draw (the paper's K) and what to ask of it: to *ignore* it, views that differ
in it alone are pulled together; to *tell it apart*, they are pushed apart. A `Hierarchy` is a list
of levels. Drawing K_1 values of the first, for each of them K_2 of the second and so on makes
K_1 K_2 ... views.

    simclr = Hierarchy(
        [Level("recording", EVERY, "tell_apart"), Level("augmentation", 2, "ignore")]
    )
    row_l = Hierarchy(  # of GDT's Table 1
        [
            Level("recording", EVERY, "tell_apart"),
            Level("shift", 2, "tell_apart"),
            Level("stream", 2, "ignore"),
            Level("direction", 2, "ignore"),
        ],
        crossing="stream",
    )
    row_l.size                 # 8 views a recording
    row_l.views()["shift"]     # [0 0 0 0 1 1 1 1], the shift of each

`label` and `rule` then turn a batch of such views into what `mainspring.losses.contrast` takes.

The first factor is the recording, whose values differ from batch to batch: `EVERY` is as many as
there are. The values of all other factors are drawn once a recording and every value meets every
other, so that two views of a recording can differ in any one factor alone. Where the paper's scheme
would draw a factor anew below each value of the one above, views could differ in both only (its
"Limitations").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from mainspring.errors import ConfigError, unknown
from mainspring.losses.pairs import QUESTIONS, Rule, agreement, all_but_self, cross_stream

EVERY = 0
"""As many values as the batch has recordings, which are two at least."""


@dataclass(frozen=True)
class Level:
    """One factor and the question about it.

    Attributes:
        factor: Its name, such as "shift".
        count: How many values of it are drawn, the paper's K; 1 where it does not vary.
        question: "ignore" (the paper's invariance) or "tell_apart" (its distinctiveness).
    """

    factor: str
    count: int
    question: str


class Hierarchy:
    """The views of a batch and what is asked of them.

    Args:
        levels: In the order of sampling; the first is the recording, told apart.
        crossing: A factor; only views that differ in it are compared (GDT compares streams). Empty
            compares all.

    Attributes:
        levels: Those within a recording, all but the first.
        crossing: As given.

    Raises:
        ConfigError: If a factor stands twice or a question is unknown, or if the levels violate one
            of the requirements of Section 3.1: (i) some views agree, or the loss is 0; (ii) some
            views that agree differ, or they agree trivially; (iii) some views disagree, or the
            fraction in Eq. 1 is constant.
    """

    def __init__(self, levels: Sequence[Level], crossing: str = "") -> None:
        names = [level.factor for level in levels]
        for level in levels:
            if level.question not in QUESTIONS:
                raise unknown("question", level.question, QUESTIONS)
            if names.count(level.factor) > 1:
                raise ConfigError(f"{level.factor} stands twice among {', '.join(names)}.")
        if names[:1] != ["recording"] or levels[0].question != "tell_apart":
            raise ConfigError(
                f"The first factor must be the recording, told apart, not {', '.join(names[:1])}: "
                "views of different recordings never agree."
            )
        if crossing and crossing not in names:
            raise unknown("factor", crossing, names)
        _require(levels, crossing)
        self.levels = tuple(levels[1:])
        self.crossing = crossing

    @property
    def size(self) -> int:
        """Views a recording."""
        return math.prod(level.count for level in self.levels)

    def views(self, without: str = "") -> dict[str, Int64[np.ndarray, "view"]]:
        """The value of each factor in each view of a recording, numbered from 0.

        Args:
            without: A factor to leave out, such as the stream where each stream has its own table.
        """
        kept = [level for level in self.levels if level.factor != without]
        grid = np.indices([level.count for level in kept], np.int64).reshape(len(kept), -1)
        return {level.factor: values for level, values in zip(kept, grid, strict=True)}

    def label(
        self, recording: Int64[Tensor, "n"], factors: Mapping[str, Tensor]
    ) -> Int64[Tensor, "n"]:
        """c of Eq. 1 as labels: views of one label agree in the recording and in all factors to be
        told apart, so they are pulled together.

        Args:
            recording: What each view of the batch is of.
            factors: The value of each factor in each view, (n,).
        """
        return agreement(recording, factors, {k.factor: k.question for k in self.levels})

    def rule(self, recording: Int64[Tensor, "n"], factors: Mapping[str, Tensor]) -> Rule:
        """w of Eq. 1: which pairs are compared, all or those that differ in the crossing factor.

        Args:
            recording: What each view of the batch is of.
            factors: The value of each factor in each view, (n,).
        """
        if self.crossing:
            return cross_stream(recording, factors[self.crossing])
        return all_but_self(recording)


def spaced(
    room: int, count: int, gap: int, rng: np.random.Generator
) -> Int64[np.ndarray, "{count}"]:
    """Starts in [0, room] of which no two are nearer than `gap`, in random order.

    Every set of such starts has the same chance: with the gaps taken out, such sets are the sets of
    `count` different numbers in what room is left.

    Args:
        room: The last start there may be.
        count: How many.
        gap: Least distance, at least 1, so that no two coincide.
        rng: Source of the draw.

    Raises:
        ValueError: If they do not fit.
    """
    left = room - (count - 1) * (gap - 1)
    if gap < 1 or left < count - 1:
        raise ValueError(f"{count} starts at least {gap} apart do not fit in [0, {room}]")
    chosen = np.sort(rng.choice(left + 1, count, replace=False))
    return rng.permutation(chosen + np.arange(count) * (gap - 1)).astype(np.int64)


def _require(levels: Sequence[Level], crossing: str) -> None:
    """Checks (i), (ii) and (iii) of Section 3.1."""
    for level in levels:
        if level.count < 1 and not (level is levels[0] and level.count == EVERY):
            raise ConfigError(
                f"Requirement (i) of GDT, that some views agree, is violated: there are "
                f"{level.count} values of {level.factor}, hence no views. Draw 1 at least."
            )
    varied = [level for level in levels if level.count != 1]
    ignored = [level.factor for level in varied if level.question == "ignore"]
    if crossing and crossing not in ignored:
        raise ConfigError(
            f"Requirement (ii) of GDT, that different views agree, is violated: only views that "
            f"differ in {crossing} are compared, and those never agree. Ignore {crossing} and draw "
            "2 values of it."
        )
    if not ignored:
        raise ConfigError(
            "Requirement (ii) of GDT, that different views agree, is violated: no factor that is "
            f"ignored takes two values ({_listed(levels)}). Draw 2 augmentations, learn from 2 "
            "streams, or ignore a factor that varies."
        )
    if all(level.question == "ignore" for level in varied):
        raise ConfigError(
            "Requirement (iii) of GDT, that some views disagree, is violated: no factor that is "
            f"told apart takes two values ({_listed(levels)}). Take 2 recordings, or tell apart a "
            "factor that varies."
        )


def _listed(levels: Sequence[Level]) -> str:
    """Counts and questions, for messages."""
    return ", ".join(
        f"{level.count or 'every'} {level.factor}: {level.question}" for level in levels
    )
