"""Seconds of a training step (forward, loss, backward, SGD with momentum) against the plain way.

    python benchmarks/training.py                  # all three encoders, about three minutes
    python benchmarks/training.py --only r3d18 --rounds 3

The plain way is what one writes first: float32, PyTorch's default memory format, `nn.Conv3d`
throughout. Each way runs in a process of its own, because memory settings are a process's; the
processes take turns step by step, so that whatever else the machine does touches all alike. The
table gives the median step, its ratio to the plain median of the same run (also of the processor
time, which other programs on the machine disturb less), the arithmetic done per second
(convolutions only, counted by formula) and its share of the machine's bfloat16 peak, which is the
best of many big matrix products, measured between the steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import nn

from mainspring.encoders import precision
from mainspring.encoders.catalog import find
from mainspring.encoders.r2plus1d import TemporalConv
from mainspring.encoders.video import VideoEncoder

WORKLOADS = {  # encoder: clips in a batch, frames, height and width
    "r2plus1d18": (8, 8, 112),
    "r3d18": (8, 8, 112),
    "r2plus1d_tiny": (96, 8, 40),
}

WAYS = {  # which of the measures each way takes
    "plain": (),
    "bf16": ("bf16",),
    "channels last": ("last",),
    "bf16, channels last": ("bf16", "last"),
    "bf16, channels last, 2D": ("bf16", "last", "2d"),
    "all, memory kept": ("bf16", "last", "2d", "kept"),
    "compiled": ("bf16", "last", "2d", "kept", "compiled"),
}
OURS = "all, memory kept"


class Step(NamedTuple):
    """Seconds by the clock, seconds of computing by all threads, and GiB used so far."""

    wall: float
    cpu: float
    memory: float


def build(encoder: str, measures: tuple[str, ...]) -> Callable[[], float]:
    """A function that trains one step and returns its loss."""
    batch, frames, size = WORKLOADS[encoder]
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = find(encoder)()
    assert isinstance(network, VideoEncoder)
    head = nn.Linear(network.dim, 10)
    if "2d" not in measures:
        for module in network.modules():
            if isinstance(module, TemporalConv):
                module.__class__ = nn.Conv3d
    chosen = precision.Precision("cpu", "bf16" in measures)
    if "last" in measures:
        precision.prepare(network, precision.Precision("none", False))
    if "kept" in measures:
        assert precision.keep_freed_memory(), "this C library has no mallopt"
    features = torch.compile(network.features) if "compiled" in measures else network.features
    optimiser = torch.optim.SGD([*network.parameters(), *head.parameters()], 0.01, momentum=0.9)
    shape = (batch, frames, size, size, 3)
    samples = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    labels = torch.randint(0, 10, (batch,), generator=random)

    def step() -> float:
        with chosen.autocast():
            pixels = network.prepare(samples)
            if "last" not in measures:
                pixels = pixels.contiguous()
            tokens = features(pixels).permute(0, 2, 3, 4, 1)
            loss = nn.functional.cross_entropy(head(network.embed(tokens)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def serve(link: Connection, encoder: str, measures: tuple[str, ...], threads: int) -> None:
    """A process that trains one step each time it is told to, and tells its seconds."""
    torch.set_num_threads(threads)
    step = build(encoder, measures)
    step()
    link.send("ready")
    while link.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        link.send(Step(wall, cpu, memory))


def operations(encoder: str) -> float:
    """Floating-point operations of the convolutions of one step, by formula: 2 per multiply-add,
    forward, gradient of the weights, and gradient of the input except for the first layer."""
    batch, frames, size = WORKLOADS[encoder]
    network = find(encoder)()
    counts: list[float] = []

    def count(module: Any, _: Any, output: torch.Tensor) -> None:
        counts.append(2.0 * output.numel() * module.weight[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros((1, frames, size, size, 3), dtype=torch.uint8))
    return batch * (3 * sum(counts) - counts[0])


def peak(size: int = 1536) -> float:
    """Operations a second of one big bfloat16 matrix product."""
    left, right = (torch.ones(size, size, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(4):
        start = time.perf_counter()
        nn.functional.linear(left, right)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def compare(encoder: str, ways: list[str], rounds: int, threads: int) -> None:
    """Prints the table of one encoder."""
    context = multiprocessing.get_context("spawn")
    links: dict[str, Connection] = {}
    processes = []
    for way in ways:
        links[way], far = context.Pipe()
        process = context.Process(target=serve, args=(far, encoder, WAYS[way], threads))
        process.start()
        processes.append(process)
        links[way].recv()
    told: dict[str, list[Step]] = {way: [] for way in ways}
    best = 0.0
    for _ in range(rounds):
        for way, link in links.items():
            link.send(True)
            told[way].append(link.recv())
        best = max(best, peak())
    for link in links.values():
        link.send(False)
    for process in processes:
        process.join()
    done = operations(encoder)
    batch, frames, size = WORKLOADS[encoder]
    wall = {way: statistics.median(step.wall for step in told[way]) for way in ways}
    cpu = {way: statistics.median(step.cpu for step in told[way]) for way in ways}
    print(f"\n{encoder}: {batch} clips of {frames}x{size}x{size}, {threads} threads")
    print(f"{done / 1e9:.0f} GFLOP a step; bfloat16 peak {best / 1e9:.0f} GFLOP/s")
    print(" " * 26 + "     ms  spread  ratio   (cpu)  clips/s  GFLOP/s   peak   GiB")
    for way in ways:
        times = [step.wall for step in told[way]]
        spread = (max(times) - min(times)) / wall[way]
        print(
            f"{way:26}{wall[way] * 1e3:7.0f}{spread:8.0%}{wall['plain'] / wall[way]:6.2f}x"
            f"{cpu['plain'] / cpu[way]:7.2f}x{batch / wall[way]:9.1f}"
            f"{done / wall[way] / 1e9:9.0f}{done / wall[way] / best:7.0%}"
            f"{max(step.memory for step in told[way]):6.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=WORKLOADS, action="append", help="encoders to measure")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="also torch.compile; takes minutes")
    asked = parser.parse_args()
    ways = [way for way in WAYS if asked.compile or way != "compiled"]
    torch.set_num_threads(asked.threads)
    for encoder in asked.only or WORKLOADS:
        compare(encoder, ways, asked.rounds, asked.threads)


if __name__ == "__main__":
    main()
