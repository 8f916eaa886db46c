"""Which clips hold anything, and embeddings of those alone.

    shown = embedded("audio", encoder, change, batch["audio"], batch.generator)
    shown.embedding                    # (batch, view, dim), zeros where there is nothing
    shown.there, shown.silent          # (batch, view)

Silent sounds and sentences without words belong to everything. Pretexts that ask what belongs
together leave them out, as they do clips that are not there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mainspring.encoders.encoder import Encoder
from mainspring.pretexts.batch import Views
from mainspring.pretexts.content import Change
from mainspring.pretexts.silence import heard


class Shown(NamedTuple):
    """What an encoder makes of the views of a stream.

    Attributes:
        embedding: Zeros where there is nothing.
        there: False where a clip is absent, silent, or without a word or value.
        silent: Where there is a clip, but no sound in it.
    """

    embedding: Float[Tensor, "batch view dim"]
    there: Bool[Tensor, "batch view"]
    silent: Bool[Tensor, "batch view"]


def holding(
    stream: str, samples: Tensor, present: Bool[Tensor, "n time"]
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Which clips hold anything, and which are of a silent sound.

    Args:
        stream: What they are of: a sound has to be heard, a text to have a word, a series a value.
        samples: As the reader delivers them.
        present: False where a position was padding.
    """
    there = present.any(1)
    if stream == "audio":
        sounds = heard(samples, present)
        return sounds, there & ~sounds
    if stream == "text":
        there = (present & (samples != 0)).any(1)
    elif stream == "series":
        there = (present & ~samples.isnan().all(2)).any(1)
    return there, torch.zeros_like(there)


def embedded(
    stream: str, encoder: Encoder, change: Change, views: Views, generator: torch.Generator
) -> Shown:
    """The embeddings of all views, of which only those that are there are encoded: others would
    cost as much and take part in batch statistics.

    Args:
        stream: What the views are of.
        encoder: Of that stream.
        change: Of their content.
        views: With samples.
        generator: Source of the change.
    """
    samples, present = views.flat()
    there, silent = holding(stream, samples, present)
    changed = change(samples, generator)
    rows = there.nonzero()[:, 0]
    if len(rows) == len(there):
        embedding = encoder(changed, present)
    elif len(rows):
        some = encoder(changed[rows], present[rows])
        embedding = some.new_zeros(len(there), some.shape[1]).index_copy(0, rows, some)
    else:
        embedding = torch.zeros(len(there), encoder.dim, device=there.device)
    shape = views.present.shape[:2]
    return Shown(*(value.unflatten(0, shape) for value in (embedding, there, silent)))
