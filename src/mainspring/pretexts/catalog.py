"""Which pretexts there are: one file a pretext, found by its name.

Every module of a family package (`ordering`, `contrastive`, ...) is a pretext of the module's name,
unless its name begins with an underscore; what pretexts share lies beside `pretext.py`. Nothing is
registered, and a module is imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil

from mainspring import pretexts
from mainspring.errors import unknown
from mainspring.pretexts.pretext import Pretext


def _modules() -> dict[str, str]:
    """Module path of each pretext."""
    found = {}
    for family in pkgutil.iter_modules(pretexts.__path__, f"{pretexts.__name__}."):
        if not family.ispkg:
            continue
        package = importlib.import_module(family.name)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                found[module.name] = f"{family.name}.{module.name}"
    return found


def names() -> list[str]:
    """All pretexts, in alphabetical order."""
    return sorted(_modules())


def find(name: str) -> type[Pretext]:
    """The pretext of that name.

    Raises:
        ConfigError: If there is none; the nearest name is suggested.
        TypeError: If its file does not hold exactly one pretext.
    """
    modules = _modules()
    if name not in modules:
        raise unknown("pretext", name, modules)
    module = importlib.import_module(modules[name])
    classes = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Pretext)
        and thing.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"{modules[name]} must hold one pretext, but holds {len(classes)}")
    return classes[0]
