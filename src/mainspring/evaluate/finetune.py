"""Fine-tuning: the encoder goes on learning with a linear layer on top, from labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from mainspring.augment.video import VideoAugment, centre
from mainspring.clips import NOTHING, ClipSpec
from mainspring.encoders.encoder import Encoder
from mainspring.errors import DataError
from mainspring.evaluate.forward import Reads, read_windows
from mainspring.evaluate.windows import cut
from mainspring.recordings.recording import Recording
from mainspring.training.order import seed_torch
from mainspring.training.schedule import rate

WARMUP = 0.1
HEAD_FASTER = 10.0
"""The new layer's learning rate in units of the encoder's (GDT, Appendix: 0.0025 and 0.00025)."""


def finetune(
    encoder: Encoder,
    clip: ClipSpec,
    train: Sequence[Recording],
    test: Sequence[Recording],
    reader: Reads,
    steps: int = 150,
    batch: int = 32,
    lr: float = 5e-4,
    seed: int = 0,
) -> float:
    """Accuracy on `test` of the encoder and a linear layer, trained together on `train`.

    One window of each recording a step, drawn anew; a test recording's answer is the mean of its
    windows' softmax (GDT, Section 4: averages over clips). Nothing is selected on `test`: the
    weights are those of the last step.

    Args:
        encoder: Copied, not changed; on the CPU.
        clip: How windows are cut.
        train: Recordings with labels; held in memory as windows.
        test: Recordings with labels, none of them in `train`.
        reader: Reads the encoder's stream.
        steps: Optimiser steps.
        batch: Recordings a step.
        lr: Peak learning rate of the encoder (AdamW, warm-up, half a cosine).
        seed: Of the new layer and the order.

    Raises:
        DataError: If labels are missing, or `test` has a class that `train` lacks.
    """
    classes = sorted({str(item.label) for item in train})
    for item in [*train, *test]:
        if item.label is None or item.label not in classes:
            raise DataError(
                f"{item.name} has the label {item.label!r}; fine-tuning needs a label for every "
                f"recording, and for those of test one of train's: {', '.join(classes)}."
            )
    seen = [_windows(encoder, clip, item, reader) for item in train]
    answers = torch.tensor([classes.index(str(item.label)) for item in train])
    seed_torch(seed, 0)
    dice = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(encoder).train()
    head = nn.Linear(encoder.dim, len(classes))
    groups = [
        {"params": list(network.parameters()), "times": 1.0},
        {"params": list(head.parameters()), "times": HEAD_FASTER},
    ]
    optimiser = torch.optim.AdamW(groups, lr=lr, weight_decay=0.01)
    change = VideoAugment(crop=clip.crop, flip=0.5) if encoder.stream == "video" else None
    order: list[int] = []
    for step in range(steps):
        while len(order) < batch:
            order += torch.randperm(len(train), generator=dice).tolist()
        rows, order = order[:batch], order[batch:]
        picks = [int(torch.randint(len(seen[row][0]), (), generator=dice)) for row in rows]
        samples = torch.stack([seen[r][0][p] for r, p in zip(rows, picks, strict=True)])
        present = torch.stack([seen[r][1][p] for r, p in zip(rows, picks, strict=True)])
        if change is not None:
            samples = change(samples, dice)
        for group in optimiser.param_groups:
            group["lr"] = group["times"] * rate(step, steps, lr, WARMUP)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(head(network(samples, present)), answers[rows]).backward()
        optimiser.step()
    network.eval()
    right = 0
    with torch.inference_mode():
        for item in test:
            samples, present = _windows(encoder, clip, item, reader)
            if encoder.stream == "video" and clip.crop:
                samples = centre(samples, clip.crop)
            odds = head(network(samples, present)).softmax(1).mean(0)
            right += classes[int(odds.argmax())] == item.label
    return right / len(test)


def _windows(
    encoder: Encoder, clip: ClipSpec, recording: Recording, reader: Reads
) -> tuple[Tensor, Bool[Tensor, "window time"]]:
    """All windows of a recording, half a clip apart, and where they are no padding."""
    timeline = reader.timeline(recording)
    rate = timeline[encoder.stream].rate
    clips: Int64[np.ndarray, "window time"] = cut(
        recording, timeline, encoder.stream, clip, clip.span / rate / 2
    ).clips
    samples = read_windows(reader, recording, encoder.stream, clips)
    return torch.from_numpy(samples), torch.from_numpy(clips != NOTHING)
