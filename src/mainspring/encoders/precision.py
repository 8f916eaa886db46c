"""How encoders compute fastest on a device, as measured by `benchmarks/training.py`.

    chosen = choose("auto", device)
    encoder = prepare(encoder.to(device), chosen)
    with chosen.autocast():
        ...

Three things pay on a CPU, and each alone is worth less: bfloat16 where the processor multiplies
it faster, weights and activations with the channels last in memory, and keeping freed memory
instead of handing it back to the system after every layer. Compilation does not pay there: minutes
to compile, and slower steps.
"""

from __future__ import annotations

import ctypes
import platform
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch

from mainspring.encoders.encoder import Encoder
from mainspring.errors import unknown

CHOICES = ("auto", "fp32", "bf16")

MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Of weights, by their number of axes."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of the C library's `mallopt`."""

WORTH = 1.2
"""How many times as fast products in bfloat16 have to be, since values are converted for them."""
SIDE, ROUNDS = 512, 8
"""Rows and columns of the products that tell, and how many are timed."""


@dataclass(frozen=True)
class Precision:
    """How to compute on a device.

    Attributes:
        device: Kind of device: "cpu", "cuda", ...
        bf16: Whether matrix products and convolutions are done in bfloat16; weights, batch-norm
            statistics and the optimiser stay in float32.
    """

    device: str
    bf16: bool

    @property
    def name(self) -> str:
        """ "bf16" or "fp32"."""
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> AbstractContextManager[object]:
        """A fresh context for the forward pass."""
        return torch.autocast(self.device, torch.bfloat16) if self.bf16 else nullcontext()


def choose(wish: str, device: torch.device) -> Precision:
    """The precision that was asked for, or the fastest that the device has hardware for.

    Args:
        wish: "auto", "fp32" or "bf16".
        device: Where to train.

    Raises:
        ConfigError: If the wish is another word.
    """
    if wish not in CHOICES:
        raise unknown("precision", wish, CHOICES)
    return Precision(device.type, wish == "bf16" or (wish == "auto" and faster_in_bf16(device)))


def faster_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 makes a device faster: a GPU that has instructions for it, and a CPU that
    has them and whose products are really faster by them. Processors of one and the same
    instruction differ: of two with AVX-512 one was twice as fast in bfloat16, the other half."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, ask, bool)() for ask in asks) and _gain() >= WORTH
    return False


@cache
def _gain() -> float:
    """How many times as fast this processor multiplies matrices in bfloat16 as in float32, by the
    best of some tries in turns: about 50 ms, once a process."""
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    matrices = {kind: torch.ones(SIDE, SIDE, dtype=kind) for kind in best}
    for _ in range(ROUNDS):
        for kind, matrix in matrices.items():
            begun = time.perf_counter()
            torch.mm(matrix, matrix)
            best[kind] = min(best[kind], time.perf_counter() - begun)
    return best[torch.float32] / best[torch.bfloat16]


def prepare(encoder: Encoder, precision: Precision) -> Encoder:
    """Lays an encoder out for training: its convolutions' weights with the channels last.

    On a CPU it also makes this process keep the memory it frees; see `keep_freed_memory`.

    Args:
        encoder: On its device; changed in place, names, shapes and values stay.
        precision: From `choose`.

    Returns:
        The same encoder.
    """
    with torch.no_grad():
        for parameter in encoder.parameters():
            layout = MEMORY_FORMATS.get(parameter.dim())
            if layout is not None:
                parameter.data = parameter.data.contiguous(memory_format=layout)
    if precision.device == "cpu":
        keep_freed_memory()
    return encoder


def keep_freed_memory() -> bool:
    """Tells the C library to reuse freed memory in this process rather than return it.

    By default glibc asks the system for every large block anew, and the system clears each page at
    its first touch: a step of R(2+1)D-18 in float32 spent over half its time on that. The process
    then keeps the most it ever used. Does nothing where the C library is not glibc.

    Returns:
        Whether it took effect.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
