"""A small encoder and a pretext whose loss joins recordings, for tests of the loop."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mainspring import clips
from mainspring.clips import ClipSpec, Draw
from mainspring.encoders.encoder import Encoder
from mainspring.pretexts.pretext import Answer, Batch, Outcome, Pretext, Views

SPEC = ClipSpec(length=16)


class ToyEncoder(Encoder):
    stream = "series"
    clip = SPEC
    citation = "none"

    def __init__(self, channels: int = 2, dim: int = 6, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.settings = {"channels": channels, "dim": dim, "dropout": dropout}
        self.body = nn.Sequential(nn.Linear(channels, dim), nn.GELU(), nn.Dropout(dropout))

    def tokens(self, samples, present=None):
        return self.body(torch.nan_to_num(samples))


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class ToyContrast(Pretext):
    question = "do two windows belong together?"
    citation = "none"
    accepts: ClassVar = ("series",)
    Config = NoConfig

    def __init__(self, clips, dims, recordings, config):
        super().__init__(clips, dims, recordings, config)
        self.project = nn.Linear(dims["series"], 4)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def draw(self, timeline, rng):
        spec = self.clips["series"]
        rows = [clips.window(timeline["series"].length, spec.length, 1, rng) for _ in range(2)]
        return {"series": Draw(np.stack(rows), {"which": np.arange(2)})}

    def encode(self, encoders, batch):
        samples, present = batch["series"].flat()
        noise = torch.randn(samples.shape, generator=batch.generator)
        vectors = encoders["series"](samples + 0.1 * noise, present)
        return {
            "z": self.project(vectors).unflatten(0, (-1, 2)),
            "h": vectors.unflatten(0, (-1, 2)),
        }

    def ask(self, features, batch):
        one, two = F.normalize(features["z"], dim=-1).unbind(1)
        logits = one @ two.T * self.scale
        target = torch.arange(len(logits))
        hits = (logits.argmax(1) == target).float().mean()
        return Outcome(
            F.cross_entropy(logits, target),
            {"match": Answer(hits, 1 / len(logits))},
            embedding=features["h"][:, 0].detach(),
        )


def toy(seed: int = 0, dropout: float = 0.0) -> tuple[ToyContrast, dict[str, Encoder]]:
    torch.manual_seed(seed)
    encoder = ToyEncoder(dropout=dropout)
    return ToyContrast({"series": SPEC}, {"series": encoder.dim}, 100, NoConfig()), {
        "series": encoder
    }


def toy_batch(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = Views(
        torch.randn(count, 2, 16, 2, generator=generator),
        torch.ones(count, 2, 16, dtype=torch.bool),
        {"which": torch.arange(2).expand(count, 2).contiguous()},
    )
    return Batch({"series": views}, torch.arange(count), torch.Generator())
