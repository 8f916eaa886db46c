"""What a training run can be told. The resolved copy of it is the run's config.toml."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mainspring.clips import ClipSpec
from mainspring.errors import ConfigError, unknown
from mainspring.pretexts.catalog import find
from mainspring.recordings.recording import STREAMS
from mainspring.training.schedule import Optimiser

BUDGETS = ("steps", "epochs", "minutes")
AVERAGES = ("ema", "mean")
"""Of the weights; a run keeps one at most."""


@dataclass(frozen=True)
class Loading:
    """How recordings reach the device.

    Attributes:
        workers: Processes that decode; -1 chooses (none where the cache serves).
        cache_gb: Disk budget in GB for decoded frames and samples; 0 always streams.
        cache: Folder of the cache; empty means the user's cache folder.
        window: Seconds; recordings that hold as many twice are visited as windows of this length at
            least, or of eight times what the pretext needs if that is longer.
        holdout: Share of the groups whose recordings are kept back to ask the questions of at
            the end.

    Raises:
        ConfigError: If a setting is out of range.
    """

    workers: int = -1
    cache_gb: float = 8.0
    cache: str = ""
    window: float = 30.0
    holdout: float = 0.05

    def __post_init__(self) -> None:
        if self.workers < -1:
            raise ConfigError(
                f"loading.workers is {self.workers}; it is a number of processes, or -1."
            )
        if not self.cache_gb >= 0:
            raise ConfigError(
                f"loading.cache_gb is {self.cache_gb}; it must be at least 0, which keeps nothing."
            )
        if not self.window > 0:
            raise ConfigError(
                f"loading.window is {self.window}; it is a number of seconds above 0."
            )
        if not 0 <= self.holdout < 1:
            raise ConfigError(
                f"loading.holdout is {self.holdout}; it is a share of at least 0 and below 1."
            )


@dataclass(frozen=True)
class Settings:
    """A training run.

    Attributes:
        data: Folder, glob, manifest or file.
        pretext: Name of the pretext.
        preset: Name of one of the pretext's presets, such as a row of its paper's table.
        encoder: Names of encoders, one a stream; empty chooses by stream and device.
        stream: Streams to learn from; empty takes the first that pretext and data share.
        steps: Budget in optimiser steps; at most one budget may be given.
        epochs: Budget in visits to every recording.
        minutes: Budget in time on this machine, measured before the start.
        batch: Recordings a step over all processes.
        parts: Micro-batches a step; same result, less memory, one more forward pass. Where a
            pretext says so (`at_once`), 1 becomes as many as memory needs.
        seed: Seed of everything.
        start: Encoder to start from: a run, an encoder folder, or a file of weights.
        precision: "auto", "fp32" or "bf16".
        checkpoint: Seconds between checkpoints.
        question: Settings of the pretext.
        architecture: Settings of each stream's encoder.
        clip: For each stream the fields of its clips that differ from the encoder's own.
        optimiser: How weights change.
        loading: How recordings reach the device.
    """

    data: str
    pretext: str = "taco"
    preset: str = ""
    encoder: tuple[str, ...] = ()
    stream: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int = 64
    parts: int = 1
    seed: int = 0
    start: str | None = None
    precision: str = "auto"
    checkpoint: float = 60.0
    question: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, dict[str, Any]] = field(default_factory=dict)
    clip: dict[str, dict[str, Any]] = field(default_factory=dict)
    optimiser: Optimiser = field(default_factory=Optimiser)
    loading: Loading = field(default_factory=Loading)

    def __post_init__(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} are both given; a run has one budget.")
        for name in given:
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}.")
        if self.batch < 2:
            raise ConfigError(f"batch must be at least 2, not {self.batch}.")
        if not 1 <= self.parts <= self.batch:
            raise ConfigError(
                f"parts must lie between 1 and batch ({self.batch}), not {self.parts}."
            )
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, and is {self.seed}.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise unknown("precision", self.precision, ["auto", "fp32", "bf16"])
        for name in ("architecture", "clip"):
            for stream in getattr(self, name):
                if stream not in STREAMS:
                    raise unknown(f"stream in {name}", stream, STREAMS)


def settle(values: Mapping[str, Any]) -> Settings:
    """The settings of a run: what the user gave, over the preset, over the recipe of the pretext,
    over defaults.

    None and empty lists count as not given. A recipe's encoder, and what it says of architecture
    and clips, belong together: they are left out where the user names an encoder. So is a recipe's
    average of the weights where the user names one.

    Raises:
        ConfigError: If a setting or the preset is unknown, or settings contradict each other.
    """
    given = {k: v for k, v in values.items() if v is not None and v not in ((), [], "")}
    name = given.get("pretext", Settings.pretext)
    kind = find(name)
    recipe = dict(kind.recipe)
    if "preset" in given:
        if not kind.presets:
            raise ConfigError(
                f"{name} has no presets; leave --preset {given['preset']} out. What can be set is "
                "[question] of a config file; `mainspring pretexts` lists presets."
            )
        if given["preset"] not in kind.presets:
            raise unknown(f"preset of {name}", given["preset"], kind.presets)
        recipe = _over(recipe, kind.presets[given["preset"]])
    if "encoder" in given:
        recipe = {k: v for k, v in recipe.items() if k not in ("encoder", "architecture", "clip")}
    if any(name in given for name in BUDGETS):
        recipe = {k: v for k, v in recipe.items() if k not in BUDGETS}
    asked = given.get("optimiser")
    if isinstance(asked, Mapping) and any(asked.get(average) for average in AVERAGES):
        own = recipe.get("optimiser", {}).items()
        recipe["optimiser"] = {k: v for k, v in own if k not in AVERAGES}
    return make(Settings, _over(recipe, given), "settings")


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`, section by section."""
    both = {**below, **above}
    for name in set(below) & set(above):
        if isinstance(below[name], Mapping) and isinstance(above[name], Mapping):
            both[name] = _over(below[name], above[name])
    return both


