"""The space that streams share: a head a stream, and an encoder with its head as one encoder.

A pretext that learns across streams gives its heads with `Pretext.joint()`, stream by stream. The
run keeps each beside its encoder, after the encoder itself:

    save_encoder(run.encoder(stream), encoder, clip, extra)
    save_joint(run.encoder(stream), head)            # mainspring.encoders.saved

and `load_encoder(folder).joint` is the head again, or None; `.shared()` the encoder with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from mainspring.encoders.catalog import name_of
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError


class JointHead(nn.Module):
    """From an embedding to a unit vector in the space that streams share.

    It computes in float32 whatever the autocast: at a temperature of 0.07 the rounding of bfloat16
    would move the logits of a contrast by tenths.

    The authors' code of GDT (Patrick et al., ICCV 2021) has width 256, hidden 512, dropout 0.3 and
    norm; it leaves out as large a share of the embedding before the first layer, which is not done
    here. CLIP (Radford et al., ICML 2021) and ImageBind (Girdhar et al., CVPR 2023) have a linear
    layer without offset, whose offset here is one more number a dimension.

    All of them average over time first, so that what they compare is what is there and hardly when.
    With `steps` above 1, which is ours, the first layer sees the tokens' means over so many parts
    of the clip one after the other, and the moment of an event counts.

    Args:
        dim: Width of the embedding.
        width: Width of the shared space, the same for all streams that share it.
        hidden: Width between two layers with a ReLU between them; 0 is one linear layer.
        dropout: Share of what is between the layers that is left out in training.
        norm: Batch normalisation after the first layer; training then takes two rows or more.
        steps: Parts of the clip that are told apart; 1 takes the encoder's embedding.

    Attributes:
        settings: Keyword arguments that build the same head again; plain JSON values.

    Raises:
        ConfigError: If a width is not positive, or dropout or norm is asked of one layer.
    """

    def __init__(
        self,
        dim: int,
        width: int = 256,
        hidden: int = 0,
        dropout: float = 0.0,
        norm: bool = False,
        steps: int = 1,
    ) -> None:
        super().__init__()
        if min(dim, width, steps) < 1 or hidden < 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"A joint head takes dim {dim}, width {width} and steps {steps} of at least 1, "
                f"hidden {hidden} of at least 0 and dropout {dropout} of at least 0 and below 1."
            )
        if not hidden and (dropout or norm):
            raise ConfigError(
                "A joint head of one linear layer has no dropout or norm; give it a hidden width."
            )
        self.dim, self.width, self.steps = dim, width, steps
        self.settings = {
            "dim": dim,
            "width": width,
            "hidden": hidden,
            "dropout": dropout,
            "norm": norm,
            "steps": steps,
        }
        inputs = dim * steps
        if hidden:
            between = [
                *([nn.BatchNorm1d(hidden)] if norm else []),
                nn.ReLU(),
                *([nn.Dropout(dropout)] if dropout else []),
            ]
            first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, width)
            self.layers = nn.Sequential(first, *between, last)
        else:
            self.layers = nn.Sequential(nn.Linear(inputs, width))

    def forward(self, taken: Float[Tensor, "*batch inputs"]) -> Float32[Tensor, "*batch width"]:
        """Vectors of length 1 of what `taken` gives."""
        with torch.autocast(taken.device.type, enabled=False):
            rows = self.layers(taken.float().reshape(-1, self.dim * self.steps))
            return F.normalize(rows, dim=-1).reshape(*taken.shape[:-1], self.width)

    def taken(
        self,
        encoder: Encoder,
        tokens: Float[Tensor, "n *grid dim"],
        present: Bool[Tensor, "n time"] | None = None,
    ) -> Float[Tensor, "n inputs"]:
        """What the head takes of a clip's tokens: the encoder's embedding, or with several steps
        the tokens' means over the parts of the clip, the first axis of their grid being time."""
        if self.steps == 1:
            return encoder.embed(tokens, present)
        along = tokens.float().flatten(2, -2).mean(2) if tokens.dim() > 3 else tokens.float()
        return F.adaptive_avg_pool1d(along.transpose(1, 2), self.steps).flatten(1)


class Joined(Encoder):
    """An encoder with its head as one encoder, whose embedding is the vector in the shared space.

    It embeds, searches and is stamped like any other, but is never built by name: it has no
    citation, hence the catalogue does not list it.

    Args:
        encoder: What the head was trained with; used as it is, not copied.
        head: Of the encoder's width.

    Raises:
        ConfigError: If the head takes another width than the encoder gives.
    """

    def __init__(self, encoder: Encoder, head: JointHead) -> None:
        super().__init__()
        name = name_of(type(encoder))
        if head.dim != encoder.dim:
            raise ConfigError(
                f"The head takes embeddings of {head.dim} numbers, but {name} gives {encoder.dim}: "
                f"they are not of one run."
            )
        self.encoder, self.head = encoder, head
        self.stream, self.clip = encoder.stream, encoder.clip  # type: ignore[misc]
        self.dim = head.width
        self.settings = {"name": name, "encoder": encoder.settings, "head": head.settings}
        self.train(encoder.training)

    def prepare(self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None) -> Tensor:
        """The encoder's."""
        return self.encoder.prepare(samples, present)

    def tokens(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n *grid dim"]:
        """The encoder's, of its own width."""
        return self.encoder.tokens(samples, present)

    def embed(
        self, tokens: Float[Tensor, "n *grid dim"], present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n width"]:
        """The head's vector of the encoder's embedding, of length 1."""
        return self.head(self.head.taken(self.encoder, tokens, present))

    def forward(
        self, samples: Tensor, present: Bool[Tensor, "n time"] | None = None
    ) -> Float[Tensor, "n width"]:
        """One vector of length 1 a view."""
        if self.head.steps == 1:
            return self.head(self.encoder(samples, present))
        return self.embed(self.encoder.tokens(samples, present), present)
