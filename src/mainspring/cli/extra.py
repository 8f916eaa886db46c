"""What a config file holds beyond the flags of a verb."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from mainspring.errors import unknown


def refuse(extra: dict[str, Any], flags: type, verb: str) -> None:
    """Refuses what a config file has and the verb does not take.

    Raises:
        ConfigError: If there is anything, with a suggestion.
    """
    for key in extra:
        raise unknown(f"setting for {verb}", key, [field.name for field in fields(flags)])


def settings(extra: dict[str, Any]) -> dict[str, Any]:
    """What a config file has for training beyond the flags.

    Raises:
        ConfigError: If it is no setting, with a suggestion.
    """
    from mainspring.training.settings import Settings

    known = [field.name for field in fields(Settings)]
    for key in extra:
        if key not in known:
            raise unknown("setting", key, known)
    return extra
