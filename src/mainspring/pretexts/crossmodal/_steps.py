"""Two sequences side by side in time, and how far they count as in step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Fused(nn.Module):
    """Three dilated convolutions over time, which see 15 steps, of both sequences side by side and
    of their product, and a linear layer on their mean and their peak.

    Args:
        width: Of each sequence.
    """

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
        both: Bool[Tensor, "steps"] | None = None,
    ) -> Float[Tensor, "n"]:
        """Log odds of being in step, from those steps at which there are both sequences."""
        if both is None:
            both = torch.ones(video.shape[1], dtype=torch.bool, device=video.device)
        x = (torch.cat([video, sound, video * sound], 2) * both[:, None]).transpose(1, 2)
        for layer, convolution in enumerate(self.convolutions):
            y = F.relu(convolution(x))
            x = (y if layer == 0 else x + y) * both
        return self.last(torch.cat([x.sum(2) / both.sum(), x.amax(2)], 1))[:, 0]

    def cost(self, scores: Float[Tensor, "n"], in_step: bool) -> Float[Tensor, "n"]:
        """Cross-entropy of pairs that are, or are not, in step."""
        return F.softplus(-scores if in_step else scores)


class Distance(nn.Module):
    """Sequences in step near to each other, others `margin` apart (AVTS, Korbar et al., NeurIPS
    2018, Eq. 1).

    Args:
        margin: Distance beyond which a pair out of step is left alone.
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self, video: Float[Tensor, "n steps width"], sound: Float[Tensor, "n steps width"]
    ) -> Float[Tensor, "n"]:
        """Half the margin less the distance of the two sequences, the root mean square over their
        steps of the distance of unit vectors."""
        apart = F.normalize(video, dim=2) - F.normalize(sound, dim=2)
        return self.margin / 2 - (apart.square().sum(2).mean(1) + 1e-12).sqrt()

    def cost(self, scores: Float[Tensor, "n"], in_step: bool) -> Float[Tensor, "n"]:
        """The contrastive loss of pairs that are, or are not, in step."""
        distance = self.margin / 2 - scores
        return (distance if in_step else F.relu(self.margin - distance)).square()


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
    """A sequence `by` steps later, by linear interpolation, and at which steps there is any.

    Args:
        sequence: At even steps in time.
        by: Steps, whole or not; negative for earlier.
    """
    last = sequence.shape[1] - 1
    place = torch.arange(last + 1, device=sequence.device) - by
    low = place.floor().long().clamp(0, last)
    high = (low + 1).clamp(max=last)
    moved = torch.lerp(sequence[:, low], sequence[:, high], (place - low).clamp(0, 1)[:, None])
    return moved, (place >= 0) & (place <= last)
