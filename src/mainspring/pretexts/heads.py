"""The small networks that answer a question; thrown away after training.

Section 4.2.2 of TaCo (Bai et al.) describes them in words: "a fully connected layer, followed by a
reshaping operation", then l2 normalisation and a last linear layer. A clip's embedding is one
vector, so reshaping can only have put clips and batch back in place; here no reshaping is needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mainspring.errors import unknown


class Normalise(nn.Module):
    """Vectors to length 1, in float32 whatever the autocast."""

    def forward(self, vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """x / |x|."""
        return F.normalize(vectors.float(), dim=-1)


class Projection(nn.Sequential):
    """Layers that run in float32 whatever the autocast: at a temperature of 0.07 the rounding of
    bfloat16 would move the logits of a contrast by tenths."""

    def forward(self, embeddings: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch width"]:
        """All layers in turn."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return super().forward(embeddings.float())


def projection_head(kind: str, dim: int, width: int, hidden: int) -> Projection:
    """From an embedding to the space of the contrast (which itself takes cosines).

    Args:
        kind: "linear" is Section 3.2's W h; "mlp" its W2 relu(W1 h); "normed" is Section 4.2.2's
            fully connected, l2, linear.
        dim: Width of the embedding.
        width: Width of the projection.
        hidden: Width between the two layers of the other kinds.

    Raises:
        ConfigError: If there is no such kind.
    """
    between = {"mlp": nn.ReLU, "normed": Normalise}
    if kind == "linear":
        return Projection(nn.Linear(dim, width))
    if kind not in between:
        raise unknown("projection", kind, ["linear", *between])
    return Projection(nn.Linear(dim, hidden), between[kind](), nn.Linear(hidden, width))


class NamingHead(nn.Module):
    """Names the value of a factor from one clip, as TaCo's rotation and reverse heads do.

    "First a fully connected layer, and after reshaping one more linear layer with l2 norm in the
    end": read as in the projection head, with the norm on what the last layer takes. On the logits
    themselves it would keep two classes from ever being told apart with more than 80 %.
    """

    def __init__(self, dim: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), Normalise(), nn.Linear(hidden, classes))

    def forward(self, branches: Float[Tensor, "batch 1 dim"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return self.layers(branches[:, 0])


class ComparingHead(nn.Module):
    """Names a value by comparing clips, as O3N (Fernando et al., CVPR 2017) and TaCo's shuffle and
    speed heads do: a layer for each clip, their sum of pairwise differences, two layers with a ReLU
    between them."""

    def __init__(self, dim: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU())
        self.fused = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(
        self, branches: Float[Tensor, "batch branch dim"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return self.fused(pairwise_differences(self.each(branches)))


def pairwise_differences(
    activations: Float[Tensor, "batch branch dim"],
) -> Float[Tensor, "batch dim"]:
    """The sum over i < j of (v_i - v_j), which is the sum over i of (n + 1 - 2 i) v_i, i from 1.

    For an odd number of branches the middle one has weight 0 and cannot be seen; use even ones.
    """
    count = activations.shape[1]
    weights = [count - 1 - 2 * i for i in range(count)]
    return (activations * activations.new_tensor(weights)[:, None]).sum(1)
