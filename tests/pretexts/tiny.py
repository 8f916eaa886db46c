"""A world of series and an encoder, both small, for trying pretexts on."""

import numpy as np
import torch
from torch import nn

from mainspring.clips import ClipSpec, Extent, Timeline
from mainspring.encoders.encoder import Encoder
from mainspring.pretexts.pretext import Batch, Pretext, Views


class TinyEncoder(Encoder):
    """Two convolutions, no batch statistics."""

    stream = "series"
    clip = ClipSpec(length=32)
    citation = "none"

    def __init__(self, dim: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.settings = {"dim": dim, "channels": channels}
        self.layers = nn.Sequential(
            nn.Conv1d(channels, dim, 5), nn.ReLU(), nn.Conv1d(dim, dim, 5, stride=2), nn.ReLU()
        )

    def tokens(self, samples, present=None):
        flat = samples.flatten(2).float() if samples.ndim > 2 else samples[..., None]
        return self.layers(flat.nan_to_num().transpose(1, 2)).transpose(1, 2)


def decays(count: int, rng: np.random.Generator, length: int = 200) -> np.ndarray:
    """Plucked strings: oscillations that die away, plucked again and again, (count, length, 1).
    Time runs one way, at a speed of its own, and each has a timbre by which to know it."""
    t = np.arange(length)
    period = rng.uniform(6, 12, (count, 1))
    gap = rng.integers(20, 30, (count, 1))
    phase = rng.integers(30, size=(count, 1))
    envelope = np.exp(-((t + phase) % gap) / 6)
    wave = envelope * np.sin(2 * np.pi * t / period) + rng.normal(0, 0.02, (count, length))
    return wave[..., None].astype(np.float32)


def timeline(length: int, stream: str = "series", rate: float = 1.0) -> Timeline:
    return Timeline({stream: Extent(length, rate)})


def read(pretext: Pretext, world: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> Batch:
    """What the loader would make of these rows of the world."""
    (stream,) = pretext.clips
    draws = [pretext.draw(timeline(world.shape[1], stream), rng)[stream] for _ in rows]
    samples = np.stack([world[r][d.clips] for r, d in zip(rows, draws, strict=True)])
    factors = {
        name: torch.from_numpy(np.stack([d.factors[name] for d in draws]))
        for name in draws[0].factors
    }
    present = torch.ones(samples.shape[:3], dtype=torch.bool)
    return Batch(
        {stream: Views(torch.from_numpy(samples), present, factors)},
        torch.from_numpy(rows.astype(np.int64)),
        torch.Generator().manual_seed(int(rng.integers(2**31))),
    )


def part(batch: Batch, rows: slice) -> Batch:
    """A micro-batch, with the randomness that the whole batch shares."""
    common = torch.Generator()
    common.set_state(batch.common.get_state())
    streams = {
        name: Views(
            views.samples[rows],
            views.present[rows],
            {factor: values[rows] for factor, values in views.factors.items()},
        )
        for name, views in batch.streams.items()
    }
    return Batch(streams, batch.recording[rows], batch.generator, common)


def assert_parts_equal_the_whole(
    pretext: Pretext, encoders: dict[str, Encoder], batch: Batch, cut: int = 4
) -> None:
    """Features of two micro-batches brought together give the loss of the whole batch, and its
    gradients."""
    modules, results = [pretext, *encoders.values()], []
    for rows in ([slice(None)], [slice(cut), slice(cut, None)]):
        features = [pretext.encode(encoders, part(batch, some)) for some in rows]
        joined = {name: torch.cat([each[name] for each in features]) for name in features[0]}
        facts = batch.without_samples()
        facts.generator = torch.Generator().manual_seed(3)
        loss = pretext.ask(joined, facts).loss
        weights = [w for module in modules for w in module.parameters() if w.requires_grad]
        results.append([loss, *torch.autograd.grad(loss, weights, materialize_grads=True)])
    assert any(grad.any() for grad in results[0][1:])
    for whole, joint in zip(*results, strict=True):
        # Sums of thousands round differently.
        most = max(1.0, float(whole.detach().abs().max()))
        torch.testing.assert_close(joint, whole, rtol=1e-4, atol=1e-5 * most)


def train(
    pretext: Pretext, encoder: Encoder, world: np.ndarray, steps: int, size: int = 32
) -> dict[str, float]:
    """A plain loop. Returns each question's mean accuracy over the last tenth of the steps."""
    rng = np.random.default_rng(0)
    encoders = {"series": encoder}
    pretext.attach(encoders)
    weights = [
        weight
        for module in (encoder, pretext)
        for weight in module.parameters()
        if weight.requires_grad
    ]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    late: dict[str, list[float]] = {}
    for step in range(steps):
        rows = rng.choice(len(world), size, replace=False)
        batch = read(pretext, world, rows, rng)
        features = pretext.encode(encoders, batch)
        outcome = pretext.ask(features, batch.without_samples())
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        pretext.after_step(
            encoders, batch.without_samples(), {k: v.detach() for k, v in features.items()}
        )
        if step >= steps * 9 // 10:
            for name, answer in outcome.answers.items():
                late.setdefault(name, []).append(float(answer.accuracy))
    return {name: float(np.mean(values)) for name, values in late.items()}


def gradients(*modules: nn.Module) -> list[torch.Tensor]:
    """All gradients, then none."""
    found = [
        weight.grad.clone()
        for module in modules
        for weight in module.parameters()
        if weight.grad is not None
    ]
    for module in modules:
        module.zero_grad()
    return found
