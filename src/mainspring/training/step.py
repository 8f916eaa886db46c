"""One backward pass over a batch, whole or in parts, on one process or many, with one result.

Contrast compares recordings with each other, so the usual sum of micro-batch gradients is not the
gradient of the batch: each recording would see fewer negatives. Here the features of all parts and
ranks are brought together first, the loss is taken once over all of them, and its gradient with
respect to each feature is carried back through the part it came from (Gao et al. 2021, "Scaling
deep contrastive learning batch size under memory limited setup", Section 3). Parts cost a second
forward pass; a batch in one part does not.

Batch normalisation is the exception: its statistics are those of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError
from mainspring.pretexts.pretext import Batch, Features, Outcome, Pretext, Views
from mainspring.training.order import seed_torch, torch_seed

ALONE = "Expected more than 1 value per channel"
"""How torch begins to say that batch normalisation has nothing to take statistics of."""


def learn(
    pretext: Pretext,
    encoders: Mapping[str, Encoder],
    parts: Sequence[Batch],
    key: tuple[int, ...],
    autocast: Callable[[], AbstractContextManager],
) -> tuple[Outcome, Features, Batch]:
    """Fills the gradients of pretext and encoders with those of the whole batch.

    Args:
        pretext: What is asked.
        encoders: The encoder of each stream.
        parts: This process's share of the batch, cut in micro-batches.
        key: (seed, samples seen): all randomness of the step derives from it.
        autocast: Opens the precision context for encoding.

    Returns:
        The outcome over the global batch, its detached features, and its facts without samples.

    Raises:
        ConfigError: If a part is too small for batch normalisation.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    def encode(index: int) -> Features:
        seed_torch(*key, 1, rank, index)
        parts[index].generator.manual_seed(torch_seed(*key, 1, rank, index))
        parts[index].common.manual_seed(torch_seed(*key, 3))
        try:
            with autocast():
                return pretext.encode(encoders, parts[index])
        except ValueError as error:
            if ALONE not in str(error):
                raise
            raise ConfigError(
                "A single clip came to be encoded by itself, so small that batch normalisation "
                "has one value of each channel and no spread. Take fewer parts or a larger batch, "
                "or larger or longer clips (clip.video)."
            ) from error

    kept: list[Features | None] = [None] * len(parts)
    own: list[Features] = []
    for index in range(len(parts)):
        if len(parts) == 1:
            features = kept[index] = encode(index)
        else:
            with torch.no_grad(), frozen_statistics(pretext, *encoders.values()):
                features = encode(index)
        own.append({name: _exact(value.detach()) for name, value in features.items()})

    counts = _everyone([len(part) for part in parts], world)
    whole = {
        name: _gather(_cat([features[name] for features in own]), counts, world) for name in own[0]
    }
    for value in whole.values():
        value.requires_grad_(value.is_floating_point())
    facts = _join([part.without_samples() for part in parts], counts, world)

    seed_torch(*key, 2)
    facts.generator.manual_seed(torch_seed(*key, 2))
    outcome = pretext.ask(whole, facts)
    outcome.loss.backward()

    first = sum(counts[:rank])
    for index, part in enumerate(parts):
        features = kept[index] or encode(index)
        slots = slice(first, first + len(part))
        first += len(part)
        pairs = [
            (value, _scaled(whole[name].grad[slots].to(value.dtype), world))  # type: ignore[index]
            for name, value in features.items()
            if value.requires_grad and whole[name].grad is not None
        ]
        if pairs:
            torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs])
    if world > 1:
        average_gradients([*pretext.parameters(), *_parameters(encoders)], world)
        average_statistics([pretext, *encoders.values()], world)
    return outcome, {name: value.detach() for name, value in whole.items()}, facts


def _scaled(grad: Tensor, world: int) -> Tensor:
    return grad if world == 1 else grad * world


def average_gradients(parameters: Sequence[nn.Parameter], world: int) -> None:
    """Means of the gradients over all ranks, in one message.

    A loss over gathered features gives every rank the full gradient of its own features; `learn`
    scales them by the number of ranks so that this mean is their sum, while heads that worked on
    the gathered features, equal on every rank, stay as they are. They lie in memory as their
    parameters do: a fused optimiser goes through both side by side and asks for no axes. What no
    rank has a gradient of keeps none, so that the optimiser passes it over as on one process.
    """
    learning = [p for p in parameters if p.requires_grad]
    if not learning:
        return
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learning]
    reached = grads[0].new_tensor([p.grad is not None for p in learning])
    flat = torch.cat([*(grad.flatten() for grad in grads), reached])
    dist.all_reduce(flat)
    flat /= world
    *means, reached = flat.split([*(p.numel() for p in learning), len(learning)])
    for parameter, mean, some in zip(learning, means, reached.tolist(), strict=True):
        if some:
            parameter.grad = torch.empty_like(parameter).copy_(mean.view_as(parameter))


def average_statistics(modules: Sequence[nn.Module], world: int) -> None:
    """Means over all ranks of the running statistics of batch normalisation, in one message: each
    rank has seen other recordings, and all must hold the encoder that the first one saves."""
    held = [
        statistic
        for module in modules
        for layer in module.modules()
        if isinstance(layer, _BatchNorm)
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    ]
    if not held:
        return
    flat = torch.cat([statistic.flatten() for statistic in held])
    dist.all_reduce(flat)
    for statistic, mean in zip(held, (flat / world).split([len(s) for s in held]), strict=True):
        statistic.copy_(mean)


@contextmanager
def frozen_statistics(*modules: nn.Module) -> Iterator[None]:
    """Batch statistics are used but not remembered, so a second forward pass changes nothing."""
    norms = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    for layer in norms:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in norms:
            layer.track_running_stats = True


def _exact(value: Tensor) -> Tensor:
    """Losses are taken in float32, whatever the encoders computed in."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def _parameters(encoders: Mapping[str, Encoder]) -> list[nn.Parameter]:
    return [p for name in sorted(encoders) for p in encoders[name].parameters()]


def _cat(rows: list[Tensor]) -> Tensor:
    """All rows; those of a single part as they are."""
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _everyone(counts: list[int], world: int) -> list[int]:
    """Recordings each rank holds (bad files make shares uneven)."""
    total = sum(counts)
    if world == 1:
        return [total]
    every: list[int] = [0] * world
    dist.all_gather_object(every, total)
    return every


def _gather(value: Tensor, counts: list[int], world: int) -> Tensor:
    """Rows of all ranks in rank order, without graph."""
    if world == 1:
        return value
    widest = max(counts)
    padded = value.new_zeros((widest, *value.shape[1:]))
    padded[: len(value)] = value
    every = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(every, padded)
    return torch.cat([rows[:count] for rows, count in zip(every, counts, strict=True)])


def _join(parts: list[Batch], counts: list[int], world: int) -> Batch:
    """The facts of the global batch."""

    def whole(pick: Callable[[Batch], Tensor]) -> Tensor:
        return _gather(_cat([pick(part) for part in parts]), counts, world)

    streams = {}
    for stream, views in parts[0].streams.items():
        streams[stream] = Views(
            samples=None,
            present=whole(lambda b, s=stream: b[s].present),  # type: ignore[misc]
            factors={
                name: whole(lambda b, s=stream, n=name: b[s].factors[n])  # type: ignore[misc]
                for name in views.factors
            },
        )
    return Batch(streams, whole(lambda b: b.recording), parts[0].generator)
