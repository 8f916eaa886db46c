"""Errors that say what came, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MainspringError(Exception):
    """Something the user can put right. The command line prints it without a traceback."""


class DataError(MainspringError):
    """The recordings cannot be used as they are."""


class ConfigError(MainspringError):
    """A setting is unknown, contradictory or out of range."""


class RunError(MainspringError):
    """The run folder cannot be written, resumed or read."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> ConfigError:
    """An error for a name that is not among the choices, with the nearest one suggested.

    Args:
        kind: What the name stands for, such as "pretext".
        name: What the user wrote.
        choices: What would have been accepted.
    """
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(choice or "''" for choice in known)
    return ConfigError(f"Unknown {kind} {name!r}.{hint} Known: {listed}.")
