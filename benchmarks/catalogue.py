"""What a catalogue of a million windows costs: to open, to hold, to hand to a worker, to order.

    python benchmarks/catalogue.py [--rows 1000000]

Prints a table. Beside our catalogue stands the plain way, a Python list of the same recordings
that is pickled to a worker. Memory is a process' own: without the
pages of memory-mapped files, which all processes share.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from mainspring.recordings.catalogue import Catalogue, open_catalogue
from mainspring.training.order import Order

WINDOWS_A_FILE = 100
LOOKS = 20_000


def private() -> float:
    """MB of memory that belongs to this process and not to a file it maps (Linux)."""
    return sum(region.anonymous for region in psutil.Process().memory_maps()) / 1e6


def write_manifest(path: Path, rows: int) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["uri", "start", "end", "group"])
        for row in range(rows):
            number, window = divmod(row, WINDOWS_A_FILE)
            uri = f"station-{number % 97:02d}/recording-of-the-day-{number:06d}.mp4"
            out.writerow([uri, 10 * window, 10 * window + 10, f"station-{number % 97:02d}"])


def receive(pipe: Connection) -> None:
    """A worker: unpickles a catalogue, looks at rows everywhere in it, says what it grew by."""
    before = private()
    catalogue = pickle.loads(pipe.recv_bytes())
    rows = np.random.default_rng(0).integers(len(catalogue), size=LOOKS)
    start = time.perf_counter()
    for row in rows:
        _ = catalogue[int(row)]
    pipe.send((private() - before, (time.perf_counter() - start) / LOOKS))


def hand_over(catalogue: Any) -> tuple[float, float, float]:
    """Bytes pickled (MB), growth of a fresh worker (MB) and seconds a row there."""
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,))
    worker.start()
    message = pickle.dumps(catalogue)
    ours.send_bytes(message)
    grown, look = ours.recv()
    worker.join()
    return len(message) / 1e6, grown, look


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, the seconds and the growth in MB."""
    before, start = private(), time.perf_counter()
    result = function()
    return result, time.perf_counter() - start, private() - before


def line(what: str, value: str) -> None:
    print(f"{what:<56}{value:>16}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.csv"
        write_manifest(manifest, rows)
        catalogue, seconds, grown = timed(lambda: open_catalogue(manifest))
        assert len(catalogue) == rows
        line(f"open a CSV manifest of {rows:,} windows", f"{seconds:.2f} s")
        line("  memory it holds", f"{grown:.0f} MB")
        parquet = Path(folder) / "manifest.parquet"
        catalogue.save(parquet)
        line("open the same as Parquet", f"{timed(lambda: open_catalogue(parquet))[1]:.2f} s")
        line("fingerprint", f"{timed(catalogue.fingerprint)[1]:.2f} s")

        line("freeze", f"{timed(lambda: catalogue.freeze(folder))[1]:.2f} s")
        size, grown, look = hand_over(catalogue)
        line("to a worker: pickled", f"{size * 1e3:.2f} kB")
        line("  the worker grows by", f"{grown:.1f} MB")
        line("  a row there", f"{look * 1e6:.1f} us")

        plain, seconds, grown = timed(lambda: list(Catalogue.load(parquet)))
        line("plain list of recordings: made in", f"{seconds:.2f} s")
        line("  memory it holds", f"{grown:.0f} MB")
        size, grown, _ = hand_over(plain)
        line("  to a worker: pickled", f"{size * 1e3:.0f} kB")
        line("  the worker grows by", f"{grown:.0f} MB")
        del plain

    order, seconds, grown = timed(lambda: Order(rows, 0))
    line("order: made in", f"{seconds * 1e3:.2f} ms")
    _, seconds, grown = timed(lambda: [None for n in range(LOOKS) if order[n] < 0])
    line("  a step", f"{seconds / LOOKS * 1e6:.1f} us")
    line(f"  memory after {LOOKS:,} steps", f"{grown:.2f} MB")


if __name__ == "__main__":
    main()
