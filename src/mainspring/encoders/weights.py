"""Weights from elsewhere: read into an encoder by name, with an account of what did not fit."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mainspring.encoders.encoder import Encoder
from mainspring.errors import ConfigError

WEIGHTS = "encoder.safetensors"
"""What a saved encoder's weights are called in its folder."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What happened to each weight; nothing is left out.

    Attributes:
        source: The file.
        entry: Which part of the file holds the weights; empty if it holds nothing else.
        prefix: What was taken off the front of the file's names to make them match.
        loaded: Names that were read.
        missing: Names of the encoder that the file lacks; they keep their values.
        unexpected: Names in the file, as they stand there, that the encoder lacks.
        mismatched: For names in both, (shape in the file, shape in the encoder) where they
            differ; they keep their values.
    """

    source: str
    entry: str
    prefix: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[Shape, Shape]]

    @property
    def complete(self) -> bool:
        """Whether file and encoder have the same names and shapes."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        where = f" (under {self.entry!r})" if self.entry else ""
        lines = [f"{len(self.loaded)} weights loaded from {self.source}{where}."]
        if self.prefix:
            lines.append(f"Taken off the names: {self.prefix!r}.")
        if self.missing:
            lines.append(f"Missing in the file, kept as they were: {_listed(self.missing)}.")
        if self.unexpected:
            lines.append(f"Not part of the encoder, left out: {_listed(self.unexpected)}.")
        if self.mismatched:
            shapes = [f"{k} {a} in the file, {b} here" for k, (a, b) in self.mismatched.items()]
            lines.append(f"Of another shape, kept as they were: {_listed(shapes)}.")
        return "\n".join(lines)


def load_weights(encoder: Encoder, source: Path, strict: bool = False) -> LoadReport:
    """Reads weights into an encoder where names and shapes agree.

    Args:
        encoder: Changed in place.
        source: A `.safetensors` file, a file of torch.save (`.pt`, `.pth`, `.pyth`, ...; tensors
            only, nothing in it is executed), or a folder that `save_encoder` wrote.
        strict: Ask for every name and shape to agree; otherwise the report says what did not.

    Raises:
        ConfigError: If the file cannot be read, if no weight of it fits, or, when strict, if any
            does not. The encoder is then unchanged.
    """
    target = encoder.state_dict()
    entry, prefix, given = _best(_read(source), target)
    named = {key.removeprefix(prefix): key for key in given if key.startswith(prefix)}
    shared = [key for key in target if key in named]
    shapes = {key: (tuple(given[named[key]].shape), tuple(target[key].shape)) for key in shared}
    report = LoadReport(
        source=str(source),
        entry=entry,
        prefix=prefix,
        loaded=tuple(key for key in shared if shapes[key][0] == shapes[key][1]),
        missing=tuple(key for key in target if key not in named),
        unexpected=tuple(
            key for key in given if not key.startswith(prefix) or key[len(prefix) :] not in target
        ),
        mismatched={key: pair for key, pair in shapes.items() if pair[0] != pair[1]},
    )
    if not report.loaded:
        raise ConfigError(
            f"No weight of {source} fits {type(encoder).__name__}. The file has names such as "
            f"{_listed(list(given), 3)}; the encoder expects names such as "
            f"{_listed(list(target), 3)}. {_mismatches(report)}".rstrip()
        )
    if strict and not report.complete:
        raise ConfigError(f"{source} does not fit {type(encoder).__name__} exactly. {report}")
    with torch.no_grad():
        for key in report.loaded:
            target[key].copy_(given[named[key]])
    return report


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file and the metadata in its header."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read(source: Path) -> Any:
    path = source / WEIGHTS if source.is_dir() else source
    if not path.is_file():
        raise ConfigError(f"There are no weights at {path}: no such file.")
    if path.suffix == ".safetensors":
        try:
            return read_safetensors(path)[0]
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path} is not a complete safetensors file: {error}.") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds more than tensors or is not a file of torch.save; Python objects in it "
            f"are never executed. Save its state_dict alone, best as .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a file of torch.save: {error}.") from error


def _best(content: Any, target: Mapping[str, Tensor]) -> tuple[str, str, dict[str, Tensor]]:
    """The part of a file, and the prefix of its names, with the most names of `target`."""
    parts: dict[str, dict[str, Tensor]] = {}
    if isinstance(content, Mapping):
        for entry, part in {"": content, **content}.items():
            if isinstance(part, Mapping):
                tensors = {str(k): v for k, v in part.items() if isinstance(v, Tensor)}
                if tensors:
                    parts[str(entry)] = tensors
    if not parts:
        raise ConfigError(
            f"The file holds no table of named tensors but a {type(content).__name__}; give a "
            f"state_dict."
        )
    choices = []
    for entry, tensors in parts.items():
        prefix, count = _prefix(tensors, target)
        choices.append((count, -len(prefix), entry, prefix))
    _, _, entry, prefix = max(choices, key=lambda choice: choice[:2])
    return entry, prefix, parts[entry]


def _prefix(given: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[str, int]:
    """What to take off the names, whole dotted parts such as "module.backbone.", so that most of
    them match; the shortest of equals."""
    counts: Counter[str] = Counter()
    for key in given:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in target:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
    if not counts:
        return "", 0
    return max(counts.items(), key=lambda item: (item[1], -len(item[0])))


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _mismatches(report: LoadReport) -> str:
    if not report.mismatched:
        return ""
    key, (theirs, ours) = next(iter(report.mismatched.items()))
    return f"Names agree but shapes do not, such as {key}: {theirs} in the file, {ours} here."
