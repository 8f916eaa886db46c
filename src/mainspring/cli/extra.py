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
