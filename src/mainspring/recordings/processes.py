"""How many processes may work at once."""

from __future__ import annotations

import multiprocessing
import os


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def may_start() -> bool:
    """Whether this process may start others. Those of a `multiprocessing.Pool`, in which users try
    settings side by side, may not, and do all by themselves."""
    return not multiprocessing.current_process().daemon
