"""Ctrl-C, held back until the step in progress is whole, so that what was learnt can be kept.

    with Interrupt(log) as interrupt:
        for step in ...:
            ...
            if interrupt.after_step(device):    # save, then stop

Weights that are stopped in the middle of a step may be half updated. Hence the first Ctrl-C is only
remembered; the loop asks after each step. A second one stops at once, and so does one that comes
before the first step is done, when there is nothing to keep.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

from mainspring.training.progress import Log


class Interrupt:
    """Takes Ctrl-C (SIGINT) while it is open, in the main thread; elsewhere it takes nothing, nor
    where the process is told to ignore it or somebody else listens.

    Args:
        log: Where it is said that a step is being finished.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.asked = False
        self.steps = 0
        self._taken = False

    def __enter__(self) -> Interrupt:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if usual and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._heard)
            self._taken = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.steps:
            raise KeyboardInterrupt
        self.asked = True
        with contextlib.suppress(RuntimeError):  # it came while a line was being written
            self.log.say("Stopping after this step; Ctrl-C again stops at once.")

    def after_step(self, device: torch.device) -> bool:
        """Whether to stop now. All processes answer alike, whichever of them was asked."""
        self.steps += 1
        if not dist.is_initialized():
            return self.asked
        told = torch.tensor(int(self.asked), device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())
