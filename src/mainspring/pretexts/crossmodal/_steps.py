"""Two sequences side by side in time, and places in a recording to take them from."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn


class TemporalHead(nn.Module):
    """Whether two sequences are in step: three dilated convolutions over time, which see 15 steps,
    of both side by side and of their product, and a linear layer on their mean and their peak."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inside, width, 3, padding=2**layer, dilation=2**layer)
            for layer, inside in enumerate([3 * width, width, width])
        )
        self.last = nn.Linear(2 * width, 1)

    def forward(
        self,
        video: Float[Tensor, "n steps width"],
        sound: Float[Tensor, "n steps width"],
        both: Bool[Tensor, "steps"],
    ) -> Float[Tensor, "n"]:
        """Log odds of being in step, from those steps at which there are both sequences."""
        x = (torch.cat([video, sound, video * sound], 2) * both[:, None]).transpose(1, 2)
        for layer, convolution in enumerate(self.convolutions):
            y = F.relu(convolution(x))
            x = (y if layer == 0 else x + y) * both
        return self.last(torch.cat([x.sum(2) / both.sum(), x.amax(2)], 1))[:, 0]


def neighbours(
    room: int, gap: int, far: int, count: int, rng: np.random.Generator
) -> tuple[int, Int64[np.ndarray, "count"]]:
    """A place in [0, room] and `count` others, each from `gap` to `far` away on either side.

    A place is as likely as it has others to go with, and its others are all alike, so that each of
    them is as likely to be anywhere as the place itself (a step of a random walk in equilibrium).
    """
    places = np.arange(room + 1)
    below = np.maximum(places - gap - np.maximum(places - far, 0) + 1, 0)
    above = np.maximum(np.minimum(places + far, room) - (places + gap) + 1, 0)
    chances = (below + above) / (below + above).sum()
    place = int(rng.choice(places, p=chances))
    pick = rng.integers(below[place] + above[place], size=count)
    lower = max(place - far, 0) + pick
    upper = place + gap + pick - below[place]
    return place, np.where(pick < below[place], lower, upper)


def in_frames(seconds: np.ndarray, rate: float) -> Int64[np.ndarray, "count"]:
    """Offsets in whole frames; early and late ones are rounded alike."""
    sizes = np.floor(np.abs(seconds) * rate + 0.5)
    return (np.sign(seconds) * sizes).astype(np.int64)


def somewhere(room: int, shifts: Int64[np.ndarray, "count"], rng: np.random.Generator) -> int:
    """A place in [0, room], any alike, from which all shifts stay in [0, room].

    Raises:
        ValueError: If there is none.
    """
    low, high = max(0, -int(shifts.min())), room - max(0, int(shifts.max()))
    if high < low:
        raise ValueError(
            f"offsets from {shifts.min()} to {shifts.max()} frames do not fit into a recording "
            f"in which clips can begin at {room + 1} frames"
        )
    return int(rng.integers(low, high + 1))


def in_time(tokens: Float[Tensor, "n t *space dim"], steps: int, share: float) -> Tensor:
    """Tokens, averaged over space or bands, at `steps` moments by linear interpolation.

    The first axis of the grid is time, and tokens are taken to lie evenly from the first to the
    last sample of the clip, which is exact for convolutions that keep every frame and right to a
    fraction of a token for those that pad and stride.

    Args:
        tokens: Of a clip.
        steps: Moments, evenly from the beginning.
        share: Of the clip's duration that lies between the first moment and the last.

    Returns:
        (n, steps, dim), float32.
    """
    sequence = tokens.float().flatten(2, -2).mean(2) if tokens.ndim > 3 else tokens.float()
    last = sequence.shape[1] - 1
    place = torch.linspace(0, last * share, steps, device=tokens.device)
    low = place.floor().long()
    high = (low + 1).clamp(max=last)
    return torch.lerp(sequence[:, low], sequence[:, high], (place - low)[:, None])


def slide(
    sequence: Float[Tensor, "n steps width"], by: float
) -> tuple[Float[Tensor, "n steps width"], Bool[Tensor, "steps"]]:
    """A sequence `by` steps later, by linear interpolation, and at which steps there is any."""
    last = sequence.shape[1] - 1
    place = torch.arange(last + 1, device=sequence.device) - by
    low = place.floor().long().clamp(0, last)
    high = (low + 1).clamp(max=last)
    moved = torch.lerp(sequence[:, low], sequence[:, high], (place - low).clamp(0, 1)[:, None])
    return moved, (place >= 0) & (place <= last)
