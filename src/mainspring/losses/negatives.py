"""Where the keys of a contrast come from: the batch, a queue, or a memory bank.

All three answer `against` (what each query of this batch is compared with) and take in `remember`
(the keys of this batch, after the step). Keys of a query's own recording are never negatives.

    InBatch      SimCLR (Chen et al., ICML 2020): the other recordings of the batch; gradient flows
                 into queries and keys.
    Queue        MoCo (He et al., CVPR 2020): the last keys of a slowly moving copy of the encoder.
    MemoryBank   InstDisc (Wu et al., CVPR 2018): one vector a recording, averaged over its visits.

A queue or bank begins empty; the papers begin with random vectors. Where a positive key is newer
than every negative, a network can win by drifting, all keys one way, and learn nothing (a queue of
MoCo's kind did so within 200 steps at momentum 0.9). So a new positive always meets the other new
keys of the batch as well: in the queue, as if keys went in before the comparison rather than after
it, and in the bank on a recording's first visit. In evaluation mode all three compare within the
batch: recordings that were held back have no row, and their numbers are not those of the memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mainspring.errors import ConfigError

NOBODY = -1


@dataclass(frozen=True)
class Keys:
    """What the queries of a batch are compared with.

    Attributes:
        positives: The right key of each query.
        negatives: Keys shared by all queries.
        allowed: Which negatives count for which query.
    """

    positives: Float[Tensor, "batch dim"]
    negatives: Float[Tensor, "k dim"]
    allowed: Bool[Tensor, "batch k"]


def among(keys: Float[Tensor, "batch dim"], recording: Int64[Tensor, "batch"]) -> Keys:
    """Each recording's own key as positive, the keys of all others in the batch as negatives."""
    return Keys(keys, keys, recording[:, None] != recording[None, :])


class InBatch(nn.Module):
    """The other recordings of the batch are the negatives."""

    frozen = False

    def against(
        self,
        keys: Float[Tensor, "batch dim"],
        recording: Int64[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Keys:
        """The batch is all there is."""
        return among(keys, recording)

    def remember(self, keys: Float[Tensor, "batch dim"], recording: Int64[Tensor, "batch"]) -> None:
        """Nothing outlives the batch."""


class Queue(nn.Module):
    """The last `size` keys, first in, first out.

    Args:
        dim: Width of a key.
        size: Number of keys kept.
    """

    frozen = True
    keys: Tensor
    owner: Tensor
    written: Tensor

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"A queue holds at least 1 key, not {size}.")
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("owner", torch.full((size,), NOBODY))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def against(
        self,
        keys: Float[Tensor, "batch dim"],
        recording: Int64[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Keys:
        """Each recording's own key as positive, the batch's and the queue's as negatives. They
        are lent as a copy, since `remember` may write before the backward pass."""
        keys = keys.detach()
        if not self.training:
            return among(keys, recording)
        owner = torch.cat([recording, self.owner])
        allowed = (owner != NOBODY) & (owner != recording[:, None])
        return Keys(keys, torch.cat([keys, self.keys.to(keys.dtype)]), allowed)

    @torch.no_grad()
    def remember(self, keys: Float[Tensor, "batch dim"], recording: Int64[Tensor, "batch"]) -> None:
        """Puts keys in, the oldest out. Of more keys than fit, the last are kept."""
        size = len(self.keys)
        count = len(keys)
        slots = (self.written + torch.arange(count, device=self.keys.device))[-size:] % size
        self.keys[slots] = F.normalize(keys[-size:].float(), dim=1)
        self.owner[slots] = recording[-size:]
        self.written += count


class MemoryBank(nn.Module):
    """One vector a recording.

    Args:
        recordings: Number of recordings in the catalogue.
        dim: Width of a vector.
        sampled: Negatives drawn for a batch; all other recordings where there are no more.
        momentum: Share of the old vector that a visit keeps (Wu et al.: 0.5).
    """

    frozen = True
    vectors: Tensor
    seen: Tensor

    def __init__(self, recordings: int, dim: int, sampled: int, momentum: float = 0.5) -> None:
        super().__init__()
        if recordings < 2:
            raise ConfigError(f"A memory bank needs at least 2 recordings, not {recordings}.")
        if sampled < 1:
            raise ConfigError(f"A memory bank samples at least 1 negative, not {sampled}.")
        if not 0 <= momentum < 1:
            raise ConfigError(f"The momentum of a memory bank lies in [0, 1), not {momentum}.")
        self.sampled = sampled
        self.momentum = momentum
        self.register_buffer("vectors", torch.zeros(recordings, dim))
        self.register_buffer("seen", torch.zeros(recordings, dtype=torch.bool))

    def against(
        self,
        keys: Float[Tensor, "batch dim"],
        recording: Int64[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Keys:
        """Each recording's own row as positive and rows drawn without replacement as negatives,
        the same draw for the whole batch. On a first visit both come from the batch's keys."""
        keys = keys.detach().to(self.vectors.dtype)
        if not self.training:
            return among(keys, recording)
        rows = self.sample(generator)
        known = self.seen[recording, None]
        stored = known & self.seen[rows] & (rows != recording[:, None])
        fresh = ~known & (recording != recording[:, None])
        return Keys(
            positives=torch.where(known, self.vectors[recording], keys),
            negatives=torch.cat([keys, self.vectors[rows]]),
            allowed=torch.cat([fresh, stored], 1),
        )

    def sample(self, generator: torch.Generator) -> Int64[Tensor, "k"]:
        """Distinct rows, each with the same chance; a pure function of the generator's state."""
        count = len(self.vectors)
        if count <= self.sampled:
            return torch.arange(count, device=self.vectors.device)
        shuffled = torch.randperm(count, generator=generator, device=generator.device)
        return shuffled[: self.sampled].to(self.vectors.device)

    @torch.no_grad()
    def remember(self, keys: Float[Tensor, "batch dim"], recording: Int64[Tensor, "batch"]) -> None:
        """Moves the rows of these recordings towards their keys and back to length 1. A first
        visit is kept whole; two visits in one batch count as their mean."""
        rows, visit = recording.unique(return_inverse=True)
        fresh = torch.zeros(len(rows), keys.shape[1], device=keys.device)
        fresh.index_add_(0, visit, F.normalize(keys.float(), dim=1))
        kept = self.seen[rows, None] * self.momentum
        moved = kept * self.vectors[rows] + (1 - kept) * F.normalize(fresh, dim=1)
        self.vectors[rows] = F.normalize(moved, dim=1)
        self.seen[rows] = True


class MomentumCopy(nn.Module):
    """A copy of a network that follows it slowly (He et al., Eq. 2) and is never trained.

    Args:
        original: What to copy.
        momentum: Share of the old weights that an update keeps (He et al.: 0.999).
    """

    def __init__(self, original: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ConfigError(f"The momentum of an encoder lies in [0, 1], not {momentum}.")
        self.momentum = momentum
        self.network = copy.deepcopy(original).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Tensor:
        """What the copy makes of the inputs, without gradient."""
        return self.network(*inputs)

    @torch.no_grad()
    def update(self, original: nn.Module) -> None:
        """Moves the weights; running statistics are taken over as they are."""
        for slow, fast in zip(self.network.parameters(), original.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)
        for held, current in zip(self.network.buffers(), original.buffers(), strict=True):
            held.copy_(current)
