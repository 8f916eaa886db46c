"""k-means of the frames that pass by: what a masked frame's target is, if it is a cluster.

    clusters = Clusters(count=100, dim=39, pool=8192, steps=32)
    label = clusters(frames)          # the nearest centre of each
    clusters.remember(frames)         # after the step

Centres are there from the first step on: until `remember` has been called, frames are labelled by
the clusters that they form themselves, and these are then kept. The first `steps` calls of
`remember` each put a random part of their frames into a pool; when the last has, all of it is
clustered anew, and the centres stay as they are from then on. Everything lies in buffers, so a
resumed run goes on with the same centres, and processes that are shown the same frames in the same
order have the same ones.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from mainspring.errors import ConfigError

STARTS = 5
"""k-means++ starts, of which the best is gone on with."""
BATCH = 4096
"""Frames in one of k-means' own steps."""


class Clusters(nn.Module):
    """Cluster centres and what they are made from.

    Args:
        count: Clusters; fewer where there are fewer distinct frames.
        dim: Width of a frame.
        pool: Frames to cluster.
        steps: Calls of `remember` over which the pool is filled.

    Raises:
        ConfigError: If there is nothing to cluster or to cluster it into.
    """

    centres: Tensor
    used: Tensor
    pool: Tensor
    filled: Tensor
    steps: Tensor
    seed: Tensor

    def __init__(self, count: int, dim: int, pool: int, steps: int) -> None:
        super().__init__()
        if count < 2 or steps < 1 or pool < count * 2:
            raise ConfigError(
                f"{count} clusters of {pool} frames taken in {steps} steps: there must be at least "
                "2 clusters, two frames for each, and a step."
            )
        self.wait = steps
        self.register_buffer("centres", torch.zeros(count, dim))
        self.register_buffer("used", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pool", torch.zeros(pool, dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.randint(2**31, ()))

    @torch.no_grad()
    def forward(self, frames: Float[Tensor, "m dim"]) -> Int64[Tensor, "m"]:
        """The nearest centre of each frame."""
        used = int(self.used)
        centres = self.centres[:used] if used else self.fit(frames)
        if not len(centres):
            return torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
        return nearest(frames, centres)

    @torch.no_grad()
    def remember(self, frames: Float[Tensor, "m dim"]) -> None:
        """Puts frames into the pool, and clusters them when it is time."""
        step, filled = int(self.steps), int(self.filled)
        if step == self.wait or not len(frames):
            return
        if not int(self.used):
            self._keep(self.fit(frames))
        generator = torch.Generator().manual_seed(int(self.seed) + step)
        some = torch.randperm(len(frames), generator=generator)[: len(self.pool) // self.wait]
        self.pool[filled : filled + len(some)] = frames[some.to(frames.device)]
        self.filled += len(some)
        self.steps += 1
        if step + 1 == self.wait:
            self._keep(self.fit(self.pool[: int(self.filled)]))

    def fit(self, frames: Float[Tensor, "m dim"]) -> Float[Tensor, "k dim"]:
        """The centres of these frames' clusters, a pure function of them and of the seed."""
        values = frames.detach().float().cpu().numpy()
        count = min(len(self.centres), len(np.unique(values, axis=0)))
        if count == 0:
            return frames.new_zeros(0, frames.shape[1])
        means = MiniBatchKMeans(
            count,
            batch_size=BATCH,
            n_init=STARTS,
            random_state=int(self.seed),
            compute_labels=False,
        )
        # Threads add up in whatever order they finish; one thread gives the same centres again.
        with threadpool_limits(1):
            means.fit(values)
        return torch.from_numpy(means.cluster_centers_).to(frames)

    def _keep(self, centres: Float[Tensor, "k dim"]) -> None:
        self.centres[: len(centres)] = centres
        self.used.fill_(len(centres))


def nearest(frames: Float[Tensor, "m dim"], centres: Float[Tensor, "k dim"]) -> Int64[Tensor, "m"]:
    """The nearest centre of each frame in Euclidean distance."""
    with torch.autocast(frames.device.type, enabled=False):
        frames, centres = frames.float(), centres.float()
        return (centres.square().sum(1) - 2 * frames @ centres.T).argmin(1)


def perplexity(labels: Int64[Tensor, "m"], count: int) -> Float[Tensor, ""]:
    """exp of the entropy of the labels: how many of `count` values are in use, 1 where all are the
    same and `count` where all are as frequent."""
    share = torch.bincount(labels, minlength=count).float() / max(1, len(labels))
    return torch.special.entr(share).sum().exp()
