"""A deadline for decoders: a file that makes one hang costs an error, not the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mainspring.errors import DataError

Result = TypeVar("Result")


class Overdue(DataError):
    """A decoder did not answer in time."""


def within(seconds: float, function: Callable[..., Result], *args: Any) -> Result:
    """What function(*args) returns or raises, or an error when it takes longer than `seconds`.

    The work runs in a daemon thread. A thread cannot be ended from outside: one that hangs is left
    behind and does not keep the process from ending.

    Args:
        seconds: How long it may take.
        function: Does the work.
        args: Its arguments; the first one that is text names the file in the error.

    Raises:
        Overdue: After the deadline.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function(*args))
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True, name="mainspring-decoder")
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        name = next((arg for arg in args if isinstance(arg, str)), "a file")
        raise Overdue(
            f"Decoding {name} took more than {seconds:g} seconds and was given up: the decoder "
            "hangs on this file or the disk does not answer. Re-encode the file or leave it out."
        )
    return outcome[0]
