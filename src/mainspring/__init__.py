"""Mainspring learns from unlabelled sequences: videos, sounds, time series and texts.

    import mainspring as ms

    ms.pretrain("videos/", pretext="taco", out="runs/first")
    vectors = ms.embed("runs/first", "videos/")

Each name is imported when it is first used, so that `import mainspring` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mainspring.api import (
        across,
        anomaly,
        catalogue,
        check,
        classify,
        cluster,
        embed,
        forecast,
        load,
        pretrain,
        probe,
        search,
        sync,
    )
    from mainspring.embedder import Embedder
    from mainspring.errors import ConfigError, DataError, MainspringError, RunError

__version__ = "0.1.0"

_HOMES = {
    "across": "api",
    "anomaly": "api",
    "check": "api",
    "classify": "api",
    "cluster": "api",
    "embed": "api",
    "forecast": "api",
    "load": "api",
    "pretrain": "api",
    "probe": "api",
    "catalogue": "api",
    "search": "api",
    "sync": "api",
    "Embedder": "embedder",
    "ConfigError": "errors",
    "DataError": "errors",
    "MainspringError": "errors",
    "RunError": "errors",
}

__all__ = [
    "ConfigError",
    "DataError",
    "Embedder",
    "MainspringError",
    "RunError",
    "across",
    "anomaly",
    "catalogue",
    "check",
    "classify",
    "cluster",
    "embed",
    "forecast",
    "load",
    "pretrain",
    "probe",
    "search",
    "sync",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mainspring' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mainspring.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
