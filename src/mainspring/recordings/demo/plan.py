"""Which recording shows which motion, in which look, by which camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainspring.recordings.demo.picture import APPEARANCES
from mainspring.recordings.demo.programmes import PROGRAMMES

GROUP_SIZE = 12  # recordings that share a camera: 50 groups among 600


@dataclass(frozen=True)
class Entry:
    """One recording before it is made.

    Attributes:
        index: Number in the world, which names its files.
        label: Motion programme.
        appearance: Look.
        group: Camera.
        caption: What happens and how it looks.
    """

    index: int
    label: str
    appearance: str
    group: str
    caption: str

    @property
    def video(self) -> str:
        """The film's uri, relative to the world's folder."""
        return f"videos/{self.index:04d}.mp4"

    @property
    def series(self) -> str:
        """The series' uri, relative to the world's folder."""
        return f"series/{self.index:04d}.csv"


def plan_world(recordings: int = 600, seed: int = 0) -> list[Entry]:
    """Deals labels, appearances and groups, without making anything.

    Args:
        recordings: How many.
        seed: Of the world.

    Returns:
        One entry a recording.
    """
    words, looks = list(PROGRAMMES), list(APPEARANCES)
    side = len(words)
    entries: list[Entry] = []
    for block in range(-(-recordings // side**2)):
        rng = np.random.default_rng((seed, block, 2))
        ranks = rng.permutation(side)
        for shift in rng.permutation(side):
            for place in rng.permutation(side):
                index = len(entries)
                word = words[place]
                look = APPEARANCES[looks[ranks[(place + shift) % side]]]
                doing = PROGRAMMES[word].doing[int(rng.integers(len(PROGRAMMES[word].doing)))]
                texture, colours, ground = look.words
                caption = f"Two {texture} balls, {colours}, {doing}, before {ground}."
                group = f"camera{index // GROUP_SIZE:03d}"
                entries.append(Entry(index, word, look.word, group, caption))
    return entries[:recordings]
