"""TS2Vec here against the authors' code, side by side: same data, steps, batch and machine.

    MAINSPRING_DATA=... python benchmarks/ts2vec_speed.py --peer PATH/TO/ts2vec

PATH is a checkout of the authors' repository (github.com/zhihanyue/ts2vec), used as it is: the
names that numpy no longer has (bool, int, float) are put back before it is imported. Without one
the benchmark skips. For each set both train with their defaults (200 or 600 steps, batch 8),
encode train and test, and fit the SVM of the protocol; they take turns, each piece of work in a
process of its own, which takes two steps before its clock starts. Then: sliding causal encoding of
ETTh1, and peak memory of training on 8 series of 3,000 steps. The last lines give the arithmetic
done per second (what is useful of the convolutions, by formula) beside the machine's best for
matrix products.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ucr_sets import PUBLISHED, Split, load

WIDTH, DEPTH, DIM = 64, 10, 320
WARM = 2
"""Steps that each side takes before its clock starts: the first of a process import a compiler that
neither uses, for a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--parts", nargs="+", default=["ucr", "sliding", "memory"])
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer is None or not (given.peer / "ts2vec.py").exists():
        sys.exit("Skipped: --peer must name a checkout of github.com/zhihanyue/ts2vec.")
    if given.work:
        side, part, name = given.work
        print(json.dumps(WORK[part](side, given.peer, name)))
        return

    def measure(side: str, part: str, name: str = "-") -> dict[str, float]:
        command = [sys.executable, __file__, "--peer", str(given.peer)]
        done = subprocess.run(
            [*command, "--work", side, part, name], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{side} failed on {part} {name}:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    if "ucr" in given.parts:
        table(given.sets, measure)
    if "sliding" in given.parts:
        peer, ours = measure("peer", "sliding"), measure("ours", "sliding")
        print(
            f"\nSliding causal encoding of ETTh1 (17,420 steps, 8 channels): authors "
            f"{peer['seconds']:.1f} s, ours {ours['seconds']:.2f} s: "
            f"{peer['seconds'] / ours['seconds']:.1f} times as fast."
        )
    if "memory" in given.parts:
        peer, ours = measure("peer", "memory"), measure("ours", "memory")
        print(
            f"\nPeak memory of training at length 3,000, batch 8: authors {peer['gib']:.2f} GiB, "
            f"ours {ours['gib']:.2f} GiB ({ours['gib'] / peer['gib']:.2f} of it); beyond the "
            f"process before training {peer['more']:.2f} and {ours['more']:.2f} GiB. "
            f"{peer['steps']:.0f} steps took {peer['seconds']:.1f} and {ours['seconds']:.1f} s."
        )


def table(sets: list[str], measure: Callable[..., dict[str, float]]) -> None:
    """One row a set, and the sums."""
    print("| set | length | authors train | ours | ratio | authors fit + classify | ours | ratio |")
    print("|---" * 8 + "|")
    sums = np.zeros(4)
    useful = 0.0
    for name in sets:
        sides = {side: measure(side, "ucr", name) for side in ("peer", "ours")}
        peer, ours = sides["peer"], sides["ours"]
        row = [peer["train"], ours["train"], peer["all"], ours["all"]]
        sums += row
        useful += ours["useful"]
        print(
            f"| {name} | {peer['length']:.0f} | {row[0]:.1f} s | {row[1]:.1f} s | "
            f"{row[0] / row[1]:.1f} | {row[2]:.1f} s | {row[3]:.1f} s | {row[2] / row[3]:.1f} |",
            flush=True,
        )
    print(
        f"| sum | | {sums[0]:.0f} s | {sums[1]:.0f} s | {sums[0] / sums[1]:.2f} | "
        f"{sums[2]:.0f} s | {sums[3]:.0f} s | {sums[2] / sums[3]:.2f} |"
    )
    products, convolutions = peak()
    print(
        f"\nUseful arithmetic while training: authors {useful / sums[0] / 1e9:.0f} GFLOP/s, ours "
        f"{useful / sums[1] / 1e9:.0f}. The machine's best in float32: matrix products "
        f"{products / 1e9:.0f}, 1x1 convolutions {convolutions / 1e9:.0f}."
    )


# -- the work, each in a process of its own -------------------------------------------------------


def authors(peer: Path) -> Any:
    """The authors' class."""
    for name, kind in (("bool", bool), ("int", int), ("float", float)):
        if not hasattr(np, name):
            setattr(np, name, kind)
    sys.path.insert(0, str(peer))
    import torch
    from ts2vec import TS2Vec

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (the authors' code draws from it)
    return TS2Vec


def ucr(side: str, peer: Path, name: str) -> dict[str, float]:
    """Seconds to train, and for all of fit, encode and classify."""
    split = load(name)
    if side == "peer":
        kind = authors(peer)
        sys.path.insert(0, str(peer / "tasks"))  # its package wants what only other tasks need
        from _eval_protocols import fit_svm

        kind(input_dims=1, device="cpu", batch_size=8).fit(split.train, n_iters=WARM)
        begun = time.perf_counter()
        model = kind(input_dims=1, device="cpu", batch_size=8)
        model.fit(split.train)
        trained = time.perf_counter()
        vectors = [model.encode(x, encoding_window="full_series") for x in split[::2]]
        labels = np.unique(split.train_labels, return_inverse=True)[1]
        fit_svm(vectors[0], labels).predict(vectors[1])
    else:
        from mainspring.embedder import Embedder
        from mainspring.evaluate.classify import svm

        Embedder("ts2vec", steps=WARM).fit(split.train)
        begun = time.perf_counter()
        model = Embedder("ts2vec").fit(split.train)
        trained = time.perf_counter()
        vectors = [model.transform(x) for x in split[::2]]
        svm(vectors[0], split.train_labels, vectors[1], split.test_labels)
    return {
        "length": split.train.shape[1],
        "train": trained - begun,
        "all": time.perf_counter() - begun,
        "useful": useful(split),
    }


def useful(split: Split) -> float:
    """Floating point operations of training that do not meet padding: forward, and backward twice
    as many; crops have on average five eighths of the length each."""
    count, length = split.train.shape[:2]
    steps = 200 if split.train.size <= 100_000 else 600
    crop, work = 5 * length / 8, 0.0
    for block in range(DEPTH + 1):
        taps = 1 + 2 * max(0.0, 1 - 2**block / crop)
        out = DIM if block == DEPTH else WIDTH
        work += taps * (WIDTH * out + out * out) + (WIDTH * out if block == DEPTH else 0)
    return 2 * 3 * work * steps * 2 * min(8, count) * crop


def sliding(side: str, peer: Path, _: str) -> dict[str, float]:
    """Seconds to encode every step of ETTh1 from the 201 steps up to it."""
    root = Path(os.environ["MAINSPRING_DATA"]) / "ett" / "ETTh1.csv"
    values = np.genfromtxt(root, delimiter=",", skip_header=1)[:, 1:]
    values = ((values - values.mean(0)) / values.std(0)).astype(np.float32)
    whole = np.concatenate([values, values[:, -1:]], 1)  # eight channels, as with seven features
    if side == "peer":
        model = authors(peer)(input_dims=8, device="cpu", batch_size=8)
        begun = time.perf_counter()
        model.encode(
            whole[None], causal=True, sliding_length=1, sliding_padding=200, batch_size=256
        )
    else:
        from mainspring.embedder import Embedder

        embedder = Embedder("ts2vec", steps=1, pool="steps", context=200).fit([whole[:400]])
        begun = time.perf_counter()
        embedder.transform([whole])
    return {"seconds": time.perf_counter() - begun}


def memory(side: str, peer: Path, _: str, steps: int = 6) -> dict[str, float]:
    """Largest resident memory of training on 8 series of 3,000 steps."""
    import resource

    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, 3000, 1)).cumsum(1).astype(np.float32)
    data = (data - data.mean()) / data.std()
    if side == "peer":
        kind = authors(peer)
    else:
        from mainspring.embedder import Embedder

    def used() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    before, begun = used(), time.perf_counter()
    if side == "peer":
        # The largest crop is what counts, and few steps may not draw it.
        np.random.randint = lambda low, high=None, size=None: (
            np.zeros(size, int) if size is not None else (high - 1 if high else 0)
        )
        kind(input_dims=1, device="cpu", batch_size=8).fit(data, n_iters=steps)
    else:
        from mainspring.pretexts.contrastive.ts2vec import TS2Vec

        TS2Vec.crop = lambda self, length, common: ((0, 0, length, length), 0, 0)
        Embedder("ts2vec", steps=steps).fit(data)
    spent = time.perf_counter() - begun
    return {"gib": used(), "more": used() - before, "seconds": spent, "steps": steps}


WORK = {"ucr": ucr, "sliding": sliding, "memory": memory}


def peak() -> tuple[float, float]:
    """Best rate of big float32 products and of 1x1 convolutions, in FLOP/s."""
    import torch

    rows = torch.randn(4096, 1024)
    picture = rows.view(1, 64, 64, 1024).permute(0, 3, 1, 2)
    kernel = torch.randn(1024, 1024, 1, 1)
    weight = kernel[:, :, 0, 0].T.contiguous()

    def rate(work: Callable[[], object]) -> float:
        times = []
        for _ in range(12):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return 2 * 4096 * 1024 * 1024 / min(times)

    return rate(lambda: rows @ weight), rate(lambda: torch.nn.functional.conv2d(picture, kernel))


if __name__ == "__main__":
    main()
