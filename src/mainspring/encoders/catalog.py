"""Which encoders there are. A new one is one file in this package; nothing else lists it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import mainspring.encoders
from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError, unknown


def find(name: str) -> type[Encoder]:
    """The encoder called `name`.

    Raises:
        ConfigError: If there is none; with the nearest name suggested.
    """
    known = encoders()
    if name not in known:
        raise unknown("encoder", name, known)
    return known[name]


def names() -> list[str]:
    """All encoders' names, in alphabetical order."""
    return sorted(encoders())


def name_of(encoder: type[Encoder]) -> str:
    """What users call an encoder: its class attribute `name`, otherwise the name of its file."""
    return vars(encoder).get("name", encoder.__module__.rpartition(".")[2])


def encoders() -> dict[str, type[Encoder]]:
    """Every class of this package that says which stream it reads and where it comes from."""
    found: dict[str, type[Encoder]] = {}
    for file in pkgutil.iter_modules(mainspring.encoders.__path__):
        module = importlib.import_module(f"{mainspring.encoders.__name__}.{file.name}")
        for value in vars(module).values():
            if not inspect.isclass(value) or not issubclass(value, Encoder):
                continue
            if value.__module__ != module.__name__ or not hasattr(value, "citation"):
                continue
            name = name_of(value)
            if found.setdefault(name, value) is not value:
                raise ConfigError(
                    f"Two encoders are called {name!r}: {found[name].__qualname__} and "
                    f"{value.__qualname__}. Give each a class attribute `name` of its own."
                )
    return found
