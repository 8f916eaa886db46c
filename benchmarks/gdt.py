"""What GDT costs beside what it is made of: encoders, decoding, matrix products, memory.

    python benchmarks/gdt.py                              # all parts, about two minutes
    python benchmarks/gdt.py --parts contrast memory
    python benchmarks/gdt.py --parts step --video r2plus1d18 --recordings 4

step      a step of `gdt` with four views a recording (content changes, encoders, heads, contrast,
          backward pass) against four plain passes of the same clips through the same encoders,
          forward and backward;
loading   reading the four views of a recording, video and sound, against reading one of them, from
          the files of a generated world, decoded each time and from the cache. Two directions of
          one time are the same frames; two times are twice as many, fetched in one pass where they
          are near each other;
contrast  loss and gradient of 4096 vectors of 256 against the two matrix products that they need
          if written plainly (similarities, and their gradient times the vectors);
memory    the most that a process with 32,768 vectors of 256 ever holds.

What is compared takes turns, in one process, and the table has medians over the turns, of the clock
and of this process's processor time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mainspring.encoders import precision
from mainspring.encoders.catalog import find
from mainspring.losses.contrast import Rule, agreement, all_but_self, contrast, cross_stream
from mainspring.pretexts.crossmodal.gdt import Gdt, GdtConfig
from mainspring.pretexts.pretext import Batch, Views
from mainspring.recordings.cache import Cache
from mainspring.recordings.demo.world import make_world
from mainspring.recordings.reader import Reader
from mainspring.recordings.recording import Recording
from mainspring.recordings.video import probe_media

PARTS = ("step", "loading", "contrast", "memory")
VECTORS, DIM, TEMPERATURE = 4096, 256, 0.07
MANY = 32_768
Way = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--video", default="r2plus1d_tiny")
    parser.add_argument("--audio", default="logmel")
    parser.add_argument("--recordings", type=int, default=16, help="of a step")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a recording that is loaded")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hold", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    precision.keep_freed_memory()  # as training does
    if args.hold:
        hold()
        return
    print(f"{'':<44}{'ms':>9}{'ratio':>8}{'CPU ms':>9}{'ratio':>8}{'bound':>8}")
    made = {"step": step, "loading": loading, "contrast": products, "memory": memory}
    for part in args.parts:
        made[part](args)


def compare(ways: dict[str, tuple[Way, float | None]], rounds: int) -> None:
    """Prints medians; the first way is what the others are compared with, and each has the most
    that its ratio may be."""
    for way, _ in ways.values():
        way()
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, _) in ways.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            way()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - cpu_began)
    first = next(iter(ways))
    for name, (_, bound) in ways.items():
        clock, work = statistics.median(wall[name]), statistics.median(cpu[name])
        print(
            f"{name:<44}{1e3 * clock:>9.1f}{clock / statistics.median(wall[first]):>8.2f}"
            f"{1e3 * work:>9.1f}{work / statistics.median(cpu[first]):>8.2f}"
            f"{'' if bound is None else f'{bound:.2f}':>8}"
        )


def step(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    encoders = {"video": find(args.video)(), "audio": find(args.audio)()}
    clips = {stream: encoder.clip for stream, encoder in encoders.items()}
    dims = {stream: encoder.dim for stream, encoder in encoders.items()}
    pretext = Gdt(clips, dims, args.recordings, GdtConfig())
    pretext.attach(encoders)
    weights = [w for module in (pretext, *encoders.values()) for w in module.parameters()]
    views, video, audio = pretext.views, clips["video"], clips["audio"]
    shape = (args.recordings, views, video.length, video.size, video.size, 3)
    samples = {
        "video": torch.randint(0, 256, shape, dtype=torch.uint8),
        "audio": torch.randn(args.recordings, views, audio.length),
    }
    factors = {
        name: torch.from_numpy(values).expand(args.recordings, -1)
        for name, values in {**pretext.table, "counts": np.ones(views, np.int64)}.items()
    }
    batch = Batch(
        {
            stream: Views(value, torch.ones(value.shape[:3], dtype=torch.bool), factors)
            for stream, value in samples.items()
        },
        torch.arange(args.recordings),
        torch.Generator(),
    )
    crop = video.crop or video.size

    def clear() -> None:
        for weight in weights:
            weight.grad = None

    def passes() -> None:
        clear()
        for view in range(views):
            shown = samples["video"][:, view, :, :crop, :crop]
            seen, heard = encoders["video"](shown), encoders["audio"](samples["audio"][:, view])
            (seen.square().mean() + heard.square().mean()).backward()

    def learn() -> None:
        clear()
        pretext(encoders, batch).loss.backward()

    what = f"{args.recordings} recordings, {args.video} and {args.audio}"
    compare(
        {f"{views} passes, {what}": (passes, None), "a step of gdt": (learn, 1.15)}, args.rounds
    )


def loading(args: argparse.Namespace) -> None:
    clips = {
        name: find(kind)().clip for name, kind in [("video", args.video), ("audio", args.audio)]
    }
    pretext = Gdt(clips, dict.fromkeys(clips, 1), 2, GdtConfig())
    with tempfile.TemporaryDirectory() as scratch:
        world = make_world(Path(scratch) / "world", 24, seconds=args.seconds)
        paths = sorted((world / "videos").glob("*.mp4"))
        recordings = [Recording(str(path), streams=probe_media(str(path))) for path in paths]
        cache = Cache(Path(scratch) / "cache", 1 << 34)
        cache.build(recordings, clips)
        rng = np.random.default_rng(0)
        for name, reader in {"decoded": Reader(clips), "cached": Reader(clips, cache)}.items():
            draws = [pretext.draw(reader.timeline(recording), rng) for recording in recordings]

            def read(views: slice, reader: Reader = reader, draws: list = draws) -> None:
                for recording, draw in zip(recordings, draws, strict=True):
                    reader.read(recording, {k: d.clips[views] for k, d in draw.items()})

            compare(
                {
                    f"one view of {len(recordings)}, {name}": (partial(read, slice(0, 1)), None),
                    f"both directions of one time, {name}": (partial(read, slice(0, 2)), 1.2),
                    f"all {pretext.views} views, at two times, {name}": (
                        partial(read, slice(None)),
                        1.2,
                    ),
                },
                args.rounds,
            )


def products(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(VECTORS, DIM, requires_grad=True)
    unit = F.normalize(embeddings.detach(), dim=1)
    square = torch.empty(VECTORS, VECTORS)
    recording = torch.arange(VECTORS) // 8
    stream, shift = torch.arange(VECTORS) % 2, torch.arange(VECTORS) // 2 % 2
    label = agreement(recording, {"shift": shift}, {"shift": "tell_apart"})

    def two() -> None:
        torch.mm(unit, unit.T, out=square)
        torch.mm(square, unit)

    def learn(rule: Rule) -> Way:
        def way() -> None:
            embeddings.grad = None
            contrast(embeddings, label, rule, TEMPERATURE).loss.backward()

        return way

    compare(
        {
            f"two products, {VECTORS} x {VECTORS} x {DIM}": (two, None),
            "contrast, all but self": (learn(all_but_self(recording)), 1.3),
            "contrast, across two streams": (learn(cross_stream(recording, stream)), 1.3),
        },
        args.rounds,
    )


def hold() -> None:
    """Loss and gradient of many vectors; prints the peak of this process in MiB."""
    torch.manual_seed(0)
    before = peak()
    embeddings = torch.randn(MANY, DIM, requires_grad=True)
    recording = torch.arange(MANY) // 8
    began = time.perf_counter()
    contrast(embeddings, recording, all_but_self(recording), TEMPERATURE).loss.backward()
    print(f"{peak():.0f} {before:.0f} {time.perf_counter() - began:.1f}")


def peak() -> float:
    """The most that this process ever held, in MiB. What `getrusage` tells includes the process
    that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def memory(args: argparse.Namespace) -> None:
    command = [sys.executable, __file__, "--hold", "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    most, before, seconds = map(float, done.stdout.split())
    print(
        f"{MANY} x {MANY} x {DIM}: {most:.0f} MiB at most ({before:.0f} before it began; bound "
        f"4096), {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
