"""What is said while training: one line that says everything, a log, and alarms."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPREAD_ALARM = 0.005
RANK_ALARM = 1.5
WAIT_ALARM = 0.3
WINDOW = 20


class Log:
    """Lines go to stderr and to a file. A line that is being updated stays in its place on a
    terminal and appears every few seconds elsewhere.

    Args:
        path: The file; None writes none.
        quiet: Say nothing on stderr.
        every: Seconds between updates where stderr is no terminal.
    """

    def __init__(
        self,
        path: Path | None = None,
        quiet: bool = False,
        every: float = 10.0,
        out: Any = None,
    ) -> None:
        self.path = path
        self.quiet = quiet
        self.every = every
        self.out = out or sys.stderr
        self._live = self.out.isatty()
        self._open = False
        self._last = float("-inf")

    def into(self, path: Path | None) -> Log:
        """A log that also writes to a file; without one, a log that says nothing."""
        return Log(path, self.quiet or path is None, self.every, self.out)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._file(text)
        if not self.quiet:
            self.out.write(("\n" if self._open else "") + text + "\n")
            self.out.flush()
            self._open = False

    def update(self, text: str, final: bool = False) -> None:
        """The line that is replaced by the next one."""
        now = time.monotonic()
        due = final or now - self._last >= (0.2 if self._live else self.every)
        if not due:
            return
        self._last = now
        if self._live and not self.quiet:
            self.out.write("\r\x1b[K" + text)
            self._open = not final
            if final:
                self.out.write("\n")
            self.out.flush()
        elif not self.quiet:
            self.out.write(text + "\n")
            self.out.flush()
        if not self._live or final:
            self._file(text)

    def _file(self, text: str) -> None:
        if self.path is not None:
            with open(self.path, "a") as file:
                file.write(text + "\n")


class Alarms:
    """Watches for a collapsed embedding, for a device that starves, and for steps without question.

    Collapse: over the last steps a mean spread below 0.005 (0 when all embeddings are one point, 1
    when they fill the sphere), or a mean effective rank below 1.5. Starvation: more than 30 % of
    the time waiting for data.

    Args:
        begin: Steps before this one are not looked at: an encoder may well begin collapsed, and the
            first batches wait for processes to start.
        idle: So many steps in a row that ask nothing are too many, from the first step on.
    """

    def __init__(self, begin: int = 0, idle: int = WINDOW) -> None:
        self.begin = begin
        self.idle = idle
        self.recent: dict[str, deque[float]] = {}
        self.raised: list[str] = []

    def check(self, step: int, values: Mapping[str, float], idle: int = 0) -> list[str]:
        """Takes one step's "spread", "rank" and "waiting", and how many steps up to it asked
        nothing; returns alarms the first time."""
        texts = []
        if idle >= self.idle:
            texts += self._raise(
                "unasked",
                f"Alarm at step {step}: nothing was asked in {idle} steps. Their clips are silent, "
                "absent or all alike; `mainspring check` tells what the streams hold.",
            )
        if step <= self.begin:
            return texts
        for name, value in values.items():
            self.recent.setdefault(name, deque(maxlen=WINDOW)).append(value)

        def mean(name: str) -> float | None:
            seen = self.recent.get(name, ())
            return sum(seen) / len(seen) if len(seen) == WINDOW else None

        spread, rank, waiting = mean("spread"), mean("rank"), mean("waiting")
        if (spread is not None and spread < SPREAD_ALARM) or (
            rank is not None and rank < RANK_ALARM
        ):
            texts += self._raise(
                "collapsed",
                f"Alarm at step {step}: the embedding has collapsed (spread {spread or 0:.2f}, "
                f"effective rank {rank or 0:.1f}). All recordings look alike to the encoder. Lower "
                "the learning rate, ask another question, or use more negatives.",
            )
        if waiting is not None and waiting > WAIT_ALARM:
            texts += self._raise(
                "starved",
                f"Alarm at step {step}: {waiting:.0%} of the time waits for data. Give a cache "
                "(loading.cache_gb) or more reading processes (loading.workers).",
            )
        return texts

    def _raise(self, name: str, text: str) -> list[str]:
        if name in self.raised:
            return []
        self.raised.append(name)
        return [text]


def line(
    step: int,
    steps: int,
    loss: float,
    answers: Mapping[str, tuple[float, float]],
    rank: float | None,
    speed: float,
    waiting: float,
    left: float,
) -> str:
    """Step, share done, loss, each question's accuracy beside chance, effective rank, samples a
    second, share of time waiting for data, time left in seconds."""
    asked = "  ".join(
        f"{name} {got:.0%} (chance {chance:.0%})" for name, (got, chance) in answers.items()
    )
    middle = f"  {asked}" if asked else ""
    shape = "" if rank is None else f"  rank {rank:.1f}"
    return (
        f"step {step}/{steps} {step / steps:4.0%}  loss {loss:.4f}{middle}{shape}  "
        f"{speed:.0f} samples/s  waiting {waiting:.0%}  left {clock(left)}"
    )


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{last:02d}" if hours else f"{minutes}:{last:02d}"
