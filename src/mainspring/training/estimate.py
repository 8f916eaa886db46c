"""What training would cost on this machine, measured by running a few steps of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import psutil
import torch
import torch.distributed as dist

from mainspring.encoders import precision
from mainspring.errors import DataError
from mainspring.training import loader, schedule
from mainspring.training.plan import Plan
from mainspring.training.settings import Settings
from mainspring.training.step import learn

WARM_STEPS = 2
TIMED_STEPS = 4
FEWEST_STEPS = 500
MOST_STEPS = 20_000
VISITS = 200


@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Attributes:
        step_seconds: Time of one optimiser step without reading.
        read_seconds: Time to read and draw one step's recordings in one process, uncached.
        steps: Steps the budget comes to.
        minutes: Whole run, reading in parallel with learning.
        memory_gb: Resident memory after the measured steps.
        device_gb: Peak memory of the device; 0 without one.
        disk_gb: Decoded recordings in the cache; 0 if they are streamed.
        parameters: Weights that learn.
    """

    step_seconds: float
    read_seconds: float
    steps: int
    minutes: float
    memory_gb: float
    device_gb: float
    disk_gb: float
    parameters: int


def estimate(plan: Plan, device: torch.device | None = None) -> Estimate:
    """Runs a few steps of a plan, which is spent by it, and says what the whole would cost. Of
    several processes each does its share, and all measure the same time of a step.

    Raises:
        DataError: If not one recording of the first step can be read.
    """
    settings = plan.settings
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pretext, chosen = plan.pretext.to(device), precision.choose(settings.precision, device)
    encoders = {s: precision.prepare(e.to(device), chosen) for s, e in plan.encoders.items()}
    modules = [pretext, *encoders.values()]
    parameters = [p for module in modules for p in module.parameters()]
    optimiser = schedule.build(settings.optimiser, parameters, settings.batch)
    for module in modules:
        module.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    draws = loader.Draws(plan.catalogue, plan.reader, plan.pretext, settings.seed, settings.batch)
    begun, read = time.perf_counter(), 0
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    (share,) = loader.Numbers(settings.batch, 0, 1, rank, world)
    batch, problems = loader.collate([draws[n] for n in share])
    read_seconds = time.perf_counter() - begun
    if batch is None:
        raise DataError(
            f"None of the first {len(problems)} recordings could be read. The first: "
            f"{problems[0].name}: {problems[0].reason}"
        )
    times = []
    for _ in range(WARM_STEPS + TIMED_STEPS):
        begun = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        parts = batch.to(device).split(settings.parts)
        outcome, features, facts = learn(
            pretext, encoders, parts, (settings.seed, read), chosen.autocast
        )
        optimiser.step()
        with torch.no_grad():
            pretext.after_step(encoders, facts, features)
        outcome.loss.item()
        times.append(time.perf_counter() - begun)
        read += settings.batch
    step_seconds = _slowest(sorted(times[WARM_STEPS:])[TIMED_STEPS // 2], device)
    steps = choose_steps(settings, len(plan.catalogue), step_seconds)
    cached, size = plan.cached
    readers = max(1, loader.processes(settings.loading.workers, plan.clips, cached))
    reading = 0.0 if cached else read_seconds / readers
    once = read_seconds / settings.batch * len(plan.catalogue) if cached else 0.0
    return Estimate(
        step_seconds=step_seconds,
        read_seconds=read_seconds,
        steps=steps,
        minutes=(steps * max(step_seconds, reading) + once) / 60,
        memory_gb=psutil.Process().memory_info().rss / 1e9,
        device_gb=torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0,
        disk_gb=size / 1e9 if cached else 0.0,
        parameters=sum(p.numel() for p in parameters if p.requires_grad),
    )


def _slowest(seconds: float, device: torch.device) -> float:
    """The longest time that any process measured: all must choose the same number of steps."""
    if not dist.is_initialized():
        return seconds
    longest = torch.tensor(seconds, dtype=torch.float64, device=device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    return longest.item()


def choose_steps(settings: Settings, recordings: int, step_seconds: float | None = None) -> int:
    """The budget in steps.

    Without one, every recording is visited 200 times, within 500 to 20,000 steps: small sets need
    a floor to learn anything, and beyond the ceiling the user should say what it is worth to him.

    Args:
        settings: What was asked.
        recordings: How many there are to learn from.
        step_seconds: Measured time of a step; needed for a budget in minutes.
    """
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is not None:
        return max(1, math.ceil(settings.epochs * recordings / settings.batch))
    if settings.minutes is not None:
        if step_seconds is None:
            raise ValueError("a budget in minutes needs a measured step")
        return max(1, int(settings.minutes * 60 / step_seconds))
    return min(MOST_STEPS, max(FEWEST_STEPS, round(VISITS * recordings / settings.batch)))
