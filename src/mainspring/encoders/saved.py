"""Encoders on disk: what was learnt, how to build it again, and where in time it looked.

A folder holds `encoder.safetensors` and `encoder.json`. The description in the JSON file also
stands in the header of the weights, which are replaced in one step, so that the two cannot
disagree when a process is killed between them: `load_encoder` reads the header, people the JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from mainspring.clips import ClipSpec
from mainspring.encoders.catalog import find, name_of
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.weights import WEIGHTS, LoadReport, load_weights, read_safetensors
from mainspring.errors import ConfigError, RunError

__all__ = ["LoadReport", "Saved", "load_encoder", "load_weights", "save_encoder", "stamp_of"]

DESCRIPTION = "encoder.json"


@dataclass(frozen=True)
class Saved:
    """An encoder read back.

    Attributes:
        encoder: In evaluation mode.
        clip: How clips were cut in training.
        stamp: Hash of weights and settings; the same for the same function, wherever it lies.
        extra: What the writer added.
    """

    encoder: Encoder
    clip: ClipSpec
    stamp: str
    extra: dict[str, Any]


def stamp_of(encoder: Encoder) -> str:
    """16 hexadecimal digits that change with the architecture, its settings or any weight."""
    return _stamp(name_of(type(encoder)), encoder.settings, encoder.state_dict())


def save_encoder(
    folder: Path, encoder: Encoder, clip: ClipSpec, extra: Mapping[str, Any] | None = None
) -> str:
    """Writes an encoder to `folder`, replacing what was there in one step.

    Args:
        folder: Made if need be.
        encoder: Of any memory format and device.
        clip: How clips were cut in training.
        extra: Anything that JSON can hold.

    Returns:
        The stamp.

    Raises:
        RunError: If the folder cannot be written.
    """
    name = name_of(type(encoder))
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in encoder.state_dict().items()
    }
    stamp = _stamp(name, encoder.settings, weights)
    description = {
        "name": name,
        "stream": encoder.stream,
        "settings": encoder.settings,
        "clip": asdict(clip),
        "dim": encoder.dim,
        "stamp": stamp,
        "mainspring": version("mainspring"),
        "extra": dict(extra or {}),
    }
    text = json.dumps(description, indent=2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, save(weights, metadata={"mainspring": text}))
        _replace(folder / DESCRIPTION, text.encode() + b"\n")
    except OSError as error:
        raise RunError(f"The encoder could not be written to {folder}: {error}.") from error
    return stamp


def load_encoder(folder: Path) -> Saved:
    """Reads what `save_encoder` wrote.

    Raises:
        RunError: If the folder holds no encoder, or one that is damaged or that this version
            cannot build.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise RunError(f"{folder} holds no encoder: {WEIGHTS} is not there.")
    try:
        weights, metadata = read_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is not a complete safetensors file: {error}.") from error
    if "mainspring" not in metadata:
        raise RunError(
            f"{path} holds weights but no description of their encoder. Build the encoder and "
            f"read the weights into it with load_weights."
        )
    description = json.loads(metadata["mainspring"])
    if _stamp(description["name"], description["settings"], weights) != description["stamp"]:
        raise RunError(f"{path} is damaged: its weights do not have the stamp of its header.")
    try:
        encoder = find(description["name"])(**description["settings"])
        encoder.load_state_dict(weights)
    except (ConfigError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{path} was written by mainspring {description['mainspring']} and cannot be built by "
            f"{version('mainspring')}: {error}"
        ) from error
    encoder.eval()
    return Saved(
        encoder, ClipSpec(**description["clip"]), description["stamp"], description["extra"]
    )


def _stamp(name: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([name, settings], sort_keys=True).encode())
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _replace(path: Path, content: bytes) -> None:
    """The old content or the new one, never a part, whenever the process is killed."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