def make(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A settings dataclass from a mapping, such as a section of a TOML file.

    Nested dataclasses are made of nested mappings; lists become tuples.

    Raises:
        ConfigError: If a key is unknown (with a suggestion), or a value of another type than its
            field or refused.
    """
    fields, hints = {f.name: f for f in dataclasses.fields(kind)}, get_type_hints(kind)
    filled = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"setting in {where}", key, fields)
        default = fields[key].default_factory
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            value = make(default, value, f"{where}.{key}") if isinstance(value, Mapping) else value
        if isinstance(value, list):
            value = tuple(value)
        _fitting(value, hints[key], f"{key} in {where}")
        filled[key] = value
    try:
        return kind(**filled)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def with_clip(spec: ClipSpec, changes: Mapping[str, Any], stream: str) -> ClipSpec:
    """The encoder's clip with the user's changes.

    Raises:
        ConfigError: If a field is unknown, or its value cannot be meant.
    """
    where, hints = f"clip.{stream}", get_type_hints(ClipSpec)
    for key, value in changes.items():
        if key not in hints:
            raise unknown(f"setting in {where}", key, hints)
        _fitting(value, hints[key], f"{key} in {where}")
        least = 0 if key in ("size", "crop") else 1
        if key == "rate" and value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{where}.rate is {value}; it is a number of positions a second.")
        if key != "rate" and value < least:
            raise ConfigError(f"{where}.{key} is {value}; it must be at least {least}.")
    changed = dataclasses.replace(spec, **changes)
    if changed.crop > changed.size:
        raise ConfigError(
            f"{where}.crop is {changed.crop}, more than the {changed.size} pixels of size. Set a "
            "smaller crop or a larger size."
        )
    return changed


def _fitting(value: Any, hint: Any, what: str) -> None:
    """Raises ConfigError for a value of another type than its field."""
    if not fits(value, hint):
        name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else hint
        raise ConfigError(f"{what} is {value!r}, where {name} was expected.")
    if value != value:
        raise ConfigError(f"{what} is {value}, where a number was expected.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; whole numbers are numbers, paths and text are alike."""
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if Ellipsis in inner else inner
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if get_origin(hint) is dict:
        return isinstance(value, Mapping) and all(fits(each, inner[1]) for each in value.values())
    if inner:
        return any(fits(value, kind) for kind in inner)
    if hint is Any or isinstance(value, bool):
        return hint in (Any, bool)
    path = (str, os.PathLike)
    taken: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real, str: path, Path: path}
    return isinstance(value, taken.get(hint, hint))
