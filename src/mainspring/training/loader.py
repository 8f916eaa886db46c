"""Batches in a given order, drawn and read ahead of the training loop.

Sample n is row order[n], drawn with a generator keyed by (seed, n): neither the number of workers
nor where the run was interrupted changes what a batch holds.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mainspring.clips import NOTHING
from mainspring.errors import ConfigError, DataError, RunError
from mainspring.pretexts.pretext import Batch, Pretext, Views
from mainspring.recordings.catalogue import Catalogue
from mainspring.recordings.processes import cores, may_start
from mainspring.recordings.reader import Reader
from mainspring.training.order import Order, seeded


@dataclass
class Example:
    """One recording, drawn and read: for each stream samples, presence and factors of its views."""

    row: int
    streams: dict[str, tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]


@dataclass
class Problem:
    """A recording that could not be read, and why."""

    row: int
    name: str
    reason: str


@dataclass
class Share:
    """What one rank gets of a step: its recordings, and those that failed."""

    batch: Batch | None
    problems: list[Problem]
    waited: float


class Draws(Dataset):
    """The samples of a run by number: draw, then read. Costs nothing until asked.

    Args:
        catalogue: The recordings.
        reader: Of their samples.
        pretext: What draws; where it is `apart`, no recording stands in a batch twice.
        seed: Of order and draws.
        batch: Samples a step.
    """

    def __init__(
        self, catalogue: Catalogue, reader: Reader, pretext: Pretext, seed: int, batch: int
    ) -> None:
        self.catalogue = catalogue
        self.reader = reader
        self.order = Order(len(catalogue), seed, batch if pretext.apart else 1)
        self.draw = pretext.light().draw
        self.seed = seed

    def __getitem__(self, sample: int) -> Example | Problem:
        row = self.order[sample]
        recording = self.catalogue[row]
        try:
            timeline = self.reader.timeline(recording)
            draws = self.draw(timeline, seeded(self.seed, sample))
            samples = self.reader.read(recording, {k: d.clips for k, d in draws.items()})
        except DataError as error:
            return Problem(row, recording.name, str(error))
        return Example(
            row,
            {
                stream: (samples[stream], draw.clips != NOTHING, draw.factors)
                for stream, draw in draws.items()
            },
        )


def collate(items: list[Example | Problem]) -> tuple[Batch | None, list[Problem]]:
    """Recordings side by side; those that failed are left out and listed."""
    problems = [item for item in items if isinstance(item, Problem)]
    good = [item for item in items if isinstance(item, Example)]
    if not good:
        return None, problems
    streams = {}
    for stream in good[0].streams:
        samples, present, _ = zip(*(item.streams[stream] for item in good), strict=True)
        streams[stream] = Views(
            samples=torch.from_numpy(np.stack(samples)),
            present=torch.from_numpy(np.stack(present)),
            factors={
                name: torch.from_numpy(np.stack([item.streams[stream][2][name] for item in good]))
                for name in good[0].streams[stream][2]
            },
        )
    rows = torch.tensor([item.row for item in good], dtype=torch.int64)
    return Batch(streams, rows, torch.Generator()), problems


@dataclass(frozen=True)
class Numbers:
    """The sample numbers of each step for one rank, made one step at a time.

    Raises:
        ConfigError: If some rank would have none.
    """

    batch: int
    first: int
    steps: int
    rank: int
    world: int

    def __post_init__(self) -> None:
        if self.batch < self.world:
            raise ConfigError(
                f"A batch of {self.batch} recordings cannot be shared by {self.world} processes: "
                "start fewer of them, or give a larger batch of more recordings."
            )

    def __len__(self) -> int:
        return max(0, self.steps - self.first)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.steps):
            start = step * self.batch + self.rank * self.batch // self.world
            stop = step * self.batch + (self.rank + 1) * self.batch // self.world
            yield list(range(start, stop))


def processes(asked: int, streams: Iterable[str], cached: bool) -> int:
    """How many processes read: as many as asked for; below 0, none (a thread) where samples are
    cached or only series are read, else one for each core but one. None where this process may not
    start others."""
    if not may_start():
        return 0
    if asked >= 0:
        return asked
    return 0 if cached or set(streams) == {"series"} else max(1, cores() - 1)


def shares(
    draws: Draws, batch: int, first: int, steps: int, rank: int, world: int, workers: int
) -> Iterator[Share]:
    """This rank's share of each step, from step `first` on, read ahead of time.

    Args:
        draws: The samples.
        batch: Recordings a step over all ranks; rank r takes the r-th contiguous part.
        first: Steps already taken.
        steps: Steps of the whole run.
        rank: This process.
        world: All processes.
        workers: Processes that read; 0 reads in a thread, which is enough where a cache serves.

    Raises:
        RunError: If one of these processes dies.
    """
    numbers = Numbers(batch, first, steps, rank, world)
    if workers:
        source = DataLoader(
            draws,
            batch_sampler=numbers,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context="forkserver",
            prefetch_factor=2,
            worker_init_fn=_deaf,
        )
        ready: Iterator = iter(source)
    else:
        ready = _ahead(collate([draws[n] for n in step]) for step in numbers)
    while True:
        begun = time.perf_counter()
        try:
            made, problems = next(ready)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise RunError(
                "A process that reads recordings has died. A script that trains must do so under "
                '`if __name__ == "__main__":`, since such processes run its other lines again. '
                "If it does, memory may be short: take fewer of them with loading.workers; 0 reads "
                "without any."
            ) from error
        yield Share(made, problems, time.perf_counter() - begun)


def _deaf(worker: int) -> None:
    """Ctrl-C on a terminal goes to all processes: those that read go on until the loop stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ahead(items: Iterator, depth: int = 3) -> Iterator:
    """Runs an iterator in a thread, `depth` items ahead; its exceptions surface in the consumer."""
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, StopIteration()))

    threading.Thread(target=work, daemon=True, name="read-ahead").start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
