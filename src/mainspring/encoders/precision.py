"""How encoders compute fastest on a device, as measured by `benchmarks/training.py`.

    chosen = choose("auto", device)
    encoder = prepare(encoder.to(device), chosen)
    with chosen.autocast():
        ...

Three things pay on a CPU, and each alone is worth less: bfloat16 where the processor multiplies
it, weights and activations with the channels last in memory, and keeping freed memory instead of
handing it back to the system after every layer. Compilation does not pay there: minutes to
compile, and slower steps.
"""

from __future__ import annotations

import ctypes
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from mainspring.encoders.encoder import Encoder
from mainspring.errors import unknown

CHOICES = ("auto", "fp32", "bf16")

MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Of weights, by their number of axes."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of the C library's `mallopt`."""


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
    return Precision(device.type, wish == "bf16" or (wish == "auto" and multiplies_bf16(device)))


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; where it must be emulated it costs time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, ask, bool)() for ask in asks)
    return False


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
